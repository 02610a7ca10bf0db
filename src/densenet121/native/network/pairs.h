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

// Distance of the rows of patches in all networks but those for small images, if it is worth a product of its own.
template <class T>
constexpr int64_t kUsualDepth = 0;

template <class V, class T>
inline void multiply_add(V& sum, T factor, V row) {
  sum += factor * row;
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// The same in place, as asm: gcc multiplies in the factor's or the row's register, too, and then has
// too few of the 16, and a sum goes to memory and back for each summand.
inline void multiply_add(Vec<float>& sum, float factor, Vec<float> row) {
  Vec<float> next = sum;
  asm("vfmadd231ps %2, %1, %0" : "+x"(next) : "x"(_mm256_set1_ps(factor)), "x"(row));
  sum = next;
}
inline void multiply_add(Vec<double>& sum, double factor, Vec<double> row) {
  Vec<double> next = sum;
  asm("vfmadd231pd %2, %1, %0" : "+x"(next) : "x"(_mm256_set1_pd(factor)), "x"(row));
  sum = next;
}
#endif

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

// The 32 bits of a number, or of some, in all lanes.
template <class Numbers>
inline auto everywhere(Numbers numbers) {
  int32_t bits;
  std::memcpy(&bits, &numbers, sizeof(bits));
#if defined(__AVX512F__)
  return _mm512_set1_epi32(bits);
#else
  return _mm256_set1_epi32(bits);
#endif
}

// One asm, because gcc would first multiply for several sums, for which there are no registers. It takes
// a copy of the sum: of an array that asm writes to, gcc keeps every element in memory.
inline void multiply_add(Vec<WholePair>& sum, WholePair factor, Vec<WholePair> row) {
  Vec<WholePair> next = sum, product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
      : "+v"(next), "=&v"(product)
      : "v"(everywhere(factor)), "v"(row));
  sum = next;
}

#if defined(__AVX512F__) || defined(__AVXVNNI__)
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
      reinterpret_cast<__m512i>(sum), everywhere(factor), reinterpret_cast<__m512i>(row)));
#elif !defined(__AVX512F__)
  sum = reinterpret_cast<Vec<VnniPair>>(_mm256_dpwssd_avx_epi32(
      reinterpret_cast<__m256i>(sum), everywhere(factor), reinterpret_cast<__m256i>(row)));
#else
  // The other code of this library must also run without VNNI, so no intrinsic.
  Vec<VnniPair> next = sum;
  asm("vpdpwssd %2, %1, %0" : "+v"(next) : "v"(everywhere(factor)), "v"(row));
  sum = next;
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
  const __m512i pair = everywhere(factor);
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
