// The 3x3 convolution of inference by Winograd's patches.

#pragma once

#include "winograd.h"

namespace {

// The window around a patch of a bottleneck, which is by panels (product.h). Pixels outside of the image
// are zero.
template <class Form, class R>
struct PatchWindow {
  const R* x;
  int64_t panel_numbers;
  int64_t row[Form::kWindow];  // first number in a panel
  bool inside[Form::kWindow];  // of the rows
  int first, last;             // columns that are inside

  PatchWindow(const Maps& maps, const Patch& patch, const R* x)
      : x(x), panel_numbers(maps.pixels() * kPanel<R>) {
    for (int r = 0; r < Form::kWindow; r++) {
      const int64_t at = patch.row + r - 1, line = patch.image * maps.height + at;
      row[r] = (line * maps.width + patch.column - 1) * kPanel<R>;
      inside[r] = at >= 0 && at < maps.height;
    }
    first = patch.column ? 0 : 1;
    last = smaller<int64_t>(Form::kWindow, maps.width - patch.column + 1);
  }

  // Of a register of channels, from n on.
  template <class Write>
  void transform(int64_t n, Write write) const {
    static const R kZeros[Form::kWindow * kPanel<R>] = {};
    const R* panel = x + n / kPanel<R> * panel_numbers + n % kPanel<R>;
    const R* from[Form::kWindow];
    for (int r = 0; r < Form::kWindow; r++) from[r] = inside[r] ? panel + row[r] : kZeros;
    if (first == 0 && last == Form::kWindow) {
      Form::transform(
          [&](int r, int c) __attribute__((always_inline)) {
            return load<R>(from[r] + c * kPanel<R>, kLanes<R>);
          },
          write);
      return;
    }
    int lanes[Form::kWindow];
    for (int c = 0; c < Form::kWindow; c++) lanes[c] = c >= first && c < last ? kLanes<R> : 0;
    Form::transform(
        [&](int r, int c) __attribute__((always_inline)) {
          return load<R>(from[r] + c * kPanel<R>, lanes[c]);
        },
        write);
  }
};

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

// The patches first .. last - 1, at most Form::kAtOnce. x has `columns`, by panels, and the packed weights
// `columns` x round_up(width, lanes) numbers for each of the products. Only bf16 has units
// (whole_patches.h), as in pack_patches.
template <class Form, class T>
inline void convolve_patches(const Maps& maps, int64_t first, int64_t last, const T* x,
                             int64_t columns, const T* weights, const T* /* units */, int64_t width,
                             T* out, int64_t ld, Claim& claim) {
  const int64_t count = last - first, padded = round_up(width, kLanes<T>);
  const int64_t input_stride = patch_stride<T>(Form::kAtOnce, columns);
  const int64_t sum_stride = patch_stride<T>(Form::kAtOnce, padded);
  T* inputs = scratch<T>(2, Form::kNumbers * input_stride);
  T* sums = scratch<T>(4, Form::kNumbers * sum_stride);
  Patch patch(maps, first, Form::kPixels);
  for (int64_t p = 0; p < count; p++, patch.next(maps, Form::kPixels)) {
    const PatchWindow<Form, T> window(maps, patch, x);
    for (int64_t n = 0; n < columns; n += kLanes<T>) {
      T* to = inputs + p * columns + n;
      window.transform(n, [&](int i, Vec<T> v) { store<T>(to + i * input_stride, v, kLanes<T>); });
    }
  }
  multiply_patches<Form>(count, inputs, input_stride, columns, weights, padded, 0, padded, sums,
                         sum_stride);
  if (!claim()) return;
  patch = Patch(maps, first, Form::kPixels);
  for (int64_t p = 0; p < count; p++, patch.next(maps, Form::kPixels)) {
    const auto number = [&](int64_t n, int i) __attribute__((always_inline)) {
      return load<T>(sums + p * padded + n + i * sum_stride, kLanes<T>);
    };
    write_patch<Form>(maps, patch, width, number, T(1), out, ld);
  }
}

template <class Form, class T, class Value>
inline void pack_patches(T* panels, T* /* units */, int64_t columns, int64_t width, int threads,
                         Value value) {
  pack_patches<Form>(panels, columns, width, threads, value);
}

}  // namespace
