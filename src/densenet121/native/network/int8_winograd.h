// The 3x3 convolution of int8 inference by Winograd's algorithm (Lavin and Gray 2016, sections 4.1
// and 4.3), for AVX2, whose products of 16 bits are fewer by more than those of 8 bits are wider.
//
// All numbers are whole, so the result has the bits of the direct convolution: the transforms of the
// weights are taken times what makes them whole, and the sums are divided by it again, exactly. What
// a register cannot hold is lost modulo 2^16 or 2^32, as in all sums of whole numbers, and the
// result is right if it fits itself; packing.py sees to that.

#pragma once

#include "int8_arguments.h"
#include "winograd.h"

namespace {

#if defined(__AVX2__) && !defined(__AVX512F__)
#define DENSENET121_INT8_PATCHES
constexpr bool kInt8Patches = true;
#else
constexpr bool kInt8Patches = false;
#endif

constexpr int kWordPanel = 16;  // columns
constexpr int kWordTileRows = 6;
constexpr int kWordSummands = 2;   // adjacent numbers that one instruction multiplies
constexpr int kWordChannels = 16;  // the transforms' channels are a multiple of it

#if defined(DENSENET121_INT8_PATCHES)

using WordVec = Vec<uint16_t>;
using SumVec = Vec<uint32_t>;

// F(2x2, 3x3). The transform of the weights is taken 4 times.
struct PatchOfTwo {
  static constexpr int kPixels = 2, kWindow = 4, kAtOnce = kPatchesAtOnce;

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    transform_some<WordVec>(pixel, write);
  }

  static void sums(const uint32_t* from, int64_t stride, Sums (&out)[2][2]) {
    SumVec four[2][2];
    transform_sums<uint32_t>(numbers_at(from, stride), four);
    for (int r = 0; r < 2; r++) {
      for (int c = 0; c < 2; c++) out[r][c] = _mm256_srai_epi32(reinterpret_cast<Sums>(four[r][c]), 2);
    }
  }
};

// F(4x4, 3x3). Number i of a row or column of the weights' transform is taken 4, 6, 6, 24, 24 and 1
// times; a transform of the input is at most 17340, one of the weights 49 times a weight.
struct PatchOfFour {
  static constexpr int kPixels = 4, kWindow = 6, kAtOnce = 12;

  template <class Out>
  static void six(const WordVec (&d)[6], Out out) {
    const WordVec a = d[4] - d[2], b = (d[3] - d[1]) << 1;
    const WordVec e = d[4] - (d[2] << 2), f = d[3] - (d[1] << 2);
    out(0, a + ((d[0] - d[2]) << 2));
    out(1, e + f);
    out(2, e - f);
    out(3, a + b);
    out(4, a - b);
    out(5, (d[5] - d[3]) + ((d[1] - d[3]) << 2));
  }

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    WordVec rows[6][6];
    for (int c = 0; c < 6; c++) {
      const WordVec d[6] = {pixel(0, c), pixel(1, c), pixel(2, c),
                            pixel(3, c), pixel(4, c), pixel(5, c)};
      six(d, [&](int r, WordVec v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 6; r++) six(rows[r], [&](int c, WordVec v) { write(6 * r + c, v); });
  }

  // 24, 12, 6 and 6 times the four numbers.
  template <class Out>
  static void four(const SumVec (&m)[6], Out out) {
    const SumVec s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], u = m[3] - m[4];
    out(0, ((m[0] << 1) + (m[0] << 2)) + ((s << 2) + t));
    out(1, (d << 1) + u);
    out(2, s + t);
    out(3, d + (u << 1) + ((m[5] << 1) + (m[5] << 2)));
  }

  static void sums(const uint32_t* from, int64_t stride, Sums (&out)[4][4]) {
    SumVec rows[4][6];
    for (int c = 0; c < 6; c++) {
      SumVec m[6];
      for (int r = 0; r < 6; r++) m[r] = load<uint32_t>(from + (6 * r + c) * stride, kSumColumns);
      four(m, [&](int r, SumVec v) { rows[r][c] = v; });
    }
    constexpr uint32_t kNinth = 0x38e38e39;  // 9 * kNinth = 1 modulo 2^32
    constexpr int kTwos[4] = {3, 2, 1, 1};   // of 24 = 3 * 2^3, and so on
    for (int r = 0; r < 4; r++) {
      four(rows[r], [&](int c, SumVec v) {
        out[r][c] = _mm256_srai_epi32(reinterpret_cast<Sums>(v * kNinth), kTwos[r] + kTwos[c]);
      });
    }
  }
};

// A 32-bit number of two adjacent words in all lanes.
inline Sums two_of(const int16_t* a) {
  int32_t two;
  std::memcpy(&two, a, sizeof(two));
  return _mm256_set1_epi32(two);
}

