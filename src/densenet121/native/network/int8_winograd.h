// The 3x3 convolution of int8 inference by Winograd's F(4x4, 3x3) (Lavin and Gray 2016, sections 4.1
// and 4.3), for AVX2 and AVX-512: its products of 16 bits are fewer by more than those of 8 bits are
// faster. F(2x2, 3x3) was slower than the direct convolution on Zen 4.
//
// All numbers are whole, so the result has the bits of the direct convolution: the transforms of the
// weights are taken times what makes them whole, and the sums are divided by it again, exactly. What
// a register cannot hold is lost modulo 2^16 or 2^32, as in all sums of whole numbers, and the
// result is right if it fits itself; packing.py sees to that.

#pragma once

#include "int8_arguments.h"
#include "winograd.h"

namespace {

#if defined(__AVX2__) && !defined(__AMX_INT8__)
#define DENSENET121_INT8_PATCHES
// Columns of a register of sums; of the packed weights a panel has two.
constexpr int kPatchColumns = kSumColumns;
#else
constexpr int kPatchColumns = 0;
#endif

constexpr int kWordChannels = 16;  // the transforms' channels are a multiple of it

#if defined(DENSENET121_INT8_PATCHES)

using WordVec = Vec<uint16_t>;
using SumVec = Vec<uint32_t>;
using Pixels = Vec<int32_t>;

// Bytes as words; those of the register that are left are zero.
template <int kSome>
inline WordVec words(const uint8_t* from) {
#if defined(__AVX512F__)
  __m256i bytes{};
  std::memcpy(&bytes, from, kSome);
  return reinterpret_cast<WordVec>(_mm512_cvtepu8_epi16(bytes));
#else
  __m128i bytes;
  std::memcpy(&bytes, from, kSome);
  return reinterpret_cast<WordVec>(_mm256_cvtepu8_epi16(bytes));
#endif
}

// Registers of sums that are stored at once.
constexpr int kStoredVectors = sizeof(Sums) == 64 ? 1 : 2;

// The transforms, as in patch_forms.h. Number i of a row or column of the weights' transform is taken
// 4, 6, 6, 24, 24 and 1 times; a transform of the input is at most 17340, one of the weights 49 times
// a weight.
struct Int8Form {
  static constexpr int kPixels = 4, kNumbers = 36, kAtOnce = 12;

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

  static void sums(const uint32_t* from, int64_t stride, Pixels (&out)[4][4]) {
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
        out[r][c] = reinterpret_cast<Pixels>(v * kNinth) >> (kTwos[r] + kTwos[c]);
      });
    }
  }
};

// What is the same for all patches of a layer's convolution.
struct Int8Patches {
  static constexpr int kPixels = Int8Form::kPixels, kNumbers = Int8Form::kNumbers;
  const Int8Product& product;  // its biases and scales
  const int16_t* weights;      // of each of the transforms: panels, pairs of channels, columns
  int64_t channels;            // padded

  int64_t columns() const { return round_up(product.columns, kPatchColumns); }
  int64_t input_stride() const { return patch_stride<int16_t>(Int8Form::kAtOnce, channels); }
  int64_t sum_stride() const { return patch_stride<int32_t>(Int8Form::kAtOnce, columns()); }

  // Transforms the window, in rows of `pitch` pixels of `ld` bytes, whose first pixel is at x.
  void transform(const uint8_t* x, int64_t ld, int64_t pitch, int16_t* out) const {
    int64_t n = 0;
    for (; n + kWords <= channels; n += kWords) transform_channels<kWords>(x + n, ld, pitch, out + n);
    if (n < channels) transform_channels<kWordChannels>(x + n, ld, pitch, out + n);
  }
  // kSome channels: those of a register, or of half of one.
  template <int kSome>
  void transform_channels(const uint8_t* x, int64_t ld, int64_t pitch, int16_t* out) const {
    const int64_t stride = input_stride();
    Int8Form::transform(
        [&](int r, int c) { return words<kSome>(x + (r * pitch + c) * ld); },
        [&](int i, WordVec v) { std::memcpy(out + i * stride, &v, kSome * sizeof(int16_t)); });
  }

  void multiply(int64_t count, const int16_t* inputs, int32_t* sums) const {
    if (has_vnni()) {
      multiply_by<VnniPair>(count, inputs, sums);
    } else {
      multiply_by<WholePair>(count, inputs, sums);
    }
  }
  template <class Pair>
  void multiply_by(int64_t count, const int16_t* inputs, int32_t* sums) const {
    multiply_patches<Int8Form>(count, reinterpret_cast<const Pair*>(inputs), input_stride() / 2,
                               channels / 2, reinterpret_cast<const Pair*>(weights), columns(), 0,
                               columns(), sums, sum_stride());
  }

  // The sums of a patch to its pixels at `to`, of which only some may be in the image.
  void write(const int32_t* sums, int64_t rows, int64_t row_pixels, int64_t row_ld, int64_t ld,
             int16_t* to) const {
    constexpr int kVectors = kStoredVectors;
    for (int64_t n = 0; n < product.columns; n += kVectors * kSumColumns) {
      const int vectors = kVectors == 2 && product.columns - n > kSumColumns ? 2 : 1;
      Pixels all[kVectors][kPixels][kPixels];
      for (int v = 0; v < vectors; v++) {
        const uint32_t* from = reinterpret_cast<const uint32_t*>(sums) + n + v * kSumColumns;
        Int8Form::sums(from, sum_stride(), all[v]);
      }
      const Result<int16_t> result{product.bias_of(n), product.scale_of(n), nullptr, n,
                                   smaller<int64_t>(kVectors * kSumColumns, product.columns - n)};
      for (int64_t r = 0; r < smaller<int64_t>(rows, kPixels); r++) {
        for (int64_t c = 0; c < smaller<int64_t>(row_pixels, kPixels); c++) {
          int16_t* out = to + r * row_ld + c * ld + n;
          Sums pixel[kVectors];
          for (int v = 0; v < vectors; v++) {
            const Pixels bias = load<int32_t>(result.bias + v * kSumColumns, kSumColumns);
            pixel[v] = reinterpret_cast<Sums>(all[v][r][c] + bias);
          }
          if (vectors == kVectors) {
            store_result<int16_t, kVectors>(pixel, result, out);
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
