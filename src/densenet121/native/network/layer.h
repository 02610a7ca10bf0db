// What the kernels of a dense block are called with, and one of its layers.

#pragma once

#include "pack.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct LayerArguments {
  void *gamma1, *beta1, *mean1, *variance1, *weight1;
  void *gamma2, *beta2, *mean2, *variance2, *weight2;
  void *grad_gamma1, *grad_beta1, *grad_weight1;
  void *grad_gamma2, *grad_beta2, *grad_weight2;
  int64_t strides1[4], strides2[4];
  double eps1, eps2;
};

struct BlockArguments {
  int64_t images, height, width, input_columns, layers, growth, bottleneck, threads;
  int64_t frozen;    // the statistics are given, not computed from the batch
  int64_t z_stride;  // numbers from one layer's z to the next: 0 when none is needed later
  // height and width of the 3x3 convolutions' patches (patch_forms.h), 2 or 4
  int64_t patch_pixels;
  void *x, *y, *z, *mean, *variance;
  void *grad_y, *grad_buffer, *grad_bottleneck, *grad_x;
  LayerArguments* layer;

  int64_t pixels() const { return images * height * width; }
  int64_t columns() const { return input_columns + layers * growth; }
};

// Number of pixels that a thread processes at a time: few enough to divide the work evenly.
inline int64_t chunk_rows(int64_t pixels, int threads) {
  const int64_t rows = round_up((pixels + 8 * threads - 1) / (8 * threads), kBlock);
  return smaller<int64_t>(rows, 512);
}

template <class T>
struct Layer {
  using R = Real<T>;
  const BlockArguments& block;
  const LayerArguments& args;
  int64_t columns;  // of the layer's input

  Layer(const BlockArguments& block, int64_t index)
      : block(block),
        args(block.layer[index]),
        columns(block.input_columns + index * block.growth) {}
  Affine<R> norm1() const {
    return Affine<R>(static_cast<R*>(args.gamma1), static_cast<R*>(args.beta1),
                     static_cast<R*>(args.mean1), static_cast<R*>(args.variance1), args.eps1,
                     columns);
  }
  Affine<R> norm2() const {
    return Affine<R>(static_cast<R*>(args.gamma2), static_cast<R*>(args.beta2),
                     static_cast<R*>(args.mean2), static_cast<R*>(args.variance2), args.eps2,
                     block.bottleneck);
  }
  static Weight<R> weight(void* data, const int64_t* s) {
    return {static_cast<R*>(data), {s[0], s[1], s[2], s[3]}};
  }
};

}  // namespace
