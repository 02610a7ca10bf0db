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

// Number i of the transformed window g of weights.
template <class Window>
inline double winograd_weight(int i, Window g) {
  static constexpr double kTransform[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  double sum = 0;
  for (int r = 0; r < 3; r++) {
    for (int c = 0; c < 3; c++) sum += kTransform[i / 4][r] * kTransform[i % 4][c] * g(r, c);
  }
  return sum;
}

// Images of one size with contiguous pixels.
struct Maps {
  int64_t images, height, width;
  int64_t pixels() const { return images * height * width; }
  int64_t patch_columns() const { return (width + 1) / 2; }
  int64_t patches_of_one() const { return (height + 1) / 2 * patch_columns(); }
  int64_t patches() const { return images * patches_of_one(); }
};

struct Patch {
  int64_t image, row, column;  // of the first output pixel
  Patch(const Maps& maps, int64_t index)
      : image(index / maps.patches_of_one()),
        row(index % maps.patches_of_one() / maps.patch_columns() * 2),
        column(index % maps.patch_columns() * 2) {}
};

// The patches up to `last` read only pixels before this one.
inline int64_t pixels_read(const Maps& maps, int64_t last) {
  const Patch patch(maps, last);
  return (patch.image * maps.height + smaller(patch.row + 3, maps.height)) * maps.width;
}

// out[i * stride + c] of the 4 x 4 pixels around a patch, c below `columns`.
template <class T>
inline void transform_input(const Maps& maps, const Patch& patch, const T* x, const T* zeros,
                            int64_t columns, T* out, int64_t stride) {
  const T* pixel[4][4];
  for (int r = 0; r < 4; r++) {
    for (int c = 0; c < 4; c++) {
      const int64_t row = patch.row + r - 1, column = patch.column + c - 1;
      const bool inside = row >= 0 && row < maps.height && column >= 0 && column < maps.width;
      pixel[r][c] =
          inside ? x + ((patch.image * maps.height + row) * maps.width + column) * columns : zeros;
    }
  }
  for (int64_t n = 0; n < columns; n += kLanes<T>) {
    Vec<T> rows[4][4];
    for (int c = 0; c < 4; c++) {
      Vec<T> d[4];
      for (int r = 0; r < 4; r++) d[r] = load<T>(pixel[r][c] + n, kLanes<T>);
      rows[0][c] = d[0] - d[2];
      rows[1][c] = d[1] + d[2];
      rows[2][c] = d[2] - d[1];
      rows[3][c] = d[1] - d[3];
    }
    for (int r = 0; r < 4; r++) {
      const Vec<T>* d = rows[r];
      T* to = out + r * 4 * stride + n;
      store<T>(to, d[0] - d[2], kLanes<T>);
      store<T>(to + stride, d[1] + d[2], kLanes<T>);
      store<T>(to + 2 * stride, d[2] - d[1], kLanes<T>);
      store<T>(to + 3 * stride, d[1] - d[3], kLanes<T>);
    }
  }
}

// Writes the pixels of a patch to `out`, `ld` numbers apart, `width` columns each.
template <class T>
inline void transform_output(const Maps& maps, const Patch& patch, const T* sums, int64_t stride,
                             int64_t width, T* out, int64_t ld) {
  T* corner = out + ((patch.image * maps.height + patch.row) * maps.width + patch.column) * ld;
  for (int64_t n = 0; n < width; n += kLanes<T>) {
    const int lanes = smaller<int64_t>(kLanes<T>, width - n);
    Vec<T> rows[2][4];
    for (int c = 0; c < 4; c++) {
      Vec<T> m[4];
      for (int r = 0; r < 4; r++) m[r] = load<T>(sums + (r * 4 + c) * stride + n, kLanes<T>);
      rows[0][c] = m[0] + m[1] + m[2];
      rows[1][c] = m[1] - m[2] - m[3];
    }
    for (int r = 0; r < 2 && patch.row + r < maps.height; r++) {
      const Vec<T>* m = rows[r];
      T* to = corner + r * maps.width * ld + n;
      store<T>(to, m[0] + m[1] + m[2], lanes);
      if (patch.column + 1 < maps.width) store<T>(to + ld, m[1] - m[2] - m[3], lanes);
    }
  }
}

// The patches first .. last - 1, at most kPatchesAtOnce. x has `columns` and the packed weights
// `columns` x round_up(width, lanes) numbers for each of the 16.
template <class T>
inline void convolve_patches(const Maps& maps, int64_t first, int64_t last, const T* x,
                             int64_t columns, const T* weights, int64_t width, T* out, int64_t ld,
                             Claim& claim) {
  const int64_t count = last - first, padded = round_up(width, kLanes<T>);
  // One more cache line: with a power of two all 16 would share a cache set.
  const int64_t line = 64 / sizeof(T);
  const int64_t input_stride = round_up(kPatchesAtOnce * columns, line) + line;
  const int64_t sum_stride = round_up(kPatchesAtOnce * padded, line) + line;
  T* inputs = scratch<T>(2, kPatchSize * input_stride + columns);
  T* sums = scratch<T>(4, kPatchSize * sum_stride);
  T* zeros = inputs + kPatchSize * input_stride;
  std::memset(zeros, 0, columns * sizeof(T));
  for (int64_t p = 0; p < count; p++) {
    transform_input<T>(maps, Patch(maps, first + p), x, zeros, columns, inputs + p * columns,
                       input_stride);
  }
  for (int i = 0; i < kPatchSize; i++) {
    for (int64_t n = 0; n < padded; n += kPanel<T>) {
      const int64_t some = smaller<int64_t>(kPanel<T>, padded - n);
      const T* panel = weights + (i * padded + n) * columns;
      product<T>(count, {inputs + i * input_stride, columns, columns}, panel, some,
                 sums + i * sum_stride + n, padded, false, nullptr, panel + some * columns);
    }
  }
  if (!claim()) return;
  for (int64_t p = 0; p < count; p++) {
    transform_output<T>(maps, Patch(maps, first + p), sums + p * padded, sum_stride, width, out, ld);
  }
}

}  // namespace
