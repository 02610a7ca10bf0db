// C += A' B in float and double, for the gradients of weights: a sum over pixels.

#pragma once

#include "product.h"

namespace {

// C += A' B for kRows columns of A and kVectors registers of columns of B.
template <class T, int kRows, int kVectors>
__attribute__((noinline)) void outer_tile(int64_t depth, const T* a, int64_t lda, const T* b,
                                          int64_t ldb, T* c, int64_t ldc) {
  if (depth < 1) return;  // otherwise gcc keeps the sums in memory, for this case
  Vec<T> sums[kRows][kVectors];
#pragma GCC unroll 16  // as in product_tile
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[r][v] = load<T>(c + r * ldc + v * kLanes<T>, kLanes<T>);
  }
  for (int64_t k = 0; k < depth; k++, a += lda, b += ldb) {
    Vec<T> row[kVectors];
    for (int v = 0; v < kVectors; v++) row[v] = load<T>(b + v * kLanes<T>, kLanes<T>);
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) sums[r][v] += a[r] * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) store<T>(c + r * ldc + v * kLanes<T>, sums[r][v], kLanes<T>);
  }
}

template <class T, int kVectors, int kRows = kTileRows>
inline void outer_rows(int count, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb,
                       T* c, int64_t ldc) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      outer_tile<T, kRows, kVectors>(depth, a, lda, b, ldb, c, ldc);
    } else {
      outer_rows<T, kVectors, kRows - 1>(count, depth, a, lda, b, ldb, c, ldc);
    }
  }
}

// C += A' B of `rows` x `columns` numbers; columns is a multiple of the lanes.
template <class T>
inline void outer_product(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t lda,
                          const T* b, int64_t ldb, T* c, int64_t ldc) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t n = 0; n < columns; n += kPanel<T>) {
    for (int i = 0; i < tiles; i++) {
      const Range tile = share(rows, i, tiles);
      const int height = tile.end - tile.begin;
      const auto multiply_rows = columns - n < kPanel<T> ? outer_rows<T, 1> : outer_rows<T, 2>;
      multiply_rows(height, depth, a + tile.begin, lda, b + n, ldb, c + tile.begin * ldc + n, ldc);
    }
  }
}

}  // namespace
