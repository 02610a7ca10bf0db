// Affine resampling and sharpening of RGB images, equal bit for bit to Pillow's Image.transform
// (AFFINE, BILINEAR) and ImageEnhance.Sharpness, which datasets/ uses where this library is absent.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// A place (x, y) in an RGBX image: its four neighbours, clamped to the image, and how far it is from
// the first to the next, in shares of a pixel.
struct Place {
  int32_t x0, y0, x1, y1;
  double right, down;
};

// The four bytes of a pixel, mixed in double as Pillow does: first along x, then along y, then
// rounded towards zero.
inline void mix_bilinear(const uint8_t* image, int64_t width, const Place& at, uint8_t* out) {
  const uint8_t *above = image + 4 * width * at.y0, *below = image + 4 * width * at.y1;
  const uint8_t *p00 = above + 4 * int64_t{at.x0}, *p01 = above + 4 * int64_t{at.x1},
                *p10 = below + 4 * int64_t{at.x0}, *p11 = below + 4 * int64_t{at.x1};
#if defined(__AVX2__)
  const auto load = [](const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
  };
  const auto mixed = [](__m256d a, __m256d b, __m256d share) {
    return _mm256_add_pd(a, _mm256_mul_pd(_mm256_sub_pd(b, a), share));
  };
  const __m256d right = _mm256_set1_pd(at.right), down = _mm256_set1_pd(at.down);
  const __m256d v =
      mixed(mixed(load(p00), load(p01), right), mixed(load(p10), load(p11), right), down);
  const __m128i levels = _mm256_cvttpd_epi32(v);
  const __m128i bytes = _mm_packus_epi16(_mm_packus_epi32(levels, levels), levels);
  const int32_t four = _mm_cvtsi128_si32(bytes);
  std::memcpy(out, &four, 4);
#else
  for (int c = 0; c < 4; c++) {
    const double upper = p00[c] + (p01[c] - p00[c]) * at.right;
    const double lower = p10[c] + (p11[c] - p10[c]) * at.right;
    out[c] = static_cast<uint8_t>(upper + (lower - upper) * at.down);
  }
#endif
}

// `matrix` (a, b, c, d, e, f) leads from the middle of a pixel (x, y) of the result to the place
// (a x + b y + c, d x + e y + f) of the image. Both are RGBX of height x width, below 2^31. Where the
// place is outside, the result is `fill`; places between the outermost middles and the edge take the
// outermost pixels.
inline void resample_affine(const uint8_t* image, int64_t height, int64_t width,
                            const double* matrix, const uint8_t* fill, uint8_t* out) {
  const auto last_x = static_cast<int32_t>(width - 1), last_y = static_cast<int32_t>(height - 1);
  const double w = static_cast<double>(width), h = static_cast<double>(height);
  for (int64_t y = 0; y < height; y++) {
    const double y_middle = static_cast<double>(y) + 0.5;
    const double b_y = matrix[1] * y_middle, e_y = matrix[4] * y_middle;
    for (int64_t x = 0; x < width; x++, out += 4) {
      const double x_middle = static_cast<double>(x) + 0.5;
      const double from_x = matrix[0] * x_middle + b_y + matrix[2];
      const double from_y = matrix[3] * x_middle + e_y + matrix[5];
      // Written so that NaN is outside too.
      if (!(from_x >= 0 && from_x < w && from_y >= 0 && from_y < h)) {
        std::memcpy(out, fill, 4);
        continue;
      }
      const double left = std::floor(from_x - 0.5), top = std::floor(from_y - 0.5);
      const auto x0 = static_cast<int32_t>(left), y0 = static_cast<int32_t>(top);
      const Place at{std::max(x0, 0),          std::max(y0, 0),      std::min(x0 + 1, last_x),
                     std::min(y0 + 1, last_y), from_x - 0.5 - left, from_y - 0.5 - top};
      mix_bilinear(image, width, at, out);
    }
  }
}

// smooth + factor (image - smooth), where smooth is the mean of a pixel, five times, and its eight
// neighbours, rounded; pixels at the border have none and stay. RGB of height x width.
inline void sharpen(const uint8_t* image, int64_t height, int64_t width, float factor,
                    uint8_t* out) {
  const int64_t row = 3 * width;
  std::memcpy(out, image, static_cast<size_t>(row * height));
  for (int64_t y = 1; y + 1 < height; y++) {
    const uint8_t *here = image + row * y, *above = here - row, *below = here + row;
    uint8_t* result = out + row * y;
    for (int64_t i = 3; i < row - 3; i++) {
      const uint32_t sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] +
                           here[i + 3] + below[i - 3] + below[i] + below[i + 3];
      // sum / 13 is never half-way between two integers.
      const auto smooth = static_cast<int32_t>((2 * sum + 13) / 26);
      const float level = static_cast<float>(smooth) +
                          factor * static_cast<float>(static_cast<int32_t>(here[i]) - smooth);
      result[i] = static_cast<uint8_t>(!(level > 0) ? 0.0f : level >= 255 ? 255.0f : level);
    }
  }
}

}  // namespace
