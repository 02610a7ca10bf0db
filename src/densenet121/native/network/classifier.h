// The classifier in inference, y = x W^T + b. Each logit is the sum of its products in an order of its
// own, whatever the other images and however many threads: an image has the same logits in any batch.

#pragma once

#include "parallel.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct ClassifierArguments {
  int64_t images, columns, classes, threads;
  void *x, *weight, *bias, *y;  // rows without gaps; bias may be null
};

constexpr int kImagesAtOnce = 4;  // a row of the weights is loaded once for as many

// The products of a row of the weights with `kRows` images. All instances must add up alike.
template <int kRows, class T>
inline void dot_products(const T* x, const T* weight, int64_t columns, T* sums) {
  Vec<T> even[kRows]{}, odd[kRows]{};
  int64_t c = 0;
  for (; c + 2 * kLanes<T> <= columns; c += 2 * kLanes<T>) {
    const Vec<T> w = load<T>(weight + c, kLanes<T>), v = load<T>(weight + c + kLanes<T>, kLanes<T>);
    for (int r = 0; r < kRows; r++) {
      even[r] += load<T>(x + r * columns + c, kLanes<T>) * w;
      odd[r] += load<T>(x + r * columns + c + kLanes<T>, kLanes<T>) * v;
    }
  }
  for (; c < columns; c += kLanes<T>) {
    const int n = smaller<int64_t>(kLanes<T>, columns - c);
    const Vec<T> w = load<T>(weight + c, n);
    for (int r = 0; r < kRows; r++) even[r] += load<T>(x + r * columns + c, n) * w;
  }
  for (int r = 0; r < kRows; r++) {
    const Vec<T> both = even[r] + odd[r];
    T sum = 0;
    for (int lane = 0; lane < kLanes<T>; lane++) sum += both[lane];
    sums[r] = sum;
  }
}

template <class T>
void classifier_run(const ClassifierArguments& g) {
  const T *x = static_cast<T*>(g.x), *weight = static_cast<T*>(g.weight);
  const T* bias = static_cast<T*>(g.bias);
  T* y = static_cast<T*>(g.y);
  // Waiting for a thread may take longer than the products that it would take over.
  const int64_t useful = 1 + g.images * g.classes * g.columns / 500000;
  const int threads = static_cast<int>(smaller(g.threads, useful));
  for_each_in_parallel(g.classes, threads, [&](int64_t k) {
    const T* row = weight + k * g.columns;
    const T shift = bias ? bias[k] : T(0);
    T sums[kImagesAtOnce];
    for (int64_t i = 0; i < g.images; i += kImagesAtOnce) {
      const int64_t some = smaller<int64_t>(kImagesAtOnce, g.images - i);
      if (some == kImagesAtOnce) {
        dot_products<kImagesAtOnce>(x + i * g.columns, row, g.columns, sums);
      } else {
        for (int64_t r = 0; r < some; r++) {
          dot_products<1>(x + (i + r) * g.columns, row, g.columns, sums + r);
        }
      }
      for (int64_t r = 0; r < some; r++) y[(i + r) * g.classes + k] = sums[r] + shift;
    }
  });
}

}  // namespace
