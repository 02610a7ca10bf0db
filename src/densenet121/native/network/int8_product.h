// The matrix product of int8 inference: activations of 8 bits without a sign by weights of 8 bits
// with one, summed exactly in 32 bits, so that every instruction set computes the same bits.
//
// B is packed in panels of 32 columns, the same for all instruction sets: of 4 summands after
// another, 32 columns x 4 numbers. Adjacent weights of a pair have magnitudes of at most 128
// together, so that the sum of two products fits 16 bits, in which AVX2 adds them. In the files of
// today that of four does, too (network/int8/weights.py): half as many sums are widened to 32 bits.

#pragma once

#include <limits>

#include "parallel.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kBytePanel = 32;  // columns
constexpr int kSummands = 4;    // adjacent numbers of A that one instruction multiplies

// Filled in by Python (structures.py): order and types must agree.
struct Int8Product {
  int64_t columns;
  int64_t fours;                 // whether the sums of four products fit 16 bits: see Fours
  void *weights, *bias, *scale;  // s8, s32, float; padded to whole panels

  const int8_t* panel(int64_t column, int64_t depth) const {
    return static_cast<const int8_t*>(weights) + column * depth;
  }
  const int32_t* bias_of(int64_t column) const { return static_cast<const int32_t*>(bias) + column; }
  const float* scale_of(int64_t column) const { return static_cast<const float*>(scale) + column; }
};

#if defined(__AMX_INT8__)
constexpr bool kByteTiles = true;
#else
constexpr bool kByteTiles = false;
#endif
constexpr int64_t kTileHeight = 16;  // rows of a tile
constexpr int64_t kTileDepth = 64;   // bytes of a row of A in a tile

// Rows of A, each of some segments of adjacent bytes, a multiple of kSummands. With kByteTiles the
// memory of kTileHeight - 1 rows and kTileDepth bytes behind them is read too; it has no effect.
struct ByteRows {
  const uint8_t* first;
  int64_t ld, depth;  // bytes from row to row; bytes per segment
  int64_t segments = 1, segment_ld = 0;
};

// What becomes of the sums of some columns: round((bias + sum) * scale), limited to the range of Out,
// uint8_t (whose lower end is relu) or int16_t. Scales are at most 8 and biases 2^26, so that no
// number leaves the range of 32 bits.
template <class Out>
struct Result {
  const int32_t* bias;
  const float* scale;
  Out* const* rows;
  int64_t first, columns;  // the first column of a row, and how many are stored
};

#if defined(__AVX512F__)
using Sums = __m512i;
#elif defined(__AVX2__)
using Sums = __m256i;
#elif defined(DENSENET121_NEON)
using Sums = int32x4_t;
#endif

// How products are added: kSteps times kSummands of them at once, for kRows rows of a tile.
#if defined(__AVX2__)
constexpr bool kAddsFours = true;
constexpr bool kWide = sizeof(Sums) == 64;
// Two products in 16 bits, or four: 0, 1, 4 and 5 of eight adjacent ones, and the others.
struct Pairs {
  static constexpr int kSteps = 1, kRows = kWide ? 8 : 5;
};
struct Fours {
  static constexpr int kSteps = 2, kRows = 4;
};
struct Vnni {
  static constexpr int kSteps = 1, kRows = kWide ? 12 : 6;
};
#else
constexpr bool kAddsFours = false;
struct Pairs {
#if defined(DENSENET121_NEON)
  static constexpr int kSteps = 1, kRows = 8;
#else
  static constexpr int kSteps = 1, kRows = 4;
#endif
};
using Fours = Pairs;
using Vnni = Pairs;
#endif

#if defined(__AVX2__)
inline bool has_vnni();  // int8_x86.h
#else
inline bool has_vnni() { return false; }
#endif

#if defined(__AVX2__) || defined(DENSENET121_NEON)

constexpr int kSumColumns = sizeof(Sums) / sizeof(int32_t);

// Stores the first n numbers of a register.
template <class Register, class Out>
inline void store_some(Out* to, Register numbers, int64_t n) {
  if (n >= static_cast<int64_t>(sizeof(numbers) / sizeof(Out))) {
    std::memcpy(to, &numbers, sizeof(numbers));
  } else if (n > 0) {
    std::memcpy(to, &numbers, n * sizeof(Out));
  }
}

// kRows rows and kVectors registers of columns of one panel, summed in registers (int8_x86.h,
// int8_neon.h).
template <class Out, class Way, int kRows, int kVectors>
void byte_tile(const ByteRows& rows, const uint8_t* a, const int8_t* b, const Result<Out>& result,
               Out* const* to);

