// The tiles of int8_product.h with AVX2 and AVX-512. Included by that file alone.

#pragma once

#include "pairs.h"

namespace {

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

// The sums of one register as whole numbers, before they are limited.
template <class Out>
inline Sums scaled(Sums sums, const Result<Out>& result, int v) {
  const __m512 scale = _mm512_loadu_ps(result.scale + v * kSumColumns);
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale));
}

template <class Out, int kVectors>
inline void store_result(const Sums* sums, const Result<Out>& result, Out* to) {
  for (int v = 0; v < kVectors; v++) {
    const Sums whole = scaled(sums[v], result, v);
    const int64_t columns = result.columns - v * kSumColumns;
    if constexpr (std::is_signed_v<Out>) {
      store_some(to + v * kSumColumns, _mm512_cvtsepi32_epi16(whole), columns);
    } else {
      const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(whole, Sums{}));
      store_some(to + v * kSumColumns, bytes, columns);
    }
  }
}

// Two registers of columns of one row as words, in the order of vpackssdw.
template <class Out>
inline Sums packed_words(const Sums (&sums)[2], const Result<Out>& result) {
  return _mm512_packs_epi32(scaled(sums[0], result, 0), scaled(sums[1], result, 1));
}

// A whole panel of columns of all rows of a tile.
template <int kRows>
inline void store_panel(const Sums (&sums)[kRows][2], const Result<int16_t>& result,
                        int16_t* const* to) {
  const Sums order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
    const Sums words = _mm512_permutexvar_epi64(order, packed_words(sums[r], result));
    _mm512_storeu_si512(to[r] + result.first, words);
  }
}
template <int kRows>
inline void store_panel(const Sums (&sums)[kRows][2], const Result<uint8_t>& result,
                        uint8_t* const* to) {
  const Sums order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r += 2) {
    const int next = r + 1 < kRows ? r + 1 : r;
    const Sums bytes = _mm512_permutexvar_epi32(
        order, _mm512_packus_epi16(packed_words(sums[r], result), packed_words(sums[next], result)));
    const auto store = [&](int row, __m256i of_row) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to[row] + result.first), of_row);
    };
    store(r, _mm512_castsi512_si256(bytes));
    if (next != r) store(next, _mm512_extracti64x4_epi64(bytes, 1));
  }
}

#else

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

#endif

inline Sums four_of(const uint8_t* a) {
  int32_t four;
  std::memcpy(&four, a, sizeof(four));
  return everywhere(four);
}

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

template <class Out, class Way, int kRows, int kVectors>
__attribute__((noinline)) void byte_tile(const ByteRows& rows, const uint8_t* a, const int8_t* b,
                                         const Result<Out>& result, Out* const* to) {
  Sums sums[kRows][kVectors];
#pragma GCC unroll 2  // as in product_tile
  for (int v = 0; v < kVectors; v++) {
    const Sums bias = load_sums(result.bias + v * kSumColumns);
#pragma GCC unroll 16
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
#if defined(__AVX512F__)
  if constexpr (kVectors == 2) {
    if (result.columns >= 2 * kSumColumns) return store_panel<kRows>(sums, result, to);
  }
#endif
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) store_result<Out, kVectors>(sums[r], result, to[r] + result.first);
}

}  // namespace
