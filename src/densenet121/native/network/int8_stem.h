// The first convolution of int8 inference, and its pooling: images in float to the first block.

#pragma once

#include "int8_arguments.h"

namespace {

constexpr int64_t kByteRowsAtOnce = 48;  // pixels whose 1x1 convolution is one piece of work

// Some rows of the first convolution of one image, and their pooling.
struct Int8Stem {
  const Int8Network& g;
  int64_t image;
  uint8_t* inputs;
  int64_t first_input = 0;

  int64_t row_bytes() const { return (g.first.width + 2 * g.first.padding) * kSummands; }

  // Rows of x as bytes that the output rows first .. last - 1 read, in a frame of zeros.
  void read(int64_t first, int64_t last) {
    const FirstConvolution& f = g.first;
    first_input = first * f.stride - f.padding;
    uint8_t* to = inputs;
    for (int64_t r = first_input; r < (last - 1) * f.stride - f.padding + f.kernel; r++) {
      for (int64_t i = 0; i < row_bytes(); i += kSummands) std::memcpy(to + i, g.zero, kSummands);
      if (r >= 0 && r < f.height) {
        const float* from = static_cast<float*>(f.x) + image * f.x_strides[0] + r * f.x_strides[2];
        read_row(from, to + f.padding * kSummands);
      }
      to += row_bytes();
    }
  }

  // All channels of a pixel at once; those that there are not have weights of zero.
  void read_row(const float* from, uint8_t* to) const {
    typedef float Four __attribute__((vector_size(4 * sizeof(float))));
    typedef uint32_t Bits __attribute__((vector_size(4 * sizeof(uint32_t))));
    typedef uint8_t Bytes __attribute__((vector_size(4)));
    static_assert(kSummands == 4);
    const FirstConvolution& f = g.first;
    const Four highest = Four{} + 255.0f;
    Four low, step;
    std::memcpy(&low, g.low, sizeof(low));
    std::memcpy(&step, g.step, sizeof(step));
    const int64_t last = f.channels - 1, apart = f.x_strides[1];
    const float* channel[4];
    for (int64_t c = 0; c < 4; c++) channel[c] = from + smaller(c, last) * apart;
    for (int64_t i = 0; i < f.width; i++) {
      const int64_t x = i * f.x_strides[3];
      Four v = (Four{channel[0][x], channel[1][x], channel[2][x], channel[3][x]} - low) * step;
      v = v > Four{} ? v : Four{};
      v = v < highest ? v : highest;
      // Rounds to the nearest, to even between two: the sum has no binary places left.
      const Bytes bytes = __builtin_convertvector(reinterpret_cast<Bits>(v + 12582912.0f), Bytes);
      std::memcpy(to + i * kSummands, &bytes, sizeof(bytes));
    }
  }

  // Writes row r of the convolution, prepared by `read`, to pixels `ld` numbers apart.
  void convolve(int64_t r, int16_t* out, int64_t ld) const {
    const FirstConvolution& f = g.first;
    const int64_t width = f.output(f.width);
    const uint8_t* first = inputs + (r * f.stride - f.padding - first_input) * row_bytes();
    int16_t* to[kByteRowsAtOnce];
    for (int64_t p = 0; p < width; p += kByteRowsAtOnce) {
      const int64_t some = smaller(kByteRowsAtOnce, width - p);
      for (int64_t i = 0; i < some; i++) to[i] = out + (p + i) * ld;
      const ByteRows rows{first + p * f.stride * kSummands, f.stride * kSummands,
                          f.kernel * kSummands, f.kernel, row_bytes()};
      byte_product<int16_t>(g.conv0, some, rows, 0, f.columns, to);
    }
  }
};

// Rows range of the first block's input of one image; y is its first pixel.
inline void int8_stem_rows(const Int8Network& g, int64_t image, Range range, int16_t* y, int64_t ld) {
  const FirstConvolution& f = g.first;
  const int64_t width = f.output(f.width);
  const int64_t first =
      g.pooled ? (range.begin * 2 > g.pool.pad_top ? range.begin * 2 - g.pool.pad_top : 0) : range.begin;
  const int64_t last =
      g.pooled ? smaller(range.end * 2 - g.pool.pad_top + 1, g.pool.height) : range.end;
  Int8Stem stem{g, image, nullptr};
  const int64_t behind = kTileHeight * f.stride * kSummands + kTileDepth;  // read by tiles
  stem.inputs =
      scratch<uint8_t>(2, ((last - first) * f.stride + f.kernel) * stem.row_bytes() + behind);
  stem.read(first, last);
  if (!g.pooled) {
    for (int64_t r = first; r < last; r++) stem.convolve(r, y + r * width * ld, ld);
    return;
  }
  const int64_t pixel = round_up(g.first.columns, kLanes<int16_t>), row_numbers = width * pixel;
  int16_t* ring = scratch<int16_t>(4, kRing * row_numbers);
  int64_t done = first;  // rows of the convolution before this one
  for (int64_t row = range.begin; row < range.end; row++) {
    const int64_t bottom = smaller(row * 2 - g.pool.pad_top + 3, g.pool.height);
    for (; done < bottom; done++) stem.convolve(done, ring + done % kRing * row_numbers, pixel);
    pool_row<int16_t>(g.pool, row, ring, row_numbers, pixel, g.first.columns,
                      y + row * g.pool.out_width * ld, ld);
  }
}

}  // namespace
