// The tile registers of AMX. On other processors there is nothing to set up.

// Not #pragma once: a test defines the guard and brings tiles of its own (emulated_tiles.cpp).
#ifndef DENSENET121_TILES_H
#define DENSENET121_TILES_H

#include <cstdint>

#if defined(__AMX_TILE__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AMX_TILE__)

// Tiles are configured per thread; each thread that multiplies has one of these objects meanwhile.
struct Tiles {
  Tiles() {
    alignas(64) uint8_t config[64] = {1};  // palette 1
    for (int tile = 0; tile < 8; tile++) {
      config[16 + 2 * tile] = 64;  // bytes per row
      config[48 + tile] = 16;      // rows
    }
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
};

// Asks the operating system for the tile registers, which a process may not use otherwise.
inline bool allow_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#else

struct Tiles {
  Tiles() {}
  ~Tiles() {}
};
inline bool allow_tiles() { return true; }

#endif

}  // namespace

#endif
