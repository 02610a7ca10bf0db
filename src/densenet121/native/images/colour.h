// Rows of a decoded JPEG as RGBX pixels, equal bit for bit to libjpeg: "fancy" upsampling of chroma
// (each new sample is 3/4 of the nearer and 1/4 of the further old one, in each direction), and
// JFIF's YCbCr in 16-bit fixed point.

#pragma once

#include "jpeg.h"

namespace {

class ColourRows {
 public:
  ColourRows(const Jpeg& jpeg, int64_t left, int64_t width)
      : jpeg_(jpeg), left_(left), width_(width), sums_(width + 8), rows_(2 * (2 * width + 64)) {}

  // Row y of the image from `left` on, 4 bytes per pixel.
  void write(int64_t y, uint8_t* out) {
    const uint8_t* grey = jpeg_.component[0].row(y) + left_;
    if (jpeg_.num_components == 1) {
      for (int64_t x = 0; x < width_; x++)
        out[4 * x] = out[4 * x + 1] = out[4 * x + 2] = out[4 * x + 3] = grey[x];
      return;
    }
    const uint8_t* chroma[2];
    for (int c = 0; c < 2; c++) {
      const Component& own = jpeg_.component[1 + c];
      chroma[c] = jpeg_.h_max == 1 ? own.row(y) + left_
                                   : upsampled(own, y, rows_.data() + c * rows_.size() / 2);
    }
    convert(grey, chroma[0], chroma[1], out);
  }

 private:
  const Jpeg& jpeg_;
  const int64_t left_, width_;
  std::vector<int16_t> sums_;
  std::vector<uint8_t> rows_;

  // Chroma of row y, twice as wide. The sums have one more sample on each side; outside the image
  // it repeats the sample at the edge, which gives libjpeg's result.
  const uint8_t* upsampled(const Component& c, int64_t y, uint8_t* out) {
    const int64_t begin = left_ / 2, end = (left_ + width_ + 1) / 2, n = end - begin;
    const int64_t first = std::max<int64_t>(begin - 1, 0), last = std::min(end, c.width - 1);
    int16_t* sums = sums_.data() + 1 - begin;
    if (jpeg_.v_max == 1) {
      const uint8_t* row = c.row(y);
      for (int64_t x = first; x <= last; x++) sums[x] = row[x];
    } else {
      const uint8_t* near = c.row(y / 2);
      const uint8_t* far = c.row(std::clamp<int64_t>(y / 2 + (y % 2 ? 1 : -1), 0, c.height - 1));
      for (int64_t x = first; x <= last; x++) sums[x] = static_cast<int16_t>(3 * near[x] + far[x]);
    }
    if (begin == 0) sums[-1] = sums[0];
    if (last < end) sums[end] = sums[end - 1];
    const int16_t* s = sums + begin;
    if (jpeg_.v_max == 1) {
      for (int64_t x = 0; x < n; x++) {
        out[2 * x] = static_cast<uint8_t>((3 * s[x] + s[x - 1] + 1) >> 2);
        out[2 * x + 1] = static_cast<uint8_t>((3 * s[x] + s[x + 1] + 2) >> 2);
      }
    } else {
      for (int64_t x = 0; x < n; x++) {
        out[2 * x] = static_cast<uint8_t>((3 * s[x] + s[x - 1] + 8) >> 4);
        out[2 * x + 1] = static_cast<uint8_t>((3 * s[x] + s[x + 1] + 7) >> 4);
      }
    }
    return out + left_ % 2;
  }

  static uint8_t clip(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

  // 1.402 = 1 + 26345 / 2^16; 0.71414 = 1 - 18734 / 2^16; 1.772 = 2 - 14942 / 2^16.
  void convert(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, uint8_t* out) const {
    int64_t x = 0;
#if defined(__AVX2__)
    for (; x + 16 <= width_; x += 16) {
      const auto wide = [x](const uint8_t* p) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + x)));
      };
      const __m256i middle = _mm256_set1_epi16(128), one = _mm256_set1_epi16(1);
      const __m256i l = wide(y), b = _mm256_sub_epi16(wide(cb), middle),
                    r = _mm256_sub_epi16(wide(cr), middle);
      // (c k + 2^15) >> 16 = (((2 c) k >> 16) + 1) >> 1
      const auto part = [one](__m256i c, int k) {
        const __m256i high = _mm256_mulhi_epi16(_mm256_add_epi16(c, c),
                                                _mm256_set1_epi16(static_cast<int16_t>(k)));
        return _mm256_srai_epi16(_mm256_add_epi16(high, one), 1);
      };
      const __m256i red = _mm256_add_epi16(l, _mm256_add_epi16(r, part(r, 26345)));
      const __m256i blue =
          _mm256_add_epi16(l, _mm256_add_epi16(_mm256_add_epi16(b, b), part(b, -14942)));
      const __m256i both = _mm256_set1_epi32(static_cast<int>(18734u << 16 | (-22554 & 0xffff)));
      const __m256i half = _mm256_set1_epi32(1 << 15);
      const auto dot = [&](__m256i pairs) {
        return _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(pairs, both), half), 16);
      };
      const __m256i mixed = _mm256_packs_epi32(dot(_mm256_unpacklo_epi16(b, r)),
                                               dot(_mm256_unpackhi_epi16(b, r)));
      const __m256i green = _mm256_add_epi16(l, _mm256_sub_epi16(mixed, r));
      // From here on each half of a register holds 8 pixels.
      const __m256i rb = _mm256_packus_epi16(red, blue), gx = _mm256_packus_epi16(green, green);
      const __m256i rg = _mm256_unpacklo_epi8(rb, gx), bx = _mm256_unpackhi_epi8(rb, gx);
      const __m256i low = _mm256_unpacklo_epi16(rg, bx), high = _mm256_unpackhi_epi16(rg, bx);
      auto* to = reinterpret_cast<__m256i*>(out + 4 * x);
      _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }
#endif
    for (; x < width_; x++) {
      const int b = cb[x] - 128, r = cr[x] - 128;
      out[4 * x] = clip(y[x] + r + ((26345 * r + 32768) >> 16));
      out[4 * x + 1] = clip(y[x] - r + ((-22554 * b + 18734 * r + 32768) >> 16));
      out[4 * x + 2] = clip(y[x] + 2 * b + ((-14942 * b + 32768) >> 16));
      out[4 * x + 3] = 0;
    }
  }
};

}  // namespace
