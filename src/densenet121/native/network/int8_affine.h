// Batch norm and relu in integers: relu(scale * y + shift) of the stored channels y of a block, as
// the 8-bit input of a convolution, or its average.
//
// With the channel's factor m and shift t, all numbers of 16 bits with a sign, y becomes
// v = limit(((y m + 2^14) >> 15) + t), with kFraction binary places, limited to 16 bits. That is what
// vpmulhrsw and vpaddsw compute, and sqrdmulh and sqadd of ARM.

#pragma once

#include <algorithm>

#include "int8_product.h"

namespace {

constexpr int kAffineGroup = 64;  // channels
constexpr int kFraction = 4;
constexpr int kHighest = 255 << kFraction;

// Filled in by Python (structures.py): order and types must agree.
struct Int8Affine {
  int64_t columns;
  void *factor, *shift;  // s16, padded with zeros to whole groups

  int64_t padded() const { return round_up(columns, kAffineGroup); }
  const int16_t* factors(int64_t channel) const { return static_cast<int16_t*>(factor) + channel; }
  const int16_t* shifts(int64_t channel) const { return static_cast<int16_t*>(shift) + channel; }
};

inline int affine_value(int16_t y, int16_t factor, int16_t shift) {
  const int v = ((y * factor + (1 << 14)) >> 15) + shift;
  return v < -32768 ? -32768 : v > 32767 ? 32767 : v;
}

#if defined(__AVX2__) || defined(DENSENET121_NEON)

#if defined(__AVX512F__)
using Words = __m512i;
inline Words load_words(const void* p) { return _mm512_loadu_si512(p); }
inline Words affine_words(Words v, Words m, Words t) {
  return _mm512_adds_epi16(_mm512_mulhrs_epi16(v, m), t);
}
inline Words limited(Words v) {
  return _mm512_min_epi16(_mm512_max_epi16(v, Words{}), _mm512_set1_epi16(kHighest));
}
inline Words sum_words(Words a, Words b) { return _mm512_add_epi16(a, b); }
// Rounds binary places away and stores the numbers of both registers as bytes.
template <int kPlaces>
inline void store_bytes(uint8_t* to, Words a, Words b) {
  const Words half = _mm512_set1_epi16(1 << (kPlaces - 1));
  const Words bytes = _mm512_packus_epi16(_mm512_srai_epi16(_mm512_adds_epi16(a, half), kPlaces),
                                          _mm512_srai_epi16(_mm512_adds_epi16(b, half), kPlaces));
  const Words order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi64(order, bytes));
}
#elif defined(__AVX2__)
using Words = __m256i;
inline Words load_words(const void* p) { return _mm256_loadu_si256(static_cast<const Words*>(p)); }
inline Words affine_words(Words v, Words m, Words t) {
  return _mm256_adds_epi16(_mm256_mulhrs_epi16(v, m), t);
}
inline Words limited(Words v) {
  return _mm256_min_epi16(_mm256_max_epi16(v, Words{}), _mm256_set1_epi16(kHighest));
}
inline Words sum_words(Words a, Words b) { return _mm256_add_epi16(a, b); }
template <int kPlaces>
inline void store_bytes(uint8_t* to, Words a, Words b) {
  const Words half = _mm256_set1_epi16(1 << (kPlaces - 1));
  const Words bytes = _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(a, half), kPlaces),
                                          _mm256_srai_epi16(_mm256_adds_epi16(b, half), kPlaces));
  _mm256_storeu_si256(reinterpret_cast<Words*>(to), _mm256_permute4x64_epi64(bytes, 0xd8));
}
#else
using Words = int16x8_t;
inline Words load_words(const int16_t* p) { return vld1q_s16(p); }
inline Words affine_words(Words v, Words m, Words t) {
  return vqaddq_s16(vqrdmulhq_s16(v, m), t);
}
inline Words limited(Words v) {
  return vminq_s16(vmaxq_s16(v, vdupq_n_s16(0)), vdupq_n_s16(kHighest));
}
inline Words sum_words(Words a, Words b) { return vaddq_s16(a, b); }
template <int kPlaces>
inline void store_bytes(uint8_t* to, Words a, Words b) {
  vst1q_u8(to, vcombine_u8(vqrshrun_n_s16(a, kPlaces), vqrshrun_n_s16(b, kPlaces)));
}
#endif

