// A 3x3 convolution with stride 1 as 16 products instead of 36 for each 2 x 2 pixels of the output
// (a patch): F(2x2, 3x3) of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
// Networks", section 4.1. It sums other numbers than a direct convolution, so its rounding differs:
// in float by a few units in the last place of a patch's largest number.

#pragma once

#include "product.h"
#include "team.h"

namespace {

constexpr int kPatchSize = 16;     // numbers of a transformed patch: 4 x 4
constexpr int kPatchesAtOnce = 24;  // their transforms, with 128 channels in float, need 196 kB

// How pack_patches transforms the weights of patches of 2 x 2 pixels.
struct TwoByTwo {
  static constexpr int kNumbers = kPatchSize;

  // The numbers of the transformed window g of weights. R: a number, or a vector of numbers.
  template <class R, class Window>
  static void weight(Window g, R* out) {
    R rows[4][3];
    for (int c = 0; c < 3; c++) {
      const R outer = g(0, c) + g(2, c), middle = g(1, c);
      rows[0][c] = g(0, c);
      rows[1][c] = (outer + middle) * 0.5;
      rows[2][c] = (outer - middle) * 0.5;
      rows[3][c] = g(2, c);
    }
    for (int r = 0; r < 4; r++, out += 4) {
      const R outer = rows[r][0] + rows[r][2], middle = rows[r][1];
      out[0] = rows[r][0];
      out[1] = (outer + middle) * 0.5;
      out[2] = (outer - middle) * 0.5;
      out[3] = rows[r][2];
    }
  }
};

// A register's numbers as double.
template <class T>
struct DoublesOf;
template <>
struct DoublesOf<float> {
  typedef double type __attribute__((vector_size(2 * kRegisterBytes)));
};
template <>
struct DoublesOf<double> {
  typedef double type __attribute__((vector_size(kRegisterBytes)));
};

// Packs the transformed weights of a convolution from `columns` to `width` channels with padded
// sizes; value(i, o, row, column) is one weight. Transforms in double.
template <class T, class Form = TwoByTwo, class Value>
inline void pack_patches(T* panels, int64_t columns, int64_t width, int threads, Value value) {
  using Wide = typename DoublesOf<T>::type;
  const int64_t from = round_up(columns, kLanes<T>), to = round_up(width, kLanes<T>);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < from; i++) {
    for (int64_t o = 0; o < to; o += kLanes<T>) {
      Wide window[3][3] = {}, transformed[Form::kNumbers];
      const int lanes = i < columns ? smaller<int64_t>(kLanes<T>, width - o) : 0;
      for (int lane = 0; lane < lanes; lane++) {
        for (int r = 0; r < 3; r++) {
          for (int c = 0; c < 3; c++) window[r][c][lane] = value(i, o + lane, r, c);
        }
      }
      Form::template weight<Wide>([&](int r, int c) { return window[r][c]; }, transformed);
      for (int k = 0; k < Form::kNumbers; k++) {
        store<T>(panels + k * from * to + panel_index<T>(i, o, from, to),
                 __builtin_convertvector(transformed[k], Vec<T>), kLanes<T>);
      }
    }
  }
}

// The 16 transforms of one register of channels of the 4 x 4 pixels around a patch: pixel(r, c) is
// one pixel's, write(i, v) takes a result.
template <class V, class Pixel, class Write>
inline void transform_some(Pixel pixel, Write write) {
  V rows[4][4];
  for (int c = 0; c < 4; c++) {
    V d[4];
    for (int r = 0; r < 4; r++) d[r] = pixel(r, c);
    rows[0][c] = d[0] - d[2];
    rows[1][c] = d[1] + d[2];
    rows[2][c] = d[2] - d[1];
    rows[3][c] = d[1] - d[3];
  }
  for (int r = 0; r < 4; r++) {
    const V* d = rows[r];
    write(4 * r, d[0] - d[2]);
    write(4 * r + 1, d[1] + d[2]);
    write(4 * r + 2, d[2] - d[1]);
    write(4 * r + 3, d[1] - d[3]);
  }
}

