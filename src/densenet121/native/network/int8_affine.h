// Batch norm and relu on 8-bit numbers, in integers: relu(scale * y + shift) of the stored channels
// y of a block, as the 8-bit input of a convolution, or its average.
//
// A stored number y is in [-128, 127]. With the channel's factor m and shift t, whole numbers of 16
// bits, it becomes v = limit(((256 y m + 2^14) >> 15) + t), with kFraction binary places, limited to
// 16 bits. That is what vpmulhrsw and vpaddsw compute.

#pragma once

#include "int8_product.h"

namespace {

constexpr int kAffineGroup = 64;  // channels
constexpr int kFraction = 4;
constexpr int kHighest = 255 << kFraction;

// Filled in by Python (structures.py): order and types must agree.
struct Int8Affine {
  int64_t columns;
  // s16, padded with zeros to whole groups. Of each group first the first 8 channels of every 16,
  // then the others: the order in which bytes are widened.
  void *factor, *shift;

  int64_t padded() const { return round_up(columns, kAffineGroup); }
  const int16_t* factors(int64_t channel) const { return static_cast<int16_t*>(factor) + channel; }
  const int16_t* shifts(int64_t channel) const { return static_cast<int16_t*>(shift) + channel; }
};

inline int affine_index(int channel) { return channel % 16 / 8 * 32 + channel / 16 * 8 + channel % 8; }

inline int affine_value(int8_t y, int16_t factor, int16_t shift) {
  const int v = ((y * 256 * factor + (1 << 14)) >> 15) + shift;
  return v < -32768 ? -32768 : v > 32767 ? 32767 : v;
}

#if defined(__AVX2__)

#if defined(__AVX512F__)
using Bytes = __m512i;
inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline void store_bytes(void* p, Bytes v) { _mm512_storeu_si512(p, v); }
inline Bytes low_words(Bytes v) { return _mm512_unpacklo_epi8(Bytes{}, v); }
inline Bytes high_words(Bytes v) { return _mm512_unpackhi_epi8(Bytes{}, v); }
inline Bytes affine_words(Bytes v, Bytes m, Bytes t) {
  return _mm512_adds_epi16(_mm512_mulhrs_epi16(v, m), t);
}
inline Bytes limited(Bytes v) {
  return _mm512_min_epi16(_mm512_max_epi16(v, Bytes{}), _mm512_set1_epi16(kHighest));
}
template <int kPlaces>
inline Bytes without_fraction(Bytes low, Bytes high) {
  const Bytes half = _mm512_set1_epi16(1 << (kPlaces - 1));
  return _mm512_packus_epi16(_mm512_srai_epi16(_mm512_adds_epi16(low, half), kPlaces),
                             _mm512_srai_epi16(_mm512_adds_epi16(high, half), kPlaces));
}
inline Bytes sum_words(Bytes a, Bytes b) { return _mm512_add_epi16(a, b); }
#else
using Bytes = __m256i;
inline Bytes load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const Bytes*>(p)); }
inline void store_bytes(void* p, Bytes v) { _mm256_storeu_si256(static_cast<Bytes*>(p), v); }
inline Bytes low_words(Bytes v) { return _mm256_unpacklo_epi8(Bytes{}, v); }
inline Bytes high_words(Bytes v) { return _mm256_unpackhi_epi8(Bytes{}, v); }
inline Bytes affine_words(Bytes v, Bytes m, Bytes t) {
  return _mm256_adds_epi16(_mm256_mulhrs_epi16(v, m), t);
}
inline Bytes limited(Bytes v) {
  return _mm256_min_epi16(_mm256_max_epi16(v, Bytes{}), _mm256_set1_epi16(kHighest));
}
template <int kPlaces>
inline Bytes without_fraction(Bytes low, Bytes high) {
  const Bytes half = _mm256_set1_epi16(1 << (kPlaces - 1));
  return _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(low, half), kPlaces),
                             _mm256_srai_epi16(_mm256_adds_epi16(high, half), kPlaces));
}
inline Bytes sum_words(Bytes a, Bytes b) { return _mm256_add_epi16(a, b); }
#endif

