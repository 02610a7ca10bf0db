// Two summands of 16 bits that are multiplied by two others and added to a sum of 32 bits at once: of
// bf16, or whole numbers. In a product they stand where a float stands in a product of floats
// (product.h), so one source has both.

#pragma once

#include "simd.h"

namespace {

// What a product multiplies for numbers of type T, and how many of them one of its summands has.
template <class T>
struct FactorOf {
  using type = T;
};
template <class T>
using Factor = typename FactorOf<T>::type;
template <class T>
constexpr int kTogether = sizeof(Factor<T>) / sizeof(T);

// Distance of the rows of patches in all networks but densenet100, if it is worth a product of its own.
template <class T>
constexpr int64_t kUsualDepth = 0;

template <class V, class T>
inline void multiply_add(V& sum, T factor, V row) {
  sum += factor * row;
}

#if defined(__AVX2__)

// Whole numbers. A sum that does not fit into 32 bits is right modulo 2^32.
struct WholePair {
  int16_t numbers[2];
};
template <>
struct RealOf<WholePair> {
  using type = int32_t;
};
template <>
constexpr int64_t kUsualDepth<WholePair> = 64;

// A pair in all lanes.
template <class Pair>
inline auto pair_everywhere(Pair pair) {
  int32_t bits;
  std::memcpy(&bits, &pair, sizeof(bits));
#if defined(__AVX512F__)
  return _mm512_set1_epi32(bits);
#else
  return _mm256_set1_epi32(bits);
#endif
}

// The empty asm keeps the order: whole numbers may be added in any, and gcc's needs more registers.
inline void multiply_add(Vec<WholePair>& sum, WholePair factor, Vec<WholePair> row) {
#if defined(__AVX512F__)
  const __m512i products = _mm512_madd_epi16(pair_everywhere(factor), reinterpret_cast<__m512i>(row));
  sum = reinterpret_cast<Vec<WholePair>>(
      _mm512_add_epi32(reinterpret_cast<__m512i>(sum), products));
  asm("" : "+v"(sum));
#else
  const __m256i products = _mm256_madd_epi16(pair_everywhere(factor), reinterpret_cast<__m256i>(row));
  sum = reinterpret_cast<Vec<WholePair>>(
      _mm256_add_epi32(reinterpret_cast<__m256i>(sum), products));
  asm("" : "+x"(sum));
#endif
}

#if defined(__AVX512F__)
// The same, by the one instruction of processors with VNNI.
struct VnniPair {
  int16_t numbers[2];
};
template <>
struct RealOf<VnniPair> {
  using type = int32_t;
};
template <>
constexpr int64_t kUsualDepth<VnniPair> = 64;

inline void multiply_add(Vec<VnniPair>& sum, VnniPair factor, Vec<VnniPair> row) {
#if defined(__AVX512VNNI__)
  sum = reinterpret_cast<Vec<VnniPair>>(_mm512_dpwssd_epi32(
      reinterpret_cast<__m512i>(sum), pair_everywhere(factor), reinterpret_cast<__m512i>(row)));
#else
  // The other code of this library must also run without VNNI, so no intrinsic.
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(pair_everywhere(factor)), "v"(row));
#endif
}
#else
using VnniPair = WholePair;
#endif

#endif

#if defined(DENSENET121_PAIRS)

struct Bf16Pair {
  bf16 numbers[2];
};
template <>
struct FactorOf<bf16> {
  using type = Bf16Pair;
};
template <>
struct RealOf<Bf16Pair> {
  using type = float;
};

inline void multiply_add(Vec<Bf16Pair>& sum, Bf16Pair factor, Vec<Bf16Pair> row) {
  const __m512i pair = pair_everywhere(factor);
  sum = reinterpret_cast<Vec<Bf16Pair>>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), (__m512bh)pair, (__m512bh)row));
}

#endif

// Makes value(k, n), one number, to the summand k of a product: as many numbers as it has, and zeros
// after the last of `depth`.
template <class T, class Value>
inline auto summands(int64_t depth, Value value) {
  return [=](int64_t k, int64_t n) {
    Factor<T> factor{};
    if constexpr (kTogether<T> == 1) {
      if (k < depth) factor = value(k, n);
    } else {
      for (int i = 0; i < kTogether<T>; i++) {
        if (k * kTogether<T> + i < depth) set(factor.numbers + i, value(k * kTogether<T> + i, n));
      }
    }
    return factor;
  };
}

}  // namespace
