// A transition, forward and backward: norm, relu, average of 2 x 2 pixels, 1x1 convolution. Pooling
// is done before the convolution, because an average and a 1x1 convolution commute. Without pooling
// it is the part of the original's transition before its maximum.

#pragma once

#include "block.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct TransitionArguments {
  int64_t images, height, width, columns, output_columns, threads;
  int64_t pool;              // side of the square that is averaged: 1 or 2
  int64_t frozen;            // the statistics are the running ones
  int64_t statistics_given;  // running, or known from the previous block
  void *x, *y, *gamma, *beta, *mean, *variance, *weight;
  void *grad_y, *grad_x, *grad_gamma, *grad_beta, *grad_weight;
  int64_t strides[4];
  double eps;

  int64_t pixels() const { return images * height * width; }
  int64_t output_pixels() const { return images * (height / pool) * (width / pool); }
  // The first input pixel of an output pixel.
  int64_t place(int64_t pixel) const {
    const int64_t w = width / pool, h = height / pool;
    const int64_t column = pixel % w, row = pixel / w % h, image = pixel / w / h;
    return (image * height + row * pool) * width + column * pool;
  }
  template <class R>
  Affine<R> affine() const {
    return Affine<R>(static_cast<R*>(gamma), static_cast<R*>(beta), static_cast<R*>(mean),
                     static_cast<R*>(variance), eps, columns);
  }
  template <class R>
  Weight<R> matrix(void* data) const {
    return {static_cast<R*>(data), {strides[0], strides[1], strides[2], strides[3]}};
  }
};

// Mean and variance of every column of x.
template <class T>
void take_statistics(const T* x, int64_t pixels, int64_t columns, int threads, void* mean,
                     void* variance) {
  using R = Real<T>;
  const int64_t rows = chunk_rows(pixels, threads), chunks = (pixels + rows - 1) / rows;
  Parts<R> parts(chunks, columns);
  for_each_in_parallel(chunks, threads, [&](int64_t i) {
    const int64_t begin = i * rows;
    parts.rows[i] = smaller(rows, pixels - begin);
    column_sums(x + begin * columns, columns, parts.rows[i], columns, parts.shift(i), parts.sum(i),
                parts.square(i));
  });
  parts.combine(static_cast<R*>(mean), static_cast<R*>(variance));
}

// Up to 32 rows of the averages of 2 x 2 pixels of relu(scale * x + shift).
template <class T>
inline void average_rows(const TransitionArguments& g, const T* x, int64_t first, int rows,
                         const Affine<Real<T>>& affine, T* out, int64_t out_ld) {
  using R = Real<T>;
  const int64_t offsets[4] = {0, 1, g.width, g.width + 1};
  for (int r = 0; r < rows; r++) {
    const T* corner = x + g.place(first + r) * g.columns;
    for (int64_t c = 0; c < round_up(g.columns, kBlock); c += kLanes<T>) {
      const int n = smaller<int64_t>(kLanes<T>, g.columns > c ? g.columns - c : 0);
      const Vec<T> s = load<R>(affine.scale.data() + c, kLanes<T>);
      const Vec<T> t = load<R>(affine.shift.data() + c, kLanes<T>);
      Vec<T> sum{};
      for (int64_t offset : offsets) sum += relu(load<T>(corner + offset * g.columns + c, n) * s + t);
      store<T>(out + r * out_ld + c, R(0.25) * sum, kLanes<T>);
    }
  }
}