// out[i * stride + n] of the 4 x 4 pixels around a patch, n below `columns`; pixel(r, c) points to
// one.
template <class T, class Pixel>
inline void transform_window(Pixel pixel, int64_t columns, T* out, int64_t stride) {
  for (int64_t n = 0; n < columns; n += kLanes<T>) {
    transform_some<Vec<T>>([&](int r, int c) { return load<T>(pixel(r, c) + n, kLanes<T>); },
                           [&](int i, Vec<T> v) { store<T>(out + i * stride + n, v, kLanes<T>); });
  }
}

// The 2 x 2 pixels of the output from one register of each of the 16 sums.
template <class T>
inline void transform_sums(const T* sums, int64_t stride, Vec<T> (&out)[2][2]) {
  Vec<T> rows[2][4];
  for (int c = 0; c < 4; c++) {
    Vec<T> m[4];
    for (int r = 0; r < 4; r++) m[r] = load<T>(sums + (r * 4 + c) * stride, kLanes<T>);
    rows[0][c] = m[0] + m[1] + m[2];
    rows[1][c] = m[1] - m[2] - m[3];
  }
  for (int r = 0; r < 2; r++) {
    const Vec<T>* m = rows[r];
    out[r][0] = m[0] + m[1] + m[2];
    out[r][1] = m[1] - m[2] - m[3];
  }
}

// Numbers from one of the 16 transforms to the next. One more cache line: with a power of two all
// would share a cache set.
template <class T>
inline int64_t patch_stride(int64_t patches, int64_t columns) {
  const int64_t line = 64 / sizeof(T);
  return round_up(patches * columns, line) + line;
}

// The products of `count` patches: sums[i] of `some` columns from `first` on. The packed weights
// have `columns` x `width` numbers for each; `width` is a multiple of the lanes.
template <class T, int kNumbers = kPatchSize>
inline void multiply_patches(int64_t count, const T* inputs, int64_t input_stride, int64_t columns,
                             const T* weights, int64_t width, int64_t first, int64_t some, T* sums,
                             int64_t sum_stride) {
  for (int i = 0; i < kNumbers; i++) {
    for (int64_t n = 0; n < some; n += kPanel<T>) {
      const int64_t panel_width = smaller<int64_t>(kPanel<T>, some - n);
      const T* panel = weights + (i * width + first + n) * columns;
      product<T>(count, {inputs + i * input_stride, columns, columns}, panel, panel_width,
                 sums + i * sum_stride + n, some, false, nullptr, panel + panel_width * columns);
    }
  }
}

// Images of one size with contiguous pixels.
struct Maps {
  int64_t images, height, width;
  int64_t pixels() const { return images * height * width; }
  // Patches of size x size pixels, of which those at the end may be outside of the image in part.
  int64_t patch_columns(int64_t size) const { return (width + size - 1) / size; }
  int64_t patches_of_one(int64_t size) const {
    return (height + size - 1) / size * patch_columns(size);
  }
  int64_t patches(int64_t size = 2) const { return images * patches_of_one(size); }
};

struct Patch {
  int64_t image, row, column;  // of the first output pixel
  Patch(const Maps& maps, int64_t index, int64_t size = 2)
      : image(index / maps.patches_of_one(size)),
        row(index % maps.patches_of_one(size) / maps.patch_columns(size) * size),
        column(index % maps.patch_columns(size) * size) {}
};

// Number of pieces of work: a multiple of the threads, if there are enough patches.
inline int64_t patch_blocks(int64_t patches, int64_t at_once, int64_t threads) {
  return smaller(round_up((patches + at_once - 1) / at_once, threads), patches);
}

// The patches up to `last` read only pixels before this one.
inline int64_t pixels_read(const Maps& maps, int64_t last, int64_t size = 2) {
  const Patch patch(maps, last, size);
  return (patch.image * maps.height + smaller(patch.row + size + 1, maps.height)) * maps.width;
}

}  // namespace
