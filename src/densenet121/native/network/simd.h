// Vectors of one register, for loops over channels.
//
// Compiled once per instruction set (see setup.py); everything here has internal linkage, so that
// the linker cannot mix up two builds.
//
// T is the type of numbers in memory (bf16, float, double), Real<T> that of the arithmetic.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__) && !defined(DENSENET121_PORTABLE)
#define DENSENET121_NEON
#include <arm_neon.h>
#endif
// Whether there are products of bf16, which come with blocks packed for them.
#if defined(__AVX512BF16__) || \
    (defined(DENSENET121_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define DENSENET121_BF16
#endif
// Whether inference in bf16 multiplies two summands of 16 bits at once (pairs.h): where there are no tiles
// of AMX, which take blocks of 32 x 32.
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && !defined(__AMX_TILE__)
#define DENSENET121_PAIRS
#endif

namespace {

struct bf16 {
  uint16_t bits;
};

template <class T>
struct RealOf {
  using type = T;
};
template <>
struct RealOf<bf16> {
  using type = float;
};
template <class T>
using Real = typename RealOf<T>::type;

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
// Of vectors; some are left for what is multiplied when sums fill most.
#if defined(__AVX512F__) || defined(DENSENET121_NEON)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

template <class R>
struct VectorOf {
  typedef R type __attribute__((vector_size(kRegisterBytes)));
};
template <class T>
using Vec = typename VectorOf<Real<T>>::type;

// Number of values in one register.
template <class T>
constexpr int kLanes = kRegisterBytes / sizeof(Real<T>);

// Numbers of a cache line.
template <class T>
constexpr int kLine = 64 / sizeof(T);

template <class T>
inline Vec<T> broadcast(Real<T> value) {
  return value - Vec<T>{};
}

// Loads the first n lanes from p; the others are zero.
template <class T>
inline Vec<T> load(const T* p, int n) {
  Vec<T> v{};
  if (n == kLanes<T>) {
    std::memcpy(&v, p, sizeof(v));
  } else {
    std::memcpy(&v, p, n * sizeof(T));
  }
  return v;
}

// Stores the first n lanes to p.
template <class T>
inline void store(T* p, Vec<T> v, int n) {
  if (n == kLanes<T>) {
    std::memcpy(p, &v, sizeof(v));
  } else {
    std::memcpy(p, &v, n * sizeof(T));
  }
}

// Part of a register of floats without memcpy of a length that the compiler does not know: a call,
// and a load that has to wait for its bytes. Narrow networks have such a part in every row.
#if defined(__AVX512F__)
template <>
inline Vec<float> load<float>(const float* p, int n) {
  if (__builtin_constant_p(n) && n == kLanes<float>) {
    return reinterpret_cast<Vec<float>>(_mm512_loadu_ps(p));
  }
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(mask, p));
}

template <>
inline void store<float>(float* p, Vec<float> v, int n) {
  if (__builtin_constant_p(n) && n == kLanes<float>) {
    return _mm512_storeu_ps(p, reinterpret_cast<__m512>(v));
  }
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(v));
}
#elif defined(__AVX2__)
template <>
inline Vec<float> load<float>(const float* p, int n) {
  Vec<float> v;
  if (n == kLanes<float>) {
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static const int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 8 - n));
  return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(p, mask));
}

// By halves: a store with a mask is slow on AMD's processors.
template <>
inline void store<float>(float* p, Vec<float> v, int n) {
  if (n == kLanes<float>) {
    std::memcpy(p, &v, sizeof(v));
    return;
  }
  __m128 rest = _mm256_castps256_ps128(reinterpret_cast<__m256>(v));
  if (n & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(reinterpret_cast<__m256>(v), 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, rest);
}
#endif

#if defined(__AVX512BF16__)
template <>
inline Vec<bf16> load<bf16>(const bf16* p, int n) {
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
  return reinterpret_cast<Vec<bf16>>(_mm512_slli_epi32(wide, 16));
}

template <>
inline void store<bf16>(bf16* p, Vec<bf16> v, int n) {
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  const __m256i narrow = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v)));
  _mm256_mask_storeu_epi16(p, mask, narrow);
}
#elif defined(DENSENET121_BF16)
template <>
inline Vec<bf16> load<bf16>(const bf16* p, int n) {
  uint16x4_t narrow{};
  std::memcpy(&narrow, p, n == 4 ? sizeof(narrow) : n * sizeof(bf16));
  return (Vec<bf16>)vshll_n_u16(narrow, 16);
}

template <>
inline void store<bf16>(bf16* p, Vec<bf16> v, int n) {
  const bfloat16x4_t narrow = vcvt_bf16_f32((float32x4_t)v);
  std::memcpy(p, &narrow, n == 4 ? sizeof(narrow) : n * sizeof(bf16));
}
#endif

inline float to_real(float v) { return v; }
inline double to_real(double v) { return v; }
inline float to_real(bf16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline void set(float* p, float v) { *p = v; }
inline void set(double* p, double v) { *p = v; }
inline void set(bf16* p, float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    p->bits = 0x7fc0;  // rounding could carry a nan into infinity
  } else {
    p->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

// max(v, 0); nan stays nan, as in torch.
template <class V>
inline V relu(V v) {
  return v < V{} ? V{} : v;
}
// The same in one instruction, which gives its second operand if one is nan or both are zero; gcc does not
// find it.
#if defined(__AVX512F__)
inline Vec<float> relu(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(_mm512_max_ps(__m512{}, reinterpret_cast<__m512>(v)));
}
inline Vec<double> relu(Vec<double> v) {
  return reinterpret_cast<Vec<double>>(_mm512_max_pd(__m512d{}, reinterpret_cast<__m512d>(v)));
}
#elif defined(__AVX2__)
inline Vec<float> relu(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(_mm256_max_ps(__m256{}, reinterpret_cast<__m256>(v)));
}
inline Vec<double> relu(Vec<double> v) {
  return reinterpret_cast<Vec<double>>(_mm256_max_pd(__m256d{}, reinterpret_cast<__m256d>(v)));
}
#endif

// gradient where pre-activation > 0, else 0: the backward of relu.
template <class V>
inline V gate(V pre_activation, V gradient) {
  return pre_activation > V{} ? gradient : V{};
}

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <class N>
constexpr N smaller(N a, N b) {
  return a < b ? a : b;
}

// Stores n numbers as type T; no memory after them is read, which may be an image's end.
template <class T>
inline void store_numbers(const Real<T>* from, int64_t n, T* to) {
  if constexpr (std::is_same_v<T, Real<T>>) {
    std::memcpy(to, from, n * sizeof(T));
  } else {
    int64_t i = 0;
    for (; i + kLanes<T> <= n; i += kLanes<T>) {
      store<T>(to + i, load<Real<T>>(from + i, kLanes<T>), kLanes<T>);
    }
    if (i < n) store<T>(to + i, load<Real<T>>(from + i, n - i), n - i);
  }
}

}  // namespace
