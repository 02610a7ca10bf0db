// Inference of a transition, for the types of inference_layers.h: norm, relu, pooling, 1x1
// convolution in one pass.

#pragma once

#include "inference_layers.h"
#include "transition.h"

namespace {

// Some output pixels of the 2 x 2 windows of a transition in x.
template <class T>
struct Pooling {
  using R = Real<T>;
  const TransitionArguments& t;
  Maps maps;  // of the input
  const T *x, *weights;
  const R* norms;
  T* y;
  int64_t ld;  // of y
  bool averages;

  int64_t outputs() const { return maps.images * (maps.height / 2) * (maps.width / 2); }

  // relu(norm(x)) of the pixel at `offset` from the first of each window, or of a window's average,
  // from summand k on.
  void normalise(Range range, const int64_t* corners, int64_t offset, int64_t k, int64_t depth,
                 T* a) const {
    const int64_t padded = round_up(t.columns, kLanes<T>);
    const int64_t offsets[4] = {0, 1, maps.width, maps.width + 1};
    for (int64_t r = 0; r < range.end - range.begin; r++) {
      const T* corner = x + corners[r] * t.columns + k;
      for (int64_t c = 0; c < depth; c += kLanes<T>) {
        const Vec<T> scale = load<R>(norms + k + c, kLanes<T>);
        const Vec<T> shift = load<R>(norms + padded + k + c, kLanes<T>);
        const int n = smaller<int64_t>(kLanes<T>, t.columns - k - c);
        Vec<T> sum{};
        if (averages) {
          for (int64_t o : offsets) sum += relu(load<T>(corner + o * t.columns + c, n) * scale + shift);
          sum *= R(0.25);
        } else {
          sum = relu(load<T>(corner + offsets[offset] * t.columns + c, n) * scale + shift);
        }
        store<T>(a + r * kSkewedNumbers<T> + c, sum, kLanes<T>);
      }
    }
  }

  int64_t panels() const { return (t.output_columns + kPanel<T> - 1) / kPanel<T>; }

  // Number `part` of `parts` ranges of the columns.
  void run(Range range, int part, int parts, Claim& claim) const {
    const int64_t depth = round_up(t.columns, kLanes<T>), rows = range.end - range.begin;
    const Range mine = share(panels(), part, parts);
    const int64_t first = mine.begin * kPanel<T>;
    const int64_t columns = smaller(mine.end * kPanel<T>, t.output_columns) - first;
    const int64_t width = round_up(columns, kLanes<T>);
    T* a = scratch<T>(0, kRowsAtOnce * kSkewedNumbers<T>);
    R* c = scratch<R>(1, 2 * kRowsAtOnce * width);
    R* best = c + kRowsAtOnce * width;
    int64_t corners[kRowsAtOnce];
    for (int64_t r = 0; r < rows; r++) {
      const int64_t pixel = range.begin + r, w = maps.width / 2, h = maps.height / 2;
      corners[r] =
          (pixel / w / h * maps.height + pixel / w % h * 2) * maps.width + pixel % w * 2;
    }
    for (int64_t offset = 0; offset < (averages ? 1 : 4); offset++) {
      for (int64_t k = 0; k < depth; k += kNumbersAtOnce<T>) {
        const int64_t some = smaller<int64_t>(kNumbersAtOnce<T>, depth - k);
        normalise(range, corners, offset, k, some, a);
        multiply_factors<T>(rows, a, k, some, weights + first * depth, depth, width,
                            ByRows<R>{c, width}, nullptr);
      }
      for (int64_t i = 0; i < rows * width; i += kLanes<T>) {
        const Vec<T> sums = load<R>(c + i, kLanes<T>);
        const Vec<T> before = offset ? load<R>(best + i, kLanes<T>) : sums;
        // nan is larger than everything, as in torch
        store<R>(best + i, (sums > before) | (sums != sums) ? sums : before, kLanes<T>);
      }
    }
    if (!claim()) return;
    for (int64_t r = 0; r < rows; r++) {
      store_numbers<T>(best + r * width, columns, y + (range.begin + r) * ld + first);
    }
  }
};

}  // namespace
