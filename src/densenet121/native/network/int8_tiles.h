// The matrix product of int8 inference by AMX's tiles: 16 rows of 64 bytes of A by 64 x 16 of B at
// once. A packed panel of B is two tiles beside each other as it is.

#pragma once

#include "int8_product.h"
#include "tiles.h"

namespace {

constexpr int64_t kTileColumns = 16;  // of B in a tile

// Sums of kTiles x kTileHeight rows and kColumnTiles x kTileColumns columns, to `sums`, kBytePanel
// numbers a row.
// `ends` has, for each segment, the last summands of the panel as a whole step (tile_ends).
template <int kTiles, int kColumnTiles>
__attribute__((noinline)) void multiply_tiles(const ByteRows& rows, const uint8_t* a,
                                              const int8_t* b, const int8_t* ends,
                                              const int32_t* bias, int32_t* sums) {
  constexpr int kPanelBytes = kBytePanel * kSummands, kSumBytes = kBytePanel * sizeof(int32_t);
  // gcc does not know that loading a tile reads memory.
  asm volatile("" ::: "memory");
  // Every row begins with the same biases.
  _tile_loadd(0, bias, 0);
  if constexpr (kColumnTiles == 2) _tile_loadd(1, bias + kTileColumns, 0);
  if constexpr (kTiles == 2) _tile_loadd(2, bias, 0);
  if constexpr (kTiles == 2 && kColumnTiles == 2) _tile_loadd(3, bias + kTileColumns, 0);
  const auto step = [&](const uint8_t* as, const int8_t* bs) __attribute__((always_inline)) {
    _tile_loadd(4, as, rows.ld);
    _tile_loadd(6, bs, kPanelBytes);
    _tile_dpbusd(0, 4, 6);
    if constexpr (kColumnTiles == 2) {
      _tile_loadd(7, bs + kTileColumns * kSummands, kPanelBytes);
      _tile_dpbusd(1, 4, 7);
    }
    if constexpr (kTiles == 2) {
      _tile_loadd(5, as + kTileHeight * rows.ld, rows.ld);
      _tile_dpbusd(2, 5, 6);
      if constexpr (kColumnTiles == 2) _tile_dpbusd(3, 5, 7);
    }
  };
  for (int64_t s = 0; s < rows.segments; s++) {
    int64_t k = 0;
    for (; k + kTileDepth <= rows.depth; k += kTileDepth) step(a + k, b + k * kBytePanel);
    if (k < rows.depth) step(a + k, ends + s * kTileDepth * kBytePanel);
    a += rows.segment_ld;
    b += rows.depth * kBytePanel;
  }
  _tile_stored(0, sums, kSumBytes);
  if constexpr (kColumnTiles == 2) _tile_stored(1, sums + kTileColumns, kSumBytes);
  if constexpr (kTiles == 2) _tile_stored(2, sums + kTileHeight * kBytePanel, kSumBytes);
  if constexpr (kTiles == 2 && kColumnTiles == 2) {
    _tile_stored(3, sums + kTileHeight * kBytePanel + kTileColumns, kSumBytes);
  }
}

// The summands of a panel that do not fill a step, with zeros up to a whole one, for each segment;
// null if there are none. What rows of A have behind their segments is multiplied by the zeros.
inline const int8_t* tile_ends(const ByteRows& rows, const int8_t* b) {
  const int64_t rest = rows.depth % kTileDepth, step = kTileDepth * kBytePanel;
  if (rest == 0) return nullptr;
  int8_t* ends = scratch<int8_t>(6, rows.segments * step);
  for (int64_t s = 0; s < rows.segments; s++) {
    std::memcpy(ends + s * step, b + ((s + 1) * rows.depth - rest) * kBytePanel, rest * kBytePanel);
    std::memset(ends + s * step + rest * kBytePanel, 0, step - rest * kBytePanel);
  }
  return ends;
}

// As byte_product (int8_product.h).
template <class Out>
void tiles_product(const Int8Product& product, int64_t count, const ByteRows& rows, int64_t first,
                   int64_t last, Out* const* out) {
  alignas(64) int32_t sums[2 * kTileHeight * kBytePanel];
  for (int64_t n = first; n < last; n += kBytePanel) {
    const int8_t* b = product.panel(n, rows.depth * rows.segments);
    const int8_t* ends = tile_ends(rows, b);
    const int64_t columns = smaller<int64_t>(kBytePanel, last - n);
    for (int64_t r = 0; r < count; r += 2 * kTileHeight) {
      const bool tall = count - r > kTileHeight, wide = columns > kTileColumns;
      const auto multiply = tall ? (wide ? multiply_tiles<2, 2> : multiply_tiles<2, 1>)
                                 : (wide ? multiply_tiles<1, 2> : multiply_tiles<1, 1>);
      multiply(rows, rows.first + r * rows.ld, b, ends, product.bias_of(n), sums);
      for (int64_t i = r; i < smaller(r + 2 * kTileHeight, count); i++) {
        constexpr int kAtOnce = 2 * kSumColumns;
        for (int64_t c = 0; c < columns; c += kAtOnce) {
          const int32_t* from = sums + (i - r) * kBytePanel + c;
          const Sums both[2] = {load_sums(from), load_sums(from + kSumColumns)};
          const Result<Out> result{nullptr, product.scale_of(n + c), nullptr, n + c, columns - c};
          store_result<Out, 2>(both, result, out[i] + n + c);
        }
      }
    }
  }
}

}  // namespace
