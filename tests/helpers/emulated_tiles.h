// AMX's tiles on a processor that has none: the instructions in plain C++, after Intel's Software
// Developer's Manual, volume 2 (TILELOADD, TILESTORED, TILEZERO, TDPBUSD, TDPBF16PS). In place of tiles.h,
// which would set up registers that are not here.

#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_dpbf16ps

#define DENSENET121_TILES_H

namespace {

struct EmulatedTile {
  uint8_t rows[16][64];
};
thread_local EmulatedTile emulated[8];
thread_local bool configured = false;

struct Tiles {
  Tiles() { configured = true; }
  ~Tiles() { configured = false; }
};

[[maybe_unused]] bool allow_tiles() { return true; }

inline void check_configured() {
  if (!configured) __builtin_trap();  // the processor raises an exception, too
}

inline void _tile_loadd(int tile, const void* base, int64_t stride) {
  check_configured();
  for (int r = 0; r < 16; r++) {
    std::memcpy(emulated[tile].rows[r], static_cast<const uint8_t*>(base) + r * stride, 64);
  }
}

inline void _tile_stored(int tile, void* base, int64_t stride) {
  check_configured();
  for (int r = 0; r < 16; r++) {
    std::memcpy(static_cast<uint8_t*>(base) + r * stride, emulated[tile].rows[r], 64);
  }
}

[[maybe_unused]] void _tile_zero(int tile) {
  check_configured();
  std::memset(emulated[tile].rows, 0, sizeof(EmulatedTile));
}

inline void _tile_dpbusd(int sums, int a, int b) {
  check_configured();
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

// The even and the odd summands are two sums, rounded at each step; denormals are not flushed here.
[[maybe_unused]] void _tile_dpbf16ps(int sums, int a, int b) {
  check_configured();
  const auto number = [](const uint8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  };
  for (int m = 0; m < 16; m++) {
    float even[16] = {}, odd[16] = {}, row[16];
    std::memcpy(row, emulated[sums].rows[m], 64);
    for (int k = 0; k < 16; k++) {
      const float first = number(emulated[a].rows[m] + 4 * k);
      const float second = number(emulated[a].rows[m] + 4 * k + 2);
      for (int n = 0; n < 16; n++) {
        even[n] = std::fma(first, number(emulated[b].rows[k] + 4 * n), even[n]);
        odd[n] = std::fma(second, number(emulated[b].rows[k] + 4 * n + 2), odd[n]);
      }
    }
    for (int n = 0; n < 16; n++) row[n] += even[n] + odd[n];
    std::memcpy(emulated[sums].rows[m], row, 64);
  }
}

}  // namespace
