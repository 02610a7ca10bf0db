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

#if defined(__AVX512F__)

inline bool has_vnni() {
  static const bool found = __builtin_cpu_supports("avx512vnni");
  return found;
}

inline Sums add_vnni(Sums sums, Sums a, Sums b) {
  // The other code of this library must also run without VNNI, so no intrinsic.
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
  return sums;
}
inline Sums multiplied(Sums a, Sums b) { return _mm512_maddubs_epi16(a, b); }
inline Sums added(Sums a, Sums b) { return _mm512_add_epi16(a, b); }
inline Sums add_widened(Sums sums, Sums words) {
  return _mm512_add_epi32(sums, _mm512_madd_epi16(words, _mm512_set1_epi16(1)));
}

inline Sums load_sums(const void* from) { return _mm512_loadu_si512(from); }
inline Sums four_of(const uint8_t* a) {
  int32_t four;
  std::memcpy(&four, a, sizeof(four));
  return _mm512_set1_epi32(four);
}

template <class Out, int kVectors>
inline void store_result(const Sums* sums, const Result<Out>& result, Out* to) {
  for (int v = 0; v < kVectors; v++) {
    const __m512 scale = _mm512_loadu_ps(result.scale + v * kSumColumns);
    const Sums whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scale));
    const int64_t columns = result.columns - v * kSumColumns;
    if constexpr (std::is_signed_v<Out>) {
      store_some(to + v * kSumColumns, _mm512_cvtsepi32_epi16(whole), columns);
    } else {
      const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(whole, Sums{}));
      store_some(to + v * kSumColumns, bytes, columns);
    }
  }
}

#elif defined(__AVX2__)

#if defined(__AVXVNNI__)
inline bool has_vnni() { return true; }
inline Sums add_vnni(Sums sums, Sums a, Sums b) { return _mm256_dpbusd_avx_epi32(sums, a, b); }
#else
inline bool has_vnni() { return false; }
inline Sums add_vnni(Sums sums, Sums, Sums) { return sums; }  // never called
#endif

inline Sums multiplied(Sums a, Sums b) { return _mm256_maddubs_epi16(a, b); }
inline Sums added(Sums a, Sums b) { return _mm256_add_epi16(a, b); }
// One asm, because gcc would first widen the words of several rows, for which there are no registers.
inline Sums add_widened(Sums sums, Sums words) {
  asm("vpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
      : "+x"(sums), "+x"(words)
      : "x"(_mm256_set1_epi16(1)));
  return sums;
}

inline Sums load_sums(const void* from) {
  return _mm256_loadu_si256(static_cast<const Sums*>(from));
}
inline Sums four_of(const uint8_t* a) {
  int32_t four;
  std::memcpy(&four, a, sizeof(four));
  return _mm256_set1_epi32(four);
}

template <class Out, int kVectors>
inline void store_result(const Sums* sums, const Result<Out>& result, Out* to) {
  Sums whole[2];
  for (int v = 0; v < kVectors; v++) {
    const __m256 scale = _mm256_loadu_ps(result.scale + v * kSumColumns);
    whole[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[v]), scale));
  }
  const Sums words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(whole[0], whole[kVectors - 1]), 0xd8);
  const int64_t columns = smaller<int64_t>(result.columns, kVectors * kSumColumns);
  if constexpr (std::is_signed_v<Out>) {
    store_some(to, words, columns);
  } else {
    const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    store_some(to, _mm_packus_epi16(low, high), columns);
  }
}

#else

inline bool has_vnni() { return false; }

#endif

#if defined(__AVX2__)
// kSteps times kSummands products of kRows rows of A at `a` by kVectors registers of B at `b`.
template <class Way, int kSteps, int kRows, int kVectors>
inline void add_products(const uint8_t* a, int64_t lda, const int8_t* b,
                         Sums (&sums)[kRows][kVectors]) {
  Sums line[kSteps][kVectors];
  for (int i = 0; i < kSteps; i++) {
    for (int v = 0; v < kVectors; v++) {
      line[i][v] = load_sums(b + (i * kBytePanel + v * kSumColumns) * kSummands);
    }
  }
  for (int r = 0; r < kRows; r++) {
    Sums four[kSteps];
    for (int i = 0; i < kSteps; i++) four[i] = four_of(a + r * lda + i * kSummands);
    for (int v = 0; v < kVectors; v++) {
      if constexpr (std::is_same_v<Way, Vnni>) {
        sums[r][v] = add_vnni(sums[r][v], four[0], line[0][v]);
      } else {
        Sums words = multiplied(four[0], line[0][v]);
        for (int i = 1; i < kSteps; i++) words = added(words, multiplied(four[i], line[i][v]));
        sums[r][v] = add_widened(sums[r][v], words);
      }
    }
  }
}
#endif

// kRows rows and kVectors registers of columns of one panel, summed in registers.
template <class Out, class Way, int kRows, int kVectors>
__attribute__((noinline)) void byte_tile(const ByteRows& rows, const uint8_t* a, const int8_t* b,
                                         const Result<Out>& result, Out* const* to)
#if defined(DENSENET121_NEON)
    ;  // int8_neon.h
#else
{
  Sums sums[kRows][kVectors];
  for (int v = 0; v < kVectors; v++) {
    const Sums bias = load_sums(result.bias + v * kSumColumns);
    for (int r = 0; r < kRows; r++) sums[r][v] = bias;
  }
  constexpr int64_t kStep = Way::kSteps * kSummands;
  const int64_t lda = rows.ld, depth = rows.depth;
  for (int64_t s = 0; s < rows.segments; s++) {
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep) {
      add_products<Way, Way::kSteps>(a + k, lda, b + k * kBytePanel, sums);
    }
    if (Way::kSteps > 1 && k < depth) add_products<Way, 1>(a + k, lda, b + k * kBytePanel, sums);
    a += rows.segment_ld;
    b += depth * kBytePanel;
  }
  for (int r = 0; r < kRows; r++) store_result<Out, kVectors>(sums[r], result, to[r] + result.first);
}
#endif

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
inline bool has_vnni() { return false; }

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

#if defined(__AMX_INT8__)
#include "int8_tiles.h"
#elif defined(DENSENET121_NEON)
#include "int8_neon.h"
#endif
