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

  // The sum of this and a number of 0 to 255 is rounded to a whole number, to even between two, whose
  // lowest 8 bits are the pixel.
  static constexpr float kWhole = 12582912.0f;

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

  typedef float Four __attribute__((vector_size(4 * sizeof(float))));

  // Channels that there are not have weights of zero.
  void read_row(const float* from, uint8_t* to) const {
    const FirstConvolution& f = g.first;
    int64_t done = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (f.x_strides[3] == 1) {
      for (; done + kLanes<float> <= f.width; done += kLanes<float>) {
        read_pixels(from + done, to + done * kSummands);
      }
    }
#endif
    // A fourth channel that there is not is read from the next pixel, unless the row ends there.
    const int64_t pixel = f.x_strides[3], behind = (f.width - 1) * pixel + f.channels - kSummands;
    for (; f.x_strides[1] == 1 && done * pixel <= behind; done++) {
      Four numbers;
      std::memcpy(&numbers, from + done * pixel, sizeof(numbers));
      read_pixel(numbers, to + done * kSummands);
    }
    for (; done < f.width; done++) {
      Four numbers;
      for (int64_t c = 0; c < kSummands; c++) {
        numbers[c] = from[done * pixel + smaller(c, f.channels - 1) * f.x_strides[1]];
      }
      read_pixel(numbers, to + done * kSummands);
    }
  }

  // A register of adjacent pixels.
  void read_pixels(const float* from, uint8_t* to) const {
    using Numbers = Vec<float>;
    using Bits = Vec<uint32_t>;
    const FirstConvolution& f = g.first;
    const Numbers highest = Numbers{} + 255.0f;
    Bits pixels{};
    for (int64_t c = 0; c < kSummands; c++) {
      const float* channel = from + smaller(c, f.channels - 1) * f.x_strides[1];
      Numbers v = (load<float>(channel, kLanes<float>) - g.low[c]) * g.step[c];
      v = v > Numbers{} ? v : Numbers{};
      v = v < highest ? v : highest;
      pixels |= (reinterpret_cast<Bits>(v + kWhole) & 255u) << static_cast<uint32_t>(8 * c);
    }
    std::memcpy(to, &pixels, sizeof(pixels));
  }

  // All channels of a pixel at once.
  void read_pixel(Four numbers, uint8_t* to) const {
    typedef uint32_t Bits __attribute__((vector_size(4 * sizeof(uint32_t))));
    typedef uint8_t Bytes __attribute__((vector_size(4)));
    static_assert(kSummands == 4);
    const Four highest = Four{} + 255.0f;
    Four low, step;
    std::memcpy(&low, g.low, sizeof(low));
    std::memcpy(&step, g.step, sizeof(step));
    Four v = (numbers - low) * step;
    v = v > Four{} ? v : Four{};
    v = v < highest ? v : highest;
    const Bytes bytes = __builtin_convertvector(reinterpret_cast<Bits>(v + kWhole), Bytes);
    std::memcpy(to, &bytes, sizeof(bytes));
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
