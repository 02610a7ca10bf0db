// The matrix product of inference in float and double: any number of rows, columns and summands,
// written where it is wanted, shifted and through relu.
//
// B is packed in panels of two registers of columns (one for what is left), each with all summands
// one after the other. Every number of C is one sum in the order of the summands, however the rows
// are shared out.

#pragma once

#include "gemm.h"
#include "parallel.h"

namespace {

// Rows whose sums the registers hold, with a row of B and a number of A: 16 registers, 32 for
// AVX-512.
constexpr int kTileRows = kRegisterBytes == 64 ? 12 : 6;

// Summands of a panel that take half of a first cache of 32 kB.
template <class T>
constexpr int kDepthAtOnce = 16384 / (kPanel<T> * sizeof(T));

// Summands (the depth is a multiple of it) during which a tile asks for so many cache lines of
// the panel that comes next: four tiles ask for all of it.
template <class T>
constexpr int kUnroll = smaller(4, kLanes<T>);
template <class T>
constexpr int kLinesAhead = kUnroll<T> * 2 * kRegisterBytes / 64 / 4 > 0 ? kUnroll<T> * 2 * kRegisterBytes / 64 / 4 : 1;

// C (+)= A B for kRows rows and kVectors registers of columns, summed in registers.
template <class T, int kRows, int kVectors>
__attribute__((noinline)) void product_tile(const T* a, int64_t lda, int64_t depth, const T* b,
                                            T* c, int64_t ldc, bool accumulate, const T* shift,
                                            const T* ahead) {
  Vec<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; r++) {
    for (int v = 0; v < kVectors; v++) {
      sums[r][v] = accumulate ? load<T>(c + r * ldc + v * kLanes<T>, kLanes<T>) : Vec<T>{};
    }
  }
  for (int64_t begin = 0; begin < depth; begin += kUnroll<T>) {
    for (int i = 0; i < kLinesAhead<T>; i++, ahead += 64 / sizeof(T)) __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 4
    for (int64_t k = begin; k < begin + kUnroll<T>; k++) {
      Vec<T> row[kVectors];
      for (int v = 0; v < kVectors; v++) {
        row[v] = load<T>(b + k * kVectors * kLanes<T> + v * kLanes<T>, kLanes<T>);
      }
      for (int r = 0; r < kRows; r++) {
        const T factor = a[r * lda + k];
        for (int v = 0; v < kVectors; v++) sums[r][v] += factor * row[v];
      }
    }
  }
  for (int v = 0; v < kVectors; v++) {
    const Vec<T> add = shift ? load<T>(shift + v * kLanes<T>, kLanes<T>) : Vec<T>{};
    for (int r = 0; r < kRows; r++) {
      store<T>(c + r * ldc + v * kLanes<T>, shift ? relu(sums[r][v] + add) : sums[r][v], kLanes<T>);
    }
  }
}

template <class T, int kVectors, int kRows = kTileRows>
inline void product_rows(int rows, const T* a, int64_t lda, int64_t depth, const T* b, T* c,
                         int64_t ldc, bool accumulate, const T* shift, const T* ahead) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      product_tile<T, kRows, kVectors>(a, lda, depth, b, c, ldc, accumulate, shift, ahead);
    } else {
      product_rows<T, kVectors, kRows - 1>(rows, a, lda, depth, b, c, ldc, accumulate, shift,
                                           ahead);
    }
  }
}

// C (+)= A B for one panel of B: `width` is the panel's columns, of one register or two. With a
// shift, C is relu of its sums and the shift. Brings what lies at `next` into the cache meanwhile.
template <class T>
inline void product(int64_t rows, const T* a, int64_t lda, int64_t depth, const T* b, int64_t width,
                    T* c, int64_t ldc, bool accumulate, const T* shift, const T* next) {
  // Tiles of equal height, or nearly: a low one at the end would leave the multiplier waiting.
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  for (int i = 0; i < tiles; i++) {
    const Range tile = share(rows, i, tiles);
    const int height = tile.end - tile.begin;
    const T* ahead = i < 4 ? next + i * (depth / kUnroll<T>)*kLinesAhead<T> * 64 / sizeof(T) : b;
    if (width == kPanel<T>) {
      product_rows<T, 2>(height, a + tile.begin * lda, lda, depth, b, c + tile.begin * ldc, ldc,
                         accumulate, shift, ahead);
    } else {
      product_rows<T, 1>(height, a + tile.begin * lda, lda, depth, b, c + tile.begin * ldc, ldc,
                         accumulate, shift, ahead);
    }
  }
}

// Where number (k, n) of B lies.
template <class T>
inline int64_t panel_index(int64_t k, int64_t n, int64_t depth, int64_t width) {
  const int64_t first = n / kPanel<T> * kPanel<T>;
  return first * depth + k * smaller<int64_t>(kPanel<T>, width - first) + n - first;
}

}  // namespace