template <class T>
void transition_forward(const TransitionArguments& g) {
  using R = Real<T>;
  const T* x = static_cast<T*>(g.x);
  T* y = static_cast<T*>(g.y);
  if (!g.statistics_given) {
    take_statistics<T>(x, g.pixels(), g.columns, g.threads, g.mean, g.variance);
  }
  const Affine<R> affine = g.affine<R>();
  const Weight<R> weight = g.matrix<R>(g.weight);
  const int64_t padded = round_up(g.columns, kBlock), width = g.output_columns;
  const int64_t blocks = round_up(width, kBlock) / kBlock, pixels = g.output_pixels();
  T* panel = scratch<T>(6, padded * blocks * kBlock);
  pack_panel<T>(panel, g.columns, width, g.threads, [&](int64_t i, int64_t o) {
    return weight.forward(i, o, g.columns, width);
  });
  in_parallel(round_up(pixels, kBlock) / kBlock, g.threads, [&](int, Range items) {
    Tiles tiles;
    const int64_t lda = skewed<T>(padded);
    T* a = scratch<T>(0, kBlock * lda);
    R* c = scratch<R>(1, blocks * kStep);
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t p = i * kBlock;
      const int rows = smaller<int64_t>(kBlock, pixels - p);
      if (g.pool == 2) {
        average_rows<T>(g, x, p, rows, affine, a, lda);
      } else {
        normalise_rows<T>(x + p * g.columns, g.columns, rows, g.columns, affine, a, lda);
      }
      multiply_panel<T>(a, lda, nullptr, padded / kBlock, panel, width, g.columns, c);
      for (int64_t b = 0; b < blocks; b++) {
        for (int r = 0; r < rows; r++) {
          store_sums<T>(c + b * kStep, r, y + (p + r) * width + b * kBlock,
                        smaller<int64_t>(kBlock, width - b * kBlock));
        }
      }
    }
  });
}

template <class T, int kCount>
void transition_backward_of(const TransitionArguments& g) {
  using R = Real<T>;
  const int64_t columns = g.columns, width = g.output_columns, pixels = g.output_pixels();
  const int64_t column_blocks = round_up(columns, kBlock) / kBlock;
  const int64_t padded = round_up(width, kBlock);
  const int64_t rows = cached_rows<T>(columns, chunk_rows(pixels, g.threads));
  const int64_t chunks = (pixels + rows - 1) / rows;
  const int64_t offsets[4] = {0, 1, g.width, g.width + 1};
  const Affine<R> affine = g.affine<R>();
  const Weight<R> weight = g.matrix<R>(g.weight);
  std::vector<R> mean(column_blocks * kBlock);
  std::memcpy(mean.data(), g.mean, columns * sizeof(R));
  T* panel = scratch<T>(6, column_blocks * kBlock * padded);
  pack_panel<T>(panel, width, columns, g.threads, [&](int64_t o, int64_t i) {
    return weight.backward(o, i, width, columns);
  });
  BlockSums<R> grad_weight(column_blocks * (padded / kBlock), g.threads);
  GradientSums<R> sums(chunks, columns);
  Correction<R> none(width);
  for (R& scale : none.scale) scale = 1;
  const T* grad_y = static_cast<T*>(g.grad_y);
  T* grad_x = static_cast<T*>(g.grad_x);
  if (kCount > 1 && (g.height % 2 || g.width % 2)) {
    std::memset(grad_x, 0, g.pixels() * columns * sizeof(T));  // pixels that no square covers
  }
  in_parallel(chunks, g.threads, [&](int part, Range items) {
    Tiles tiles;
    grad_weight.clear(part);
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t begin = i * rows;
      const Conv1Input<T> in{static_cast<T*>(g.x), columns, columns, affine,
                             mean.data(),          offsets, nullptr, grad_x};
      conv1_chunk_backward<T, kCount>(
          smaller(rows, pixels - begin), in,
          [&](int64_t row) { return kCount > 1 ? g.place(begin + row) : begin + row; },
          grad_y + begin * width, grad_y + begin * width, width, none, panel, sums.plain(i),
          sums.centred(i), grad_weight, g.grad_weight, part);
    }
  });
  if (g.grad_weight) {
    write_conv1_gradient(grad_weight, g.matrix<R>(g.grad_weight), width, columns);
  }
  const Correction<R> k =
      finish_norm<R>(sums, affine, mean.data(), static_cast<R*>(g.variance), g.eps, g.frozen,
                     g.pixels(), columns, g.grad_gamma, g.grad_beta);
  if (!g.frozen) {
    correct<T>(k, static_cast<T*>(g.x), columns, grad_x, columns, g.pixels(), columns, g.threads,
               grad_x);
  }
}

template <class T>
void transition_backward(const TransitionArguments& g) {
  if (g.pool == 2) {
    transition_backward_of<T, 4>(g);
  } else {
    transition_backward_of<T, 1>(g);
  }
}

}  // namespace
