// The 3x3 convolution of inference by Winograd's patches.

#pragma once

#include "winograd.h"

namespace {

// Where the pixels of the window around a patch are; those outside of the image are zero.
template <class Form, class T>
inline void find_window(const Maps& maps, const Patch& patch, const T* x, const T* zeros,
                        int64_t columns, const T* (&pixel)[Form::kWindow][Form::kWindow]) {
  for (int r = 0; r < Form::kWindow; r++) {
    for (int c = 0; c < Form::kWindow; c++) {
      const int64_t row = patch.row + r - 1, column = patch.column + c - 1;
      const bool inside = row >= 0 && row < maps.height && column >= 0 && column < maps.width;
      pixel[r][c] =
          inside ? x + ((patch.image * maps.height + row) * maps.width + column) * columns : zeros;
    }
  }
}

// The transforms of the window around a patch, `stride` numbers apart.
template <class Form, class T>
inline void transform_input(const Maps& maps, const Patch& patch, const T* x, const T* zeros,
                            int64_t columns, T* out, int64_t stride) {
  const T* pixel[Form::kWindow][Form::kWindow];
  find_window<Form>(maps, patch, x, zeros, columns, pixel);
  for (int64_t n = 0; n < columns; n += kLanes<T>) {
    Form::transform([&](int r, int c) { return load<T>(pixel[r][c] + n, kLanes<T>); },
                    [&](int i, Vec<T> v) { store<T>(out + i * stride + n, v, kLanes<T>); });
  }
}

// Writes the pixels of a patch, times `unit`, to `out`, `ld` numbers apart, `width` columns each;
// number(n, i) is a register of the products' sums, from column n on.
template <class Form, class T, class Number>
inline void write_patch(const Maps& maps, const Patch& patch, int64_t width, Number number,
                        Real<T> unit, T* out, int64_t ld) {
  constexpr int kPixels = Form::kPixels;
  T* corner = out + ((patch.image * maps.height + patch.row) * maps.width + patch.column) * ld;
  const int64_t rows = smaller<int64_t>(kPixels, maps.height - patch.row);
  const int64_t columns = smaller<int64_t>(kPixels, maps.width - patch.column);
  for (int64_t n = 0; n < width; n += kLanes<T>) {
    const int lanes = smaller<int64_t>(kLanes<T>, width - n);
    Vec<T> pixels[kPixels][kPixels];
    Form::sums([&](int i) __attribute__((always_inline)) { return number(n, i); }, pixels);
    for (int64_t r = 0; r < rows; r++) {
      T* to = corner + r * maps.width * ld + n;
      for (int64_t c = 0; c < columns; c++) store<T>(to + c * ld, pixels[r][c] * unit, lanes);
    }
  }
}

// The patches first .. last - 1, at most Form::kAtOnce. x has `columns` and the packed weights
// `columns` x round_up(width, lanes) numbers for each of the products. Only bf16 has units
// (whole_patches.h), as in pack_patches.
template <class Form, class T>
inline void convolve_patches(const Maps& maps, int64_t first, int64_t last, const T* x,
                             int64_t columns, const T* weights, const T* /* units */, int64_t width,
                             T* out, int64_t ld, Claim& claim) {
  const int64_t count = last - first, padded = round_up(width, kLanes<T>);
  const int64_t input_stride = patch_stride<T>(Form::kAtOnce, columns);
  const int64_t sum_stride = patch_stride<T>(Form::kAtOnce, padded);
  T* inputs = scratch<T>(2, Form::kNumbers * input_stride + columns);
  T* sums = scratch<T>(4, Form::kNumbers * sum_stride);
  T* zeros = inputs + Form::kNumbers * input_stride;
  std::memset(zeros, 0, columns * sizeof(T));
  const auto patch = [&](int64_t p) { return Patch(maps, first + p, Form::kPixels); };
  for (int64_t p = 0; p < count; p++) {
    transform_input<Form>(maps, patch(p), x, zeros, columns, inputs + p * columns, input_stride);
  }
  multiply_patches<Form>(count, inputs, input_stride, columns, weights, padded, 0, padded, sums,
                         sum_stride);
  if (!claim()) return;
  for (int64_t p = 0; p < count; p++) {
    const auto number = [&](int64_t n, int i) __attribute__((always_inline)) {
      return load<T>(sums + p * padded + n + i * sum_stride, kLanes<T>);
    };
    write_patch<Form>(maps, patch(p), width, number, T(1), out, ld);
  }
}

template <class Form, class T, class Value>
inline void pack_patches(T* panels, T* /* units */, int64_t columns, int64_t width, int threads,
                         Value value) {
  pack_patches<Form>(panels, columns, width, threads, value);
}

}  // namespace