template <class Out, class Way, int kVectors, int kRows = Way::kRows>
inline void byte_rows(int count, const ByteRows& rows, const uint8_t* a, const int8_t* b,
                      const Result<Out>& result, Out* const* to) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      byte_tile<Out, Way, kRows, kVectors>(rows, a, b, result, to);
    } else {
      byte_rows<Out, Way, kVectors, kRows - 1>(count, rows, a, b, result, to);
    }
  }
}

#else

constexpr int kSumColumns = 16;

// v limited to the range of Out and rounded to the nearest, to even between two.
template <class Out>
inline Out rounded(float v) {
  constexpr float kLow = std::numeric_limits<Out>::min(), kHigh = std::numeric_limits<Out>::max();
  v = v > kLow ? v : kLow;
  v = v < kHigh ? v : kHigh;
  return static_cast<Out>(std::lrint(v));
}

template <class Out, class Way, int kVectors>
inline void byte_rows(int count, const ByteRows& rows, const uint8_t* a, const int8_t* b,
                      const Result<Out>& result, Out* const* to) {
  constexpr int kColumns = kVectors * kSumColumns;
  for (int r = 0; r < count; r++) {
    int32_t sums[kColumns];
    std::memcpy(sums, result.bias, sizeof(sums));
    for (int64_t s = 0; s < rows.segments; s++) {
      const uint8_t* four = a + r * rows.ld + s * rows.segment_ld;
      const int8_t* line = b + s * rows.depth * kBytePanel;
      for (int64_t k = 0; k < rows.depth; k += kSummands) {
        for (int n = 0; n < kColumns; n++) {
          for (int i = 0; i < kSummands; i++) {
            sums[n] += four[k + i] * line[k * kBytePanel + n * kSummands + i];
          }
        }
      }
    }
    for (int n = 0; n < smaller<int64_t>(result.columns, kColumns); n++) {
      to[r][result.first + n] = rounded<Out>(static_cast<float>(sums[n]) * result.scale[n]);
    }
  }
}

#endif

template <class Out, class Way>
inline void byte_columns(int64_t count, const ByteRows& rows, const int8_t* b,
                         const Result<Out>& result) {
  // Tiles of nearly equal height: in a low one at the end the multiplier would have to wait.
  const int tiles = (count + Way::kRows - 1) / Way::kRows;
  for (int i = 0; i < tiles; i++) {
    const Range tile = share(count, i, tiles);
    const int height = tile.end - tile.begin;
    const uint8_t* a = rows.first + tile.begin * rows.ld;
    if (result.columns > kSumColumns) {
      byte_rows<Out, Way, 2>(height, rows, a, b, result, result.rows + tile.begin);
    } else {
      byte_rows<Out, Way, 1>(height, rows, a, b, result, result.rows + tile.begin);
    }
  }
}

template <class Out>
void tiles_product(const Int8Product& product, int64_t count, const ByteRows& rows, int64_t first,
                   int64_t last, Out* const* out);  // int8_tiles.h

// Columns first .. last - 1 of A B for `count` rows; `first` is a multiple of a panel. Row r of the
// result begins at out[r]. With kByteTiles the caller has an object Tiles.
template <class Out>
inline void byte_product(const Int8Product& product, int64_t count, const ByteRows& rows,
                         int64_t first, int64_t last, Out* const* out) {
  if constexpr (kByteTiles) return tiles_product(product, count, rows, first, last, out);
  const int64_t depth = rows.depth * rows.segments;
  constexpr int kAtOnce = smaller(2 * kSumColumns, kBytePanel);
  for (int64_t n = first; n < last; n += kAtOnce) {
    const int64_t within = n % kBytePanel;
    const int8_t* b = product.panel(n - within, depth) + within * kSummands;
    const Result<Out> result{product.bias_of(n), product.scale_of(n), out, n,
                             smaller<int64_t>(kAtOnce, last - n)};
    if (has_vnni()) {
      byte_columns<Out, Vnni>(count, rows, b, result);
    } else if (kAddsFours && product.fours) {
      byte_columns<Out, Fours>(count, rows, b, result);
    } else {
      byte_columns<Out, Pairs>(count, rows, b, result);
    }
  }
}

}  // namespace

#if defined(__AVX2__)
#include "int8_x86.h"
#elif defined(DENSENET121_NEON)
#include "int8_neon.h"
#endif
#if defined(__AMX_INT8__)
#include "int8_tiles.h"
#endif
