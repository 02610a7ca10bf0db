// The entries of a library that has int8 inference alone.

#pragma once

#include "int8_network.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int densenet121_int8_patch_columns() { return kPatchColumns; }

EXPORTED int densenet121_int8_network_run(const Int8Network* g) try {
  int8_network_run(*g);
  return 0;
} catch (...) {
  return 1;
}