// Rows of sums (of 32 bits, `ldo` apart) of rows of A by kVectors registers of columns of a panel.
template <int kRows, int kVectors>
__attribute__((noinline)) void word_tile(const int16_t* a, int64_t lda, int64_t depth,
                                         const int16_t* b, uint32_t* out, int64_t ldo) {
  Sums sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[r][v] = _mm256_setzero_si256();
  }
  for (int64_t k = 0; k < depth; k += kWordSummands) {
    Sums line[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
      line[v] = load_sums(b + k * kWordPanel + v * kSumColumns * kWordSummands);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const Sums two = two_of(a + r * lda + k);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) {
        sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(two, line[v]));
        // Whole numbers may be added in any order, and gcc would: then the registers do not suffice.
        asm("" : "+x"(sums[r][v]));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
      _mm256_storeu_si256(reinterpret_cast<Sums*>(out + r * ldo + v * kSumColumns), sums[r][v]);
    }
  }
}

template <int kVectors, int kRows = kWordTileRows>
inline void word_rows(int count, const int16_t* a, int64_t lda, int64_t depth, const int16_t* b,
                      uint32_t* out, int64_t ldo) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      word_tile<kRows, kVectors>(a, lda, depth, b, out, ldo);
    } else {
      word_rows<kVectors, kRows - 1>(count, a, lda, depth, b, out, ldo);
    }
  }
}

// What is the same for all patches of a layer's convolution.
template <class Patches>
struct Int8Patches {
  static constexpr int kPixels = Patches::kPixels, kNumbers = Patches::kWindow * Patches::kWindow;
  const Int8Product& product;  // its biases and scales
  const int16_t* weights;      // of each of the transforms: panels, pairs of channels, columns
  int64_t channels;            // padded

  int64_t columns() const { return round_up(product.columns, kSumColumns); }
  int64_t input_stride() const { return patch_stride<int16_t>(Patches::kAtOnce, channels); }
  int64_t sum_stride() const { return patch_stride<uint32_t>(Patches::kAtOnce, columns()); }

  // Transforms the window, in rows of `pitch` pixels of `ld` bytes, whose first pixel is at x.
  void transform(const uint8_t* x, int64_t ld, int64_t pitch, int16_t* out) const {
    const int64_t stride = input_stride();
    for (int64_t n = 0; n < channels; n += kWordChannels) {
      Patches::transform(
          [&](int r, int c) {
            __m128i bytes;
            std::memcpy(&bytes, x + (r * pitch + c) * ld + n, sizeof(bytes));
            return reinterpret_cast<WordVec>(_mm256_cvtepu8_epi16(bytes));
          },
          [&](int i, WordVec v) { std::memcpy(out + i * stride + n, &v, sizeof(v)); });
    }
  }

  void multiply(int64_t count, const int16_t* inputs, uint32_t* sums) const {
    const int tiles = (count + kWordTileRows - 1) / kWordTileRows;
    const int64_t padded = round_up(product.columns, kWordPanel);
    for (int i = 0; i < kNumbers; i++) {
      for (int64_t n = 0; n < columns(); n += kWordPanel) {
        const int16_t* panel = weights + (i * padded + n) * channels;
        for (int t = 0; t < tiles; t++) {
          const Range tile = share(count, t, tiles);
          const int16_t* a = inputs + i * input_stride() + tile.begin * channels;
          uint32_t* out = sums + i * sum_stride() + tile.begin * columns() + n;
          const int height = tile.end - tile.begin;
          if (columns() - n > kSumColumns) {
            word_rows<2>(height, a, channels, channels, panel, out, columns());
          } else {
            word_rows<1>(height, a, channels, channels, panel, out, columns());
          }
        }
      }
    }
  }

  // The sums of a patch to its pixels at `to`, of which only some may be in the image.
  void write(const uint32_t* sums, int64_t rows, int64_t row_pixels, int64_t row_ld, int64_t ld,
             int16_t* to) const {
    for (int64_t n = 0; n < product.columns; n += 2 * kSumColumns) {
      const int vectors = product.columns - n > kSumColumns ? 2 : 1;
      Sums all[2][kPixels][kPixels];
      for (int v = 0; v < vectors; v++) {
        Patches::sums(sums + n + v * kSumColumns, sum_stride(), all[v]);
      }
      const Sums bias[2] = {load_sums(product.bias_of(n)), load_sums(product.bias_of(n + kSumColumns))};
      const Result<int16_t> result{nullptr, product.scale_of(n), nullptr, n,
                                   smaller<int64_t>(2 * kSumColumns, product.columns - n)};
      for (int64_t r = 0; r < smaller<int64_t>(rows, kPixels); r++) {
        for (int64_t c = 0; c < smaller<int64_t>(row_pixels, kPixels); c++) {
          int16_t* out = to + r * row_ld + c * ld + n;
          const Sums pixel[2] = {_mm256_add_epi32(all[0][r][c], bias[0]),
                                 _mm256_add_epi32(all[vectors - 1][r][c], bias[vectors - 1])};
          if (vectors == 2) {
            store_result<int16_t, 2>(pixel, result, out);
          } else {
            store_result<int16_t, 1>(pixel, result, out);
          }
        }
      }
    }
  }
};

#endif

}  // namespace
