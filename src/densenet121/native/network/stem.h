// The layers after conv0: norm, relu and the maximum of 3 x 3 pixels with stride 2, forward and
// backward.
//
// Only the position of the largest pixel of each window is stored, not the normalised images; the
// backward needs no more.

#pragma once

#include "transition.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct StemArguments {
  int64_t images, height, width, columns, out_height, out_width, threads;
  int64_t pad_top, pad_left;  // padding with -inf; beyond the other sides it is -inf too
  int64_t frozen;             // the statistics are the running ones
  void *x, *y, *winner, *gamma, *beta, *mean, *variance;
  void *grad_y, *grad_x, *grad_gamma, *grad_beta;
  double eps;

  int64_t pixels() const { return images * height * width; }
};

constexpr uint8_t kNoWinner = 9;  // nothing in the window is above zero: no gradient passes relu

template <class T>
inline Vec<T> load_winner(const uint8_t* p, int n) {
  Vec<T> v{};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}
template <class T>
inline void store_winner(uint8_t* p, Vec<T> v, int n) {
  for (int i = 0; i < n; i++) p[i] = static_cast<uint8_t>(v[i]);
}
#if defined(__AVX512BF16__)
template <>
inline Vec<bf16> load_winner<bf16>(const uint8_t* p, int n) {
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p)));
}
template <>
inline void store_winner<bf16>(uint8_t* p, Vec<bf16> v, int n) {
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  _mm_mask_storeu_epi8(p, mask, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
#endif

// The part of a 3 x 3 window inside the image.
struct Window {
  int64_t top, left;  // of the window; may be outside the image
  Range rows, columns;
  Window(const StemArguments& g, int64_t y, int64_t x)
      : top(2 * y - g.pad_top),
        left(2 * x - g.pad_left),
        rows{top < 0 ? -top : 0, smaller<int64_t>(3, g.height - top)},
        columns{left < 0 ? -left : 0, smaller<int64_t>(3, g.width - left)} {}
};

template <class T>
void stem_forward(const StemArguments& g) {
  using R = Real<T>;
  const T* x = static_cast<T*>(g.x);
  if (!g.frozen) take_statistics<T>(x, g.pixels(), g.columns, g.threads, g.mean, g.variance);
  const Affine<R> affine(static_cast<R*>(g.gamma), static_cast<R*>(g.beta),
                         static_cast<R*>(g.mean), static_cast<R*>(g.variance), g.eps, g.columns);
  uint8_t* winner = static_cast<uint8_t*>(g.winner);
  for_each_in_parallel(g.images * g.out_height, g.threads, [&](int64_t row) {
    const T* image = x + row / g.out_height * g.height * g.width * g.columns;
    for (int64_t column = 0; column < g.out_width; column++) {
      const Window window(g, row % g.out_height, column);
      const int64_t place = (row * g.out_width + column) * g.columns;
      for (int64_t c = 0; c < g.columns; c += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, g.columns - c);
        const Vec<T> s = load<R>(affine.scale.data() + c, kLanes<T>);
        const Vec<T> t = load<R>(affine.shift.data() + c, kLanes<T>);
        Vec<T> best{}, which = broadcast<T>(kNoWinner);
        for (int64_t i = window.rows.begin; i < window.rows.end; i++) {
          for (int64_t j = window.columns.begin; j < window.columns.end; j++) {
            const int64_t pixel = (window.top + i) * g.width + window.left + j;
            const Vec<T> u = load<T>(image + pixel * g.columns + c, n) * s + t;
            // the first of equals; nan is larger than everything, as in torch
            const auto larger = (u > best) | (u != u);
            best = larger ? u : best;
            which = larger ? broadcast<T>(3 * i + j) : which;
          }
        }
        store<T>(static_cast<T*>(g.y) + place + c, best, n);
        if (winner) store_winner<T>(winner + place + c, which, n);
      }
    }
  });
}

template <class T>
void stem_backward(const StemArguments& g) {
  using R = Real<T>;
  const T* x = static_cast<T*>(g.x);
  const T* grad_y = static_cast<T*>(g.grad_y);
  const uint8_t* winner = static_cast<uint8_t*>(g.winner);
  const R* mean = static_cast<R*>(g.mean);
  const Affine<R> affine(static_cast<R*>(g.gamma), static_cast<R*>(g.beta), mean,
                         static_cast<R*>(g.variance), g.eps, g.columns);
  GradientSums<R> sums(g.images * g.out_height, g.columns);
  for_each_in_parallel(g.images * g.out_height, g.threads, [&](int64_t row) {
    const T* image = x + row / g.out_height * g.height * g.width * g.columns;
    for (int64_t c = 0; c < g.columns; c += kLanes<T>) {
      const int n = smaller<int64_t>(kLanes<T>, g.columns - c);
      const Vec<T> m = load<R>(mean + c, n);
      Vec<T> plain{}, centred{};
      for (int64_t column = 0; column < g.out_width; column++) {
        const Window window(g, row % g.out_height, column);
        const int64_t place = (row * g.out_width + column) * g.columns + c;
        const Vec<T> which = load_winner<T>(winner + place, n), d = load<T>(grad_y + place, n);
        for (int64_t i = window.rows.begin; i < window.rows.end; i++) {
          for (int64_t j = window.columns.begin; j < window.columns.end; j++) {
            const int64_t pixel = (window.top + i) * g.width + window.left + j;
            const Vec<T> grad = which == broadcast<T>(3 * i + j) ? d : Vec<T>{};
            plain += grad;
            centred += grad * (load<T>(image + pixel * g.columns + c, n) - m);
          }
        }
      }
      store<R>(sums.plain(row) + c, plain, kLanes<T>);
      store<R>(sums.centred(row) + c, centred, kLanes<T>);
    }
  });
  const Correction<R> k =
      finish_norm<R>(sums, affine, mean, static_cast<R*>(g.variance), g.eps, g.frozen, g.pixels(),
                     g.columns, g.grad_gamma, g.grad_beta);
  if (!g.grad_x) return;
  for_each_in_parallel(g.images * g.height, g.threads, [&](int64_t row) {
    const int64_t image = row / g.height, y = row % g.height;
    // the windows 2 * out - pad .. + 2 that include this row; the same for columns below
    const int64_t out_first = y + g.pad_top < 2 ? 0 : (y + g.pad_top - 1) / 2;
    const int64_t out_last = smaller((y + g.pad_top) / 2, g.out_height - 1);
    for (int64_t column = 0; column < g.width; column++) {
      const int64_t left = column + g.pad_left;
      const int64_t first = left < 2 ? 0 : (left - 1) / 2;
      const int64_t last = smaller(left / 2, g.out_width - 1);
      const int64_t pixel = (row * g.width + column) * g.columns;
      for (int64_t c = 0; c < g.columns; c += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, g.columns - c);
        Vec<T> grad{};
        for (int64_t i = out_first; i <= out_last; i++) {
          for (int64_t j = first; j <= last; j++) {
            const int64_t place =
                ((image * g.out_height + i) * g.out_width + j) * g.columns + c;
            const int64_t tap = (y + g.pad_top - 2 * i) * 3 + left - 2 * j;
            grad += load_winner<T>(winner + place, n) == broadcast<T>(tap) ? load<T>(grad_y + place, n)
                                                                          : Vec<T>{};
          }
        }
        const Vec<T> d = load<R>(k.scale.data() + c, kLanes<T>) * grad +
                         load<R>(k.constant.data() + c, kLanes<T>) +
                         load<R>(k.slope.data() + c, kLanes<T>) * load<T>(x + pixel + c, n);
        store<T>(static_cast<T*>(g.grad_x) + pixel + c, d, n);
      }
    }
  });
}

}  // namespace