constexpr int kWords = sizeof(Words) / sizeof(int16_t);

// Calls work(channel, factors, shifts, factors, shifts) for every two registers of channels.
template <class Work>
inline void for_channels(const Int8Affine& affine, Work work) {
  for (int64_t c = 0; c < affine.padded(); c += 2 * kWords) {
    const int16_t *m = affine.factors(c), *t = affine.shifts(c);
    work(c, load_words(m), load_words(t), load_words(m + kWords), load_words(t + kWords));
  }
}

// out = relu of some rows of stored channels, `ld` numbers apart; columns padded to whole groups.
inline void affine_rows(const Int8Affine& affine, const int16_t* y, int64_t ld, int64_t rows,
                        uint8_t* out, int64_t out_ld) {
  for_channels(affine, [&](int64_t c, Words m, Words t, Words next_m, Words next_t) {
    for (int64_t r = 0; r < rows; r++) {
      const int16_t* from = y + r * ld + c;
      store_bytes<kFraction>(out + r * out_ld + c, affine_words(load_words(from), m, t),
                             affine_words(load_words(from + kWords), next_m, next_t));
    }
  });
}

// The same for one row: the average of 4 pixels.
inline void affine_average(const Int8Affine& affine, const int16_t* const* pixels, uint8_t* out) {
  for_channels(affine, [&](int64_t c, Words m, Words t, Words next_m, Words next_t) {
    Words a{}, b{};
    for (int i = 0; i < 4; i++) {
      const int16_t* from = pixels[i] + c;
      a = sum_words(a, limited(affine_words(load_words(from), m, t)));
      b = sum_words(b, limited(affine_words(load_words(from + kWords), next_m, next_t)));
    }
    store_bytes<kFraction + 2>(out + c, a, b);
  });
}

#else

inline void affine_rows(const Int8Affine& affine, const int16_t* y, int64_t ld, int64_t rows,
                        uint8_t* out, int64_t out_ld) {
  constexpr int kHalf = 1 << (kFraction - 1);
  for (int64_t c = 0; c < affine.padded(); c++) {
    const int16_t factor = *affine.factors(c), shift = *affine.shifts(c);
    for (int64_t r = 0; r < rows; r++) {
      const int v = (affine_value(y[r * ld + c], factor, shift) + kHalf) >> kFraction;
      out[r * out_ld + c] = v < 0 ? 0 : v > 255 ? 255 : v;
    }
  }
}

inline void affine_average(const Int8Affine& affine, const int16_t* const* pixels, uint8_t* out) {
  constexpr int kHalf = 1 << (kFraction + 1);
  for (int64_t c = 0; c < affine.padded(); c++) {
    int sum = 0;
    for (int i = 0; i < 4; i++) {
      const int v = affine_value(pixels[i][c], *affine.factors(c), *affine.shifts(c));
      sum += v < 0 ? 0 : v > kHighest ? kHighest : v;
    }
    out[c] = (sum + kHalf) >> (kFraction + 2);
  }
}

#endif

// Sums of max(v, 0) over some pixels, for the channels first .. last - 1.
inline void affine_sums(const Int8Affine& affine, const int16_t* y, int64_t ld, int64_t pixels,
                        int64_t first, int64_t last, int64_t* out) {
  std::fill(out, out + (last - first), 0);
  const int16_t *factor = affine.factors(first), *shift = affine.shifts(first);
  for (int64_t p = 0; p < pixels; p++) {
    const int16_t* from = y + p * ld + first;
    for (int64_t c = 0; c < last - first; c++) {
      const int v = affine_value(from[c], factor[c], shift[c]);
      out[c] += v > 0 ? v : 0;
    }
  }
}

}  // namespace
