// Bilinear resizing of RGBX rows, equal bit for bit to OpenCV's INTER_LINEAR for 8-bit images:
// weights of 11 bits, half-pixel centres, no antialiasing; halving both sides gives the mean of
// four pixels.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kWeightOne = 2048;

// Position of a row or column of the result between two of the source, and their weights.
struct Tap {
  int64_t first;
  int16_t weight, next_weight;
};

inline Tap tap_of(int64_t at, int64_t source, int64_t result) {
  const double scale = 1.0 / (static_cast<double>(result) / static_cast<double>(source));
  const auto centre = static_cast<float>((static_cast<double>(at) + 0.5) * scale - 0.5);
  const float first = std::floor(centre), share = centre - first;
  return {static_cast<int64_t>(first),
          static_cast<int16_t>(std::nearbyint((1.0f - share) * kWeightOne)),
          static_cast<int16_t>(std::nearbyint(share * kWeightOne))};
}

// Computes rows of a resized image. `source` writes row y of the crop, 4 bytes per pixel.
template <class Source>
class Resizer {
 public:
  Resizer(Source& source, int64_t height, int64_t width, int64_t new_height, int64_t new_width,
          int64_t left, int64_t wanted_width, bool flip)
      : source_(source),
        height_(height),
        width_(width),
        new_height_(new_height),
        wanted_(wanted_width),
        left_(left),
        same_(height == new_height && width == new_width),
        halves_(height == 2 * new_height && width == 2 * new_width),
        flip_(flip),
        row_(4 * width + 64),
        other_row_(4 * width + 64),
        offsets_(wanted_width + 4),
        weights_(2 * wanted_width + 8) {
    for (auto& resized : resized_) resized.resize(4 * wanted_width + 32);
    for (int64_t x = 0; x < wanted_ && !same_ && !halves_; x++) {
      Tap tap = tap_of(left + (flip ? wanted_ - 1 - x : x), width, new_width);
      if (tap.first < 0) tap = {0, kWeightOne, 0};
      if (tap.first >= width - 1) tap = {width - 1, kWeightOne, 0};
      offsets_[x] = static_cast<int32_t>(4 * tap.first);
      weights_[2 * x] = tap.weight, weights_[2 * x + 1] = tap.next_weight;
    }
  }

  // Writes row y of the result, from column `left` on, and up to 32 bytes more.
  void write(int64_t y, uint8_t* out) {
    if (same_) {
      source_.write(y, row_.data());
      copy([this](int64_t x, uint8_t* to) { std::memcpy(to, &row_[4 * x], 4); }, out);
    } else if (halves_) {
      source_.write(2 * y, row_.data());
      source_.write(2 * y + 1, other_row_.data());
      copy(
          [this](int64_t x, uint8_t* to) {
            for (int c = 0; c < 4; c++) {
              const uint8_t *a = &row_[8 * x + c], *b = &other_row_[8 * x + c];
              to[c] = static_cast<uint8_t>((a[0] + a[4] + b[0] + b[4] + 2) >> 2);
            }
          },
          out);
    } else {
      const Tap tap = tap_of(y, height_, new_height_);
      const int16_t* first = resized(std::clamp<int64_t>(tap.first, 0, height_ - 1));
      const int16_t* next = resized(std::clamp<int64_t>(tap.first + 1, 0, height_ - 1));
      mix(first, next, tap, out);
    }
  }

 private:
  Source& source_;
  const int64_t height_, width_, new_height_, wanted_, left_;
  const bool same_, halves_, flip_;
  std::vector<uint8_t> row_, other_row_;
  std::vector<int32_t> offsets_;  // in bytes
  std::vector<int16_t> weights_;
  // The last rows that were resized horizontally, and their numbers.
  std::vector<int16_t> resized_[2];
  int64_t which_[2] = {-1, -1};

  template <class Pixel>
  void copy(Pixel pixel, uint8_t* out) const {
    for (int64_t x = 0; x < wanted_; x++)
      pixel(left_ + (flip_ ? wanted_ - 1 - x : x), out + 4 * x);
  }

  // Row y resized horizontally, times 2^7. Rows are requested in order, so two are cached.
  const int16_t* resized(int64_t y) {
    const int slot = y & 1;
    if (which_[slot] != y) {
      which_[slot] = y;
      source_.write(y, row_.data());
      resize_row(resized_[slot].data());
    }
    return resized_[slot].data();
  }

  void resize_row(int16_t* out) const {
    int64_t x = 0;
#if defined(__AVX2__)
    // Two pixels r g b x, r g b x -> r r g g b b x x, to multiply with their two weights.
    const __m128i pairs = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    const auto two = [&](int64_t at) {
      const __m128i bytes = _mm_unpacklo_epi64(load8(offsets_[at]), load8(offsets_[at + 1]));
      int64_t both;
      std::memcpy(&both, &weights_[2 * at], 8);
      const __m256i weights = _mm256_permutevar8x32_epi32(
          _mm256_castsi128_si256(_mm_cvtsi64_si128(both)), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
      const __m256i wide = _mm256_cvtepu8_epi16(_mm_shuffle_epi8(bytes, pairs));
      return _mm256_srai_epi32(_mm256_madd_epi16(wide, weights), 4);
    };
    for (; x + 4 <= wanted_; x += 4) {
      const __m256i four = _mm256_packs_epi32(two(x), two(x + 2));  // 0 2 1 3
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * x),
                          _mm256_permute4x64_epi64(four, 0xd8));
    }
#endif
    for (; x < wanted_; x++) {
      const uint8_t* p = row_.data() + offsets_[x];
      for (int c = 0; c < 4; c++)
        out[4 * x + c] =
            static_cast<int16_t>((p[c] * weights_[2 * x] + p[c + 4] * weights_[2 * x + 1]) >> 4);
    }
  }

#if defined(__AVX2__)
  __m128i load8(int32_t offset) const {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row_.data() + offset));
  }
#endif

  void mix(const int16_t* first, const int16_t* next, const Tap& tap, uint8_t* out) const {
    const int a = tap.weight, b = tap.next_weight;
    for (int64_t i = 0; i < 4 * wanted_; i++) {
      const int value = (((first[i] * a) >> 16) + ((next[i] * b) >> 16) + 2) >> 2;
      out[i] = static_cast<uint8_t>(std::min(value, 255));
    }
  }
};

}  // namespace
