// What batch norm adds to a gradient.
//
// The backward of batch norm needs two sums over all pixels before it can compute the gradient of
// any one: with g the gradient of its output, dx = scale * g - mean(scale * g) - (x - mean) *
// slope. Therefore the gradients are written without that correction, the sums are computed at the
// same time, and the code that reads the gradients applies the correction, which has the form
// constant + slope * x for each channel.

#pragma once

#include "pack.h"

namespace {

// dx = scale * g + constant + slope * x, padded with zeros to a multiple of 32 columns.
template <class R>
struct Correction {
  std::vector<R> scale, constant, slope;
  explicit Correction(int64_t columns)
      : scale(round_up(columns, kBlock)), constant(scale.size()), slope(scale.size()) {}
};

// Sums over pixels of g and of g * (x - mean), for each part of the pixels.
template <class R>
struct GradientSums {
  int64_t parts, columns;
  std::vector<R> numbers;
  GradientSums(int64_t parts, int64_t columns)
      : parts(parts), columns(round_up(columns, kBlock)), numbers(parts * this->columns * 2) {}
  R* plain(int64_t part) { return numbers.data() + part * columns * 2; }
  R* centred(int64_t part) { return plain(part) + columns; }
  void total(int64_t c, double* g, double* gx) {
    *g = *gx = 0;
    for (int64_t p = 0; p < parts; p++) {
      *g += plain(p)[c];
      *gx += centred(p)[c];
    }
  }
};

// Applies the correction of batch norm to some pixels: out = gradient + constant + slope * x, and
// zeros from `columns` to `padded`, which is less than a register further. Fetches the pixels that are
// kAhead further: few columns of long rows, which the processor does not foresee.
template <class T, class Out>
inline void corrected_rows(const Correction<Real<T>>& k, const T* x, int64_t x_ld,
                           const T* gradient, int64_t gradient_ld, int64_t rows, int64_t columns,
                           int64_t padded, Out* out, int64_t out_ld) {
  using R = Real<T>;
  constexpr int64_t kAhead = 16;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const int n = smaller<int64_t>(kLanes<T>, columns - c);
      const T *value = x + r * x_ld + c, *grad = gradient + r * gradient_ld + c;
      if (c % kLine<T> == 0) {
        __builtin_prefetch(value + kAhead * x_ld);
        __builtin_prefetch(grad + kAhead * gradient_ld);
      }
      const Vec<T> d = load<T>(grad, n) + load<R>(k.constant.data() + c, kLanes<T>) +
                       load<R>(k.slope.data() + c, kLanes<T>) * load<T>(value, n);
      store<Out>(out + r * out_ld + c, d, smaller<int64_t>(kLanes<T>, padded - c));
    }
  }
}

template <class R>
inline void write_norm_gradient(void* grad_gamma, void* grad_beta, int64_t c, double gamma,
                                double beta) {
  if (grad_gamma) static_cast<R*>(grad_gamma)[c] = gamma;
  if (grad_beta) static_cast<R*>(grad_beta)[c] = beta;
}

// Completes the backward of batch norm: gradients of its parameters, correction of its input's.
template <class R>
inline Correction<R> finish_norm(GradientSums<R>& sums, const Affine<R>& affine, const R* mean,
                                 const R* variance, double eps, bool frozen, int64_t pixels,
                                 int64_t columns, void* grad_gamma, void* grad_beta) {
  Correction<R> k(columns);
  for (int64_t c = 0; c < columns; c++) {
    double plain, centred;
    sums.total(c, &plain, &centred);
    const double rstd = 1 / std::sqrt(variance[c] + eps), scale = affine.scale[c];
    write_norm_gradient<R>(grad_gamma, grad_beta, c, centred * rstd, plain);
    k.scale[c] = scale;
    if (frozen) continue;
    const double slope = scale * rstd * rstd * centred / pixels;
    k.slope[c] = -slope;
    k.constant[c] = slope * mean[c] - scale * plain / pixels;
  }
  return k;
}

// The correction of batch norm for all pixels. `out` is contiguous.
template <class T>
void correct(const Correction<Real<T>>& k, const T* x, int64_t x_ld, const T* gradient,
             int64_t gradient_ld, int64_t pixels, int64_t columns, int threads, T* out) {
  for_each_in_parallel(pixels, threads, [&](int64_t p) {
    corrected_rows<T>(k, x + p * x_ld, x_ld, gradient + p * gradient_ld, gradient_ld, 1, columns,
                      columns, out + p * columns, columns);
  });
}

// The correction of the gradient of y's channels by the batch norms of the layers processed so far,
// summed over these layers, as constant + slope * (y - mean).
struct Pending {
  std::vector<double> constant, slope;
  explicit Pending(int64_t columns) : constant(columns), slope(columns) {}

  template <class R>
  Correction<R> correction(const R* mean, int64_t first, int64_t columns) const {
    Correction<R> k(columns);
    for (int64_t c = 0; c < columns; c++) {
      const double slope_c = slope[first + c];
      k.scale[c] = 1;
      k.slope[c] = -slope_c;
      k.constant[c] = slope_c * (mean ? mean[first + c] : 0) - constant[first + c];
    }
    return k;
  }
};

}  // namespace
