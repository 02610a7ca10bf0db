// The 3x3 convolution of int8 inference by Winograd's algorithm (winograd.h), for AVX2, whose
// products of 16 bits take 16 multiplications where those of 8 bits take 36 and cost as much each.
//
// All numbers are whole. The transform of the weights is taken four times, so that its halves are
// whole too, and the sums are four times those of the direct convolution: the same bits.
// Of four pixels of 8 bits without a sign a transform is at most 1020, of nine weights with adjacent
// pairs of at most 128 together at most 1143: both fit 16 bits with a sign.

#pragma once

#include "int8_arguments.h"
#include "winograd.h"

namespace {

#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr bool kInt8Patches = true;
#else
constexpr bool kInt8Patches = false;
#endif

constexpr int kWordPanel = 16;    // columns
constexpr int kWordTileRows = 6;
constexpr int kWordSummands = 2;  // adjacent numbers that one instruction multiplies
constexpr int kWordChannels = 16;  // the transforms' channels are a multiple of it

#if defined(__AVX2__) && !defined(__AVX512F__)

using WordVec = Vec<int16_t>;

// A 32-bit number of two adjacent words in all lanes.
inline Sums two_of(const int16_t* a) {
  int32_t two;
  std::memcpy(&two, a, sizeof(two));
  return _mm256_set1_epi32(two);
}

// Rows of sums (of 32 bits, `lds` apart) of rows of A by kVectors registers of columns of a panel.
template <int kRows, int kVectors>
__attribute__((noinline)) void word_tile(const int16_t* a, int64_t lda, int64_t depth,
                                         const int16_t* b, uint32_t* out, int64_t ldo) {
  Sums sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[r][v] = _mm256_setzero_si256();
  }
  const auto add = [&](int64_t k) __attribute__((always_inline)) {
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
      }
    }
  };
  for (int64_t begin = 0; begin < depth; begin += kWordChannels) {
#pragma GCC unroll 8
    for (int64_t k = begin; k < begin + kWordChannels; k += kWordSummands) add(k);
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
struct Int8Patches {
  const Int8Product& product;  // its biases and scales
  const int16_t* weights;      // of each of the 16 transforms: panels, pairs of channels, columns
  int64_t channels;            // padded

  int64_t columns() const { return round_up(product.columns, kSumColumns); }
  int64_t input_stride() const { return patch_stride<int16_t>(kPatchesAtOnce, channels); }
  int64_t sum_stride() const { return patch_stride<uint32_t>(kPatchesAtOnce, columns()); }

  // Transforms the 4 x 4 pixels, in rows of `pitch` pixels of `ld` bytes, whose first is at x.
  void transform(const uint8_t* x, int64_t ld, int64_t pitch, int16_t* out) const {
    for (int64_t n = 0; n < channels; n += kWordChannels) {
      transform_some<WordVec>(
          [&](int r, int c) {
            __m128i bytes;
            std::memcpy(&bytes, x + (r * pitch + c) * ld + n, sizeof(bytes));
            return reinterpret_cast<WordVec>(_mm256_cvtepu8_epi16(bytes));
          },
          [&](int i, WordVec v) { std::memcpy(out + i * input_stride() + n, &v, sizeof(v)); });
    }
  }

  void multiply(int64_t count, const int16_t* inputs, uint32_t* sums) const {
    const int tiles = (count + kWordTileRows - 1) / kWordTileRows;
    const int64_t padded = round_up(product.columns, kWordPanel);
    for (int i = 0; i < kPatchSize; i++) {
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

  // The sums of a patch to its pixels at `to`, of which some may be outside of the image.
  void write(const uint32_t* sums, int rows, int columns_of, int64_t row_ld, int64_t ld,
             int16_t* to) const {
    for (int64_t n = 0; n < product.columns; n += 2 * kSumColumns) {
      const int vectors = product.columns - n > kSumColumns ? 2 : 1;
      Sums pixels[2][2][2];
      for (int v = 0; v < vectors; v++) {
        Vec<uint32_t> four[2][2];
        transform_sums<uint32_t>(sums + n + v * kSumColumns, sum_stride(), four);
        const Sums bias = load_sums(product.bias_of(n + v * kSumColumns));
        for (int p = 0; p < 4; p++) {
          const Sums whole = _mm256_srai_epi32(reinterpret_cast<Sums>(four[p / 2][p % 2]), 2);
          pixels[p / 2][p % 2][v] = _mm256_add_epi32(whole, bias);
        }
      }
      const Result<int16_t> result{nullptr, product.scale_of(n), nullptr, n,
                                   smaller<int64_t>(2 * kSumColumns, product.columns - n)};
      for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns_of; c++) {
          int16_t* out = to + r * row_ld + c * ld + n;
          if (vectors == 2) {
            store_result<int16_t, 2>(pixels[r][c], result, out);
          } else {
            store_result<int16_t, 1>(pixels[r][c], result, out);
          }
        }
      }
    }
  }
};

#endif

}  // namespace
