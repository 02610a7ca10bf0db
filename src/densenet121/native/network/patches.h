// The 3x3 convolution of inference by Winograd's algorithm, for patches of 2 x 2 or 4 x 4 pixels.

#pragma once

#include "winograd.h"

namespace {

// F(2x2, 3x3): 16 products for 4 pixels.
template <class T>
struct PatchesOfTwo : TwoByTwo {
  static constexpr int kPixels = 2, kWindow = 4, kAtOnce = kPatchesAtOnce;

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    transform_some<Vec<T>>(pixel, write);
  }

  static void sums(const T* from, int64_t stride, Vec<T> (&out)[2][2]) {
    transform_sums<T>(from, stride, out);
  }
};

// F(4x4, 3x3): 36 products for 16 pixels. A row or column is a polynomial's values at 0, a, -a, b, -b
// and infinity. With a = sqrt(2) and b = 1 / a the largest factor is 2.8, where the whole numbers of
// Lavin and Gray's section 4.3 (a = 1, b = 2) have 8: the sums are half as far from the exact ones.
template <class T>
struct PatchesOfFour {
  static constexpr int kPixels = 4, kWindow = 6, kNumbers = 36, kAtOnce = 12;
  static constexpr double kA = 1.4142135623730951, kB = 0.7071067811865476;

  template <class R, class Out>
  static void six_of_weights(R g0, R g1, R g2, Out out) {
    const R at_a = (g0 + g2 * 2.0) * (1.0 / 6), odd_a = g1 * (kA / 6);
    const R at_b = (g0 + g2 * 0.5) * (-1 / 1.5), odd_b = g1 * (-kB / 1.5);
    out(0, g0);
    out(1, at_a + odd_a);
    out(2, at_a - odd_a);
    out(3, at_b + odd_b);
    out(4, at_b - odd_b);
    out(5, g2);
  }

