// The products of training's patches: the transforms of a strip's windows, times the packed weights of a
// 3x3 convolution. T is the type of the packed weights (pack_patches): those of bf16 are whole numbers
// (whole_patches.h).

#pragma once

#include "strip.h"
#include "whole_patches.h"

namespace {

// The transformed weights of a convolution from `columns` to `width` channels, both padded.
template <class Form, class T>
struct PackedPatches {
  int64_t columns, width;
  T* panels;
  std::vector<Real<T>> units;

  // value(i, o, row, column) is one weight. The memory of the panels is that of slot 6.
  template <class Value>
  PackedPatches(int64_t from, int64_t to, int threads, Value value)
      : columns(round_up(from, kLanes<T>)),
        width(round_up(to, kLanes<T>)),
        panels(scratch<T>(6, Form::kNumbers * columns * width)),
        units(std::is_same<T, Real<T>>::value ? 0 : Form::kNumbers * width) {
    pack_patches<Form>(panels, units.data(), from, to, threads, value);
  }
};

// The products of up to `most` patches at a time, of up to `at_once` columns of their sums; for one
// thread, in slots 2, 4 and, of bf16, 5.
template <class Form, class T>
struct PatchProducts {
  const PackedPatches<Form, T>& weights;
  int64_t input_stride, sum_stride;
  T *inputs, *sums;

  PatchProducts(const PackedPatches<Form, T>& weights, int64_t most, int64_t at_once)
      : weights(weights),
        input_stride(patch_stride<T>(most, weights.columns)),
        sum_stride(patch_stride<T>(most, at_once)),
        inputs(scratch<T>(2, Form::kNumbers * input_stride)),
        sums(scratch<T>(4, Form::kNumbers * sum_stride)) {}

  void transform(const Strip& strip, const Place* places, int64_t count, const T* frame) {
    const int64_t columns = weights.columns;
    transform_windows<Form>(strip, places, count, frame, columns, columns, inputs, input_stride);
  }
  // The sums of `some` columns from `first` on.
  void multiply(int64_t count, int64_t first, int64_t some) {
    multiply_patches<Form>(count, inputs, input_stride, weights.columns, weights.panels,
                           weights.width, first, some, sums, sum_stride);
  }
  // The registers of patch p's sums, n columns after `first`, in units of unit(p).
  auto numbers(int64_t p, int64_t /* first */, int64_t some, int64_t n) const {
    return numbers_at(sums + p * some + n, sum_stride);
  }
  T unit(int64_t) const { return 1; }
};

#if defined(DENSENET121_PAIRS)

template <class Form>
struct PatchProducts<Form, bf16> {
  const PackedPatches<Form, bf16>& weights;
  int64_t input_stride, sum_stride;
  float* wide;
  int16_t* inputs;
  int32_t* sums;
  float units[Form::kInBackward];

  PatchProducts(const PackedPatches<Form, bf16>& weights, int64_t most, int64_t at_once)
      : weights(weights),
        input_stride(patch_stride<int16_t>(most, weights.columns)),
        sum_stride(patch_stride<int32_t>(most, at_once)),
        wide(scratch<float>(5, wide_numbers<Form>(weights.columns))),
        inputs(scratch<int16_t>(2, Form::kNumbers * input_stride)),
        sums(scratch<int32_t>(4, Form::kNumbers * sum_stride)) {
    static_assert(Form::kInForward <= Form::kInBackward, "units are of the longer part");
  }

  void transform(const Strip& strip, const Place* places, int64_t count, const float* frame) {
    const int64_t columns = weights.columns, row_ld = strip.pitch() * columns;
    for (int64_t p = 0; p < count; p++) {
      const float* corner = frame + places[p].window * columns;
      const auto transform = [&](int64_t n, auto write) __attribute__((always_inline)) {
        Form::transform(
            [&](int r, int c) __attribute__((always_inline)) {
              return load<float>(corner + r * row_ld + c * columns + n, kLanes<float>);
            },
            write);
      };
      units[p] = transform_whole<Form>(columns, transform, wide, inputs + p * columns, input_stride);
    }
  }
  void multiply(int64_t count, int64_t first, int64_t some) {
    multiply_patches<Form>(count, reinterpret_cast<const VnniPair*>(inputs), input_stride / 2,
                           weights.columns / 2, reinterpret_cast<const VnniPair*>(weights.panels),
                           weights.width, first, some, sums, sum_stride);
  }
  auto numbers(int64_t p, int64_t first, int64_t some, int64_t n) const {
    const int32_t* from = sums + p * some + n;
    const float* of_columns = weights.units.data() + first + n;
    return [=](int i) __attribute__((always_inline)) {
      return sums_of_whole(from + i * sum_stride, of_columns + i * weights.width);
    };
  }
  float unit(int64_t p) const { return units[p]; }
};

#endif

}  // namespace