// Calls work(channel, m_low, t_low, m_high, t_high) for each register of channels.
template <class Work>
inline void for_channels(const Int8Affine& affine, Work work) {
  constexpr int kWidth = sizeof(Bytes);
  for (int64_t g = 0; g < affine.padded(); g += kAffineGroup) {
    for (int c = 0; c < kAffineGroup; c += kWidth) {
      const int16_t *m = affine.factors(g) + c / 2, *t = affine.shifts(g) + c / 2;
      work(g + c, load_bytes(m), load_bytes(t), load_bytes(m + 32), load_bytes(t + 32));
    }
  }
}

// out = relu of some rows of stored channels, `ld` bytes apart; columns padded to whole groups.
inline void affine_rows(const Int8Affine& affine, const int8_t* y, int64_t ld, int64_t rows,
                        uint8_t* out, int64_t out_ld) {
  for_channels(affine, [&](int64_t c, Bytes m_low, Bytes t_low, Bytes m_high, Bytes t_high) {
    for (int64_t r = 0; r < rows; r++) {
      const Bytes v = load_bytes(y + r * ld + c);
      store_bytes(out + r * out_ld + c,
                  without_fraction<kFraction>(affine_words(low_words(v), m_low, t_low),
                                              affine_words(high_words(v), m_high, t_high)));
    }
  });
}

// The same for one row: the average of 4 pixels.
inline void affine_average(const Int8Affine& affine, const int8_t* const* pixels, uint8_t* out) {
  for_channels(affine, [&](int64_t c, Bytes m_low, Bytes t_low, Bytes m_high, Bytes t_high) {
    Bytes low{}, high{};
    for (int i = 0; i < 4; i++) {
      const Bytes v = load_bytes(pixels[i] + c);
      low = sum_words(low, limited(affine_words(low_words(v), m_low, t_low)));
      high = sum_words(high, limited(affine_words(high_words(v), m_high, t_high)));
    }
    store_bytes(out + c, without_fraction<kFraction + 2>(low, high));
  });
}

#else

template <class Work>
inline void for_channels(const Int8Affine& affine, Work work) {
  for (int64_t c = 0; c < affine.padded(); c++) {
    const int64_t at = c - c % kAffineGroup + affine_index(c % kAffineGroup);
    work(c, *affine.factors(at), *affine.shifts(at));
  }
}

inline int limited(int v) { return v < 0 ? 0 : v > kHighest ? kHighest : v; }

inline void affine_rows(const Int8Affine& affine, const int8_t* y, int64_t ld, int64_t rows,
                        uint8_t* out, int64_t out_ld) {
  constexpr int kHalf = 1 << (kFraction - 1);
  for_channels(affine, [&](int64_t c, int16_t factor, int16_t shift) {
    for (int64_t r = 0; r < rows; r++) {
      const int v = (affine_value(y[r * ld + c], factor, shift) + kHalf) >> kFraction;
      out[r * out_ld + c] = v < 0 ? 0 : v > 255 ? 255 : v;
    }
  });
}

inline void affine_average(const Int8Affine& affine, const int8_t* const* pixels, uint8_t* out) {
  constexpr int kHalf = 1 << (kFraction + 1);
  for_channels(affine, [&](int64_t c, int16_t factor, int16_t shift) {
    int sum = 0;
    for (int i = 0; i < 4; i++) sum += limited(affine_value(pixels[i][c], factor, shift));
    out[c] = (sum + kHalf) >> (kFraction + 2);
  });
}

#endif

// Sums of max(v, 0) over some pixels, for the channels first .. last - 1.
inline void affine_sums(const Int8Affine& affine, const int8_t* y, int64_t ld, int64_t pixels,
                        int64_t first, int64_t last, int64_t* out) {
  for (int64_t c = first; c < last; c++) {
    const int64_t at = c - c % kAffineGroup + affine_index(c % kAffineGroup);
    const int16_t factor = *affine.factors(at), shift = *affine.shifts(at);
    int64_t sum = 0;
    for (int64_t p = 0; p < pixels; p++) {
      const int v = affine_value(y[p * ld + c], factor, shift);
      sum += v > 0 ? v : 0;
    }
    out[c - first] = sum;
  }
}

}  // namespace