  template <class R, class Window>
  static void weight(Window g, R* out) {
    R rows[6][3];
    for (int c = 0; c < 3; c++) {
      six_of_weights<R>(g(0, c), g(1, c), g(2, c), [&](int r, R v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 6; r++) {
      six_of_weights<R>(rows[r][0], rows[r][1], rows[r][2],
                        [&](int c, R v) { out[6 * r + c] = v; });
    }
  }

  template <class Out>
  static void six(const Vec<T> (&d)[6], Out out) {
    const T a = kA, b = kB, half = 0.5, two = 2, middle = 2.5;
    const Vec<T> even_a = d[4] - d[2] * half, odd_a = d[3] - d[1] * half;
    const Vec<T> even_b = d[4] - d[2] * two, odd_b = d[3] - d[1] * two;
    out(0, (d[0] + d[4]) - d[2] * middle);
    out(1, even_a + odd_a * a);
    out(2, even_a - odd_a * a);
    out(3, even_b + odd_b * b);
    out(4, even_b - odd_b * b);
    out(5, (d[1] + d[5]) - d[3] * middle);
  }

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    Vec<T> rows[6][6];
    for (int c = 0; c < 6; c++) {
      const Vec<T> d[6] = {pixel(0, c), pixel(1, c), pixel(2, c),
                           pixel(3, c), pixel(4, c), pixel(5, c)};
      six(d, [&](int r, Vec<T> v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 6; r++) six(rows[r], [&](int c, Vec<T> v) { write(6 * r + c, v); });
  }

  template <class Out>
  static void four(const Vec<T> (&m)[6], Out out) {
    const T a = kA, b = kB, half = 0.5, two = 2;
    const Vec<T> even_a = m[1] + m[2], odd_a = (m[1] - m[2]) * a;
    const Vec<T> even_b = m[3] + m[4], odd_b = (m[3] - m[4]) * b;
    out(0, m[0] + (even_a + even_b));
    out(1, odd_a + odd_b);
    out(2, even_a * two + even_b * half);
    out(3, (odd_a * two + odd_b * half) + m[5]);
  }

  static void sums(const T* from, int64_t stride, Vec<T> (&out)[4][4]) {
    Vec<T> rows[4][6];
    for (int c = 0; c < 6; c++) {
      Vec<T> m[6];
      for (int r = 0; r < 6; r++) m[r] = load<T>(from + (6 * r + c) * stride, kLanes<T>);
      four(m, [&](int r, Vec<T> v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 4; r++) four(rows[r], [&](int c, Vec<T> v) { out[r][c] = v; });
  }
};

// The transforms of the window around a patch, `stride` numbers apart; pixels outside of the image
// are zero.
template <class T, class Form>
inline void transform_input(const Maps& maps, const Patch& patch, const T* x, const T* zeros,
                            int64_t columns, T* out, int64_t stride) {
  const T* pixel[Form::kWindow][Form::kWindow];
  for (int r = 0; r < Form::kWindow; r++) {
    for (int c = 0; c < Form::kWindow; c++) {
      const int64_t row = patch.row + r - 1, column = patch.column + c - 1;
      const bool inside = row >= 0 && row < maps.height && column >= 0 && column < maps.width;
      pixel[r][c] =
          inside ? x + ((patch.image * maps.height + row) * maps.width + column) * columns : zeros;
    }
  }
  for (int64_t n = 0; n < columns; n += kLanes<T>) {
    Form::transform([&](int r, int c) { return load<T>(pixel[r][c] + n, kLanes<T>); },
                    [&](int i, Vec<T> v) { store<T>(out + i * stride + n, v, kLanes<T>); });
  }
}

// Writes the pixels of a patch to `out`, `ld` numbers apart, `width` columns each.
template <class T, class Form>
inline void transform_output(const Maps& maps, const Patch& patch, const T* sums, int64_t stride,
                             int64_t width, T* out, int64_t ld) {
  constexpr int kPixels = Form::kPixels;
  T* corner = out + ((patch.image * maps.height + patch.row) * maps.width + patch.column) * ld;
  const int64_t rows = smaller<int64_t>(kPixels, maps.height - patch.row);
  const int64_t columns = smaller<int64_t>(kPixels, maps.width - patch.column);
  for (int64_t n = 0; n < width; n += kLanes<T>) {
    const int lanes = smaller<int64_t>(kLanes<T>, width - n);
    Vec<T> pixels[kPixels][kPixels];
    Form::sums(sums + n, stride, pixels);
    for (int64_t r = 0; r < rows; r++) {
      T* to = corner + r * maps.width * ld + n;
      for (int64_t c = 0; c < columns; c++) store<T>(to + c * ld, pixels[r][c], lanes);
    }
  }
}

// The patches first .. last - 1, at most Form::kAtOnce. x has `columns` and the packed weights
// `columns` x round_up(width, lanes) numbers for each of the products.
template <class T, class Form>
inline void convolve_patches(const Maps& maps, int64_t first, int64_t last, const T* x,
                             int64_t columns, const T* weights, int64_t width, T* out, int64_t ld,
                             Claim& claim) {
  const int64_t count = last - first, padded = round_up(width, kLanes<T>);
  const int64_t input_stride = patch_stride<T>(Form::kAtOnce, columns);
  const int64_t sum_stride = patch_stride<T>(Form::kAtOnce, padded);
  T* inputs = scratch<T>(2, Form::kNumbers * input_stride + columns);
  T* sums = scratch<T>(4, Form::kNumbers * sum_stride);
  T* zeros = inputs + Form::kNumbers * input_stride;
  std::memset(zeros, 0, columns * sizeof(T));
  const auto patch = [&](int64_t p) { return Patch(maps, first + p, Form::kPixels); };
  for (int64_t p = 0; p < count; p++) {
    transform_input<T, Form>(maps, patch(p), x, zeros, columns, inputs + p * columns, input_stride);
  }
  multiply_patches<T, Form::kNumbers>(count, inputs, input_stride, columns, weights, padded, 0,
                                      padded, sums, sum_stride);
  if (!claim()) return;
  for (int64_t p = 0; p < count; p++) {
    transform_output<T, Form>(maps, patch(p), sums + p * padded, sum_stride, width, out, ld);
  }
}

}  // namespace
