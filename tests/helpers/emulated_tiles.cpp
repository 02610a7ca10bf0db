// The int8 kernels by AMX's tiles on a processor that has none: the instructions in plain C++, after
// Intel's Software Developer's Manual, volume 2 (TILELOADD, TILESTORED, TDPBUSD).

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd

struct EmulatedTile {
  uint8_t rows[16][64];
};
static thread_local EmulatedTile emulated[8];
static thread_local bool configured = false;

static void _tile_loadd(int tile, const void* base, int64_t stride) {
  if (!configured) __builtin_trap();
  for (int r = 0; r < 16; r++) {
    std::memcpy(emulated[tile].rows[r], static_cast<const uint8_t*>(base) + r * stride, 64);
  }
}

static void _tile_stored(int tile, void* base, int64_t stride) {
  if (!configured) __builtin_trap();
  for (int r = 0; r < 16; r++) {
    std::memcpy(static_cast<uint8_t*>(base) + r * stride, emulated[tile].rows[r], 64);
  }
}

static void _tile_dpbusd(int sums, int a, int b) {
  if (!configured) __builtin_trap();
  for (int m = 0; m < 16; m++) {
    int32_t row[16];
    std::memcpy(row, emulated[sums].rows[m], 64);
    for (int k = 0; k < 64; k++) {
      for (int n = 0; n < 16; n++) {
        const int8_t weight = emulated[b].rows[k / 4][4 * n + k % 4];
        row[n] += int32_t{emulated[a].rows[m][k]} * weight;
      }
    }
    std::memcpy(emulated[sums].rows[m], row, 64);
  }
}

// In place of tiles.h, which would set up registers that are not here.
#define DENSENET121_TILES_H
#define __AMX_INT8__ 1

namespace {
struct Tiles {
  Tiles() { configured = true; }
  ~Tiles() { configured = false; }
};
}  // namespace

#include "int8_entries.h"
