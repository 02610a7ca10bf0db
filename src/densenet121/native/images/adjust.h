// Brightness, contrast and saturation of an RGBX image in place, equal bit for bit to
// densenet121/datasets/operations.py with OpenCV. The fourth byte is ignored.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// OpenCV's grey: 0.299 R + 0.587 G + 0.114 B with 15 bits.
inline int grey_of(const uint8_t* p) {
  return (p[0] * 9798 + p[1] * 19235 + p[2] * 3735 + (1 << 14)) >> 15;
}

#if defined(__AVX2__)
// The grey of eight pixels, in 32 bits each.
inline __m256i grey_of(__m256i pixels) {
  const __m256i low_bytes = _mm256_set1_epi32(0x00ff00ff);
  const __m256i rb = _mm256_and_si256(pixels, low_bytes);
  const __m256i gx = _mm256_and_si256(_mm256_srli_epi32(pixels, 8), low_bytes);
  const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(rb, _mm256_set1_epi32(3735 << 16 | 9798)),
                                       _mm256_madd_epi16(gx, _mm256_set1_epi32(19235)));
  return _mm256_srli_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << 14)), 15);
}

inline __m256i eight_pixels(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
#endif

// Sum of the grey of at most 2^20 pixels.
inline int64_t sum_of_grey(const uint8_t* image, int64_t pixels) {
  int32_t sum = 0;
  int64_t i = 0;
#if defined(__AVX2__)
  __m256i sums = _mm256_setzero_si256();
  for (; i + 8 <= pixels; i += 8)
    sums = _mm256_add_epi32(sums, grey_of(eight_pixels(image + 4 * i)));
  int32_t parts[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), sums);
  for (const int32_t part : parts) sum += part;
#endif
  for (; i < pixels; i++) sum += grey_of(image + 4 * i);
  return sum;
}

// Every byte x becomes rint(x * factor + offset) in 0..255, as computed in double.
inline void adjust_levels(uint8_t* image, int64_t bytes, double factor, double offset) {
  uint8_t table[256];
  for (int x = 0; x < 256; x++)
    table[x] = static_cast<uint8_t>(std::clamp(std::nearbyint(x * factor + offset), 0.0, 255.0));
  // 32-bit fixed point is several times as fast as a look-up. It is used if it is equal for all 256
  // values, which is nearly always the case.
  constexpr int kShift = 20;
  if (std::abs(factor) < 4 && std::abs(offset) < 1000) {
    const auto multiplier = static_cast<int32_t>(std::nearbyint(factor * (1 << kShift)));
    const auto addend = static_cast<int32_t>(std::nearbyint((offset + 0.5) * (1 << kShift)));
    const auto fixed = [=](int32_t x) {
      const int32_t value = (x * multiplier + addend) >> kShift;
      return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    };
    int differences = 0;
    for (int x = 0; x < 256; x++) differences += table[x] != fixed(x);
    if (differences == 0) {
      for (int64_t i = 0; i < bytes; i++) image[i] = fixed(image[i]);
      return;
    }
  }
  for (int64_t i = 0; i < bytes; i++) image[i] = table[image[i]];
}

inline void adjust_contrast(uint8_t* image, int64_t pixels, double factor) {
  int64_t sum = 0;
  for (int64_t i = 0; i < pixels; i += 1 << 20)
    sum += sum_of_grey(image + 4 * i, std::min<int64_t>(pixels - i, 1 << 20));
  const double mean = static_cast<double>(sum) * (1.0 / static_cast<double>(pixels));
  adjust_levels(image, 4 * pixels, factor, std::floor(mean + 0.5) * (1 - factor));
}

inline void adjust_saturation(uint8_t* image, int64_t pixels, double factor) {
  const auto own = static_cast<float>(factor), of_grey = static_cast<float>(1 - factor);
  int64_t i = 0;
#if defined(__AVX2__)
  const __m256 own8 = _mm256_set1_ps(own), of_grey8 = _mm256_set1_ps(of_grey);
  const __m256i byte = _mm256_set1_epi32(255), zero = _mm256_setzero_si256();
  for (; i + 8 <= pixels; i += 8) {
    const __m256i p = eight_pixels(image + 4 * i);
    const __m256 grey = _mm256_mul_ps(_mm256_cvtepi32_ps(grey_of(p)), of_grey8);
    const auto mixed = [&](__m256i channel) {
      const __m256 x = _mm256_cvtepi32_ps(_mm256_and_si256(channel, byte));
      const __m256i value = _mm256_cvtps_epi32(_mm256_fmadd_ps(x, own8, grey));
      return _mm256_max_epi32(_mm256_min_epi32(value, byte), zero);
    };
    const __m256i r = mixed(p), g = _mm256_slli_epi32(mixed(_mm256_srli_epi32(p, 8)), 8),
                  b = _mm256_slli_epi32(mixed(_mm256_srli_epi32(p, 16)), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(image + 4 * i),
                        _mm256_or_si256(_mm256_or_si256(r, g), b));
  }
#endif
  for (; i < pixels; i++) {
    uint8_t* p = image + 4 * i;
    const float grey = static_cast<float>(grey_of(p)) * of_grey;
    for (int c = 0; c < 3; c++) {
      // A fused multiply-add, as in OpenCV; the product of 8 and 24 bits is exact in double.
      const auto value = static_cast<float>(static_cast<double>(p[c]) * own + grey);
      p[c] = static_cast<uint8_t>(std::clamp(std::nearbyint(value), 0.0f, 255.0f));
    }
  }
}

}  // namespace
