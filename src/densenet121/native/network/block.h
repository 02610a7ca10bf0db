// A dense block, forward and backward.
//
// All layers read and write one buffer y of (pixels, channels). The batch statistics of a channel
// are the same for every layer that reads it, so they are computed once, when it is written. The
// input of a layer is relu(scale * y + shift) with its own scale and shift; it is computed where it
// is multiplied and never stored. See docs/internals/performance.md.

#pragma once

#include "backward.h"
#include "forward.h"
#include "training_1x1.h"
#include "training_3x3.h"

namespace {

// Whether the layers are products of 32 x 32 blocks (gemm.h): bf16. The products of float and double
// take any number of rows (product.h).
template <class T>
constexpr bool kInBlocks = !std::is_same<T, Real<T>>::value;

// Whether bf16's 3x3 convolutions may be patches of 4 x 4 pixels: a quarter of the products in whole numbers
// of 16 bits, which are as fast. Tiles and ARM multiply directly.
#if defined(DENSENET121_PAIRS)
constexpr bool kPatchesForBf16 = true;
#else
constexpr bool kPatchesForBf16 = false;
#endif

// y's first columns = x, with their statistics.
template <class T>
void copy_input(const BlockArguments& g) {
  using R = Real<T>;
  const int64_t pixels = g.pixels(), rows = chunk_rows(pixels, g.threads);
  const int64_t chunks = (pixels + rows - 1) / rows;
  const T* x = static_cast<T*>(g.x);
  T* y = static_cast<T*>(g.y);
  Parts<R> parts(chunks, g.input_columns);
  for_each_in_parallel(chunks, g.threads, [&](int64_t i) {
    const int64_t begin = i * rows, n = smaller(rows, pixels - begin);
    for (int64_t r = begin; r < begin + n; r++) {
      std::memcpy(y + r * g.columns(), x + r * g.input_columns, g.input_columns * sizeof(T));
    }
    if (g.frozen) return;
    parts.rows[i] = n;
    column_sums(x + begin * g.input_columns, g.input_columns, n, g.input_columns, parts.shift(i),
                parts.sum(i), parts.square(i));
  });
  if (!g.frozen) parts.combine(static_cast<R*>(g.mean), static_cast<R*>(g.variance));
}

// The 1x1 convolution of a layer with 32 x 32 blocks.
template <class T>
void conv1_forward_blocks(const Layer<T>& layer, T* z) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const int64_t pixels = g.pixels(), width = g.bottleneck, rows = chunk_rows(pixels, g.threads);
  const int64_t chunks = (pixels + rows - 1) / rows;
  const Affine<R> affine = layer.norm1();
  const Weight<R> weight = layer.weight(layer.args.weight1, layer.args.strides1);
  T* panel = scratch<T>(6, round_up(layer.columns, kBlock) * round_up(width, kBlock));
  pack_panel<T>(panel, layer.columns, width, g.threads, [&](int64_t i, int64_t o) {
    return weight.forward(i, o, layer.columns, width);
  });
  const T* y = static_cast<T*>(g.y);
  Parts<R> parts(chunks, width);
  in_parallel(chunks, g.threads, [&](int, Range items) {
    Tiles tiles;
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t begin = i * rows, n = smaller(rows, pixels - begin);
      for (int64_t r = begin; r < begin + n; r += kBlock) {
        conv1_rows<T>(y + r * g.columns(), g.columns(), smaller<int64_t>(kBlock, begin + n - r),
                      layer.columns, affine, panel, width, z + r * width, width);
      }
      if (g.frozen) continue;
      parts.rows[i] = n;
      column_sums(z + begin * width, width, n, width, parts.shift(i), parts.sum(i),
                  parts.square(i));
    }
  });
  if (!g.frozen) {
    parts.combine(static_cast<R*>(layer.args.mean2), static_cast<R*>(layer.args.variance2));
  }
}

// The 3x3 convolution of a layer with 32 x 32 blocks.
template <class T>
void conv2_forward_blocks(const Layer<T>& layer, const T* z) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const int64_t width = g.bottleneck, padded = round_up(width, kBlock);
  const int64_t rows = band_rows(g.images, g.height, g.width, padded * sizeof(T), g.threads);
  const int64_t bands = (g.height + rows - 1) / rows, image_pixels = g.height * g.width;
  const Affine<R> affine = layer.norm2();
  const Weight<R> weight = layer.weight(layer.args.weight2, layer.args.strides2);
  T* panel = scratch<T>(6, 9 * padded * round_up(g.growth, kBlock));
  pack_panel<T>(panel, 9 * padded, g.growth, g.threads, [&](int64_t k, int64_t o) {
    const int64_t tap = k / padded;
    return weight.forward(k % padded, o, width, g.growth, tap / 3, tap % 3);
  });
  T* out = static_cast<T*>(g.y) + layer.columns;
  Parts<R> parts(g.images * bands, g.growth);
  in_parallel(g.images * bands, g.threads, [&](int, Range items) {
    Tiles tiles;
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t image = i / bands, first = i % bands * rows;
      const Band band{g.height, g.width, first, smaller(first + rows, g.height)};
      T* h = scratch<T>(3, band.framed() * padded);
      fill_band<T>(band, z + image * image_pixels * width, width, affine, h);
      T* begin = out + image * image_pixels * g.columns();
      Claim claim;
      conv2_band<T>(band, {0, band.steps()}, h, width, panel, g.growth, begin, g.columns(), claim);
      if (g.frozen) continue;
      parts.rows[i] = (band.last - band.first) * g.width;
      column_sums(begin + band.first * g.width * g.columns(), g.columns(), parts.rows[i], g.growth,
                  parts.shift(i), parts.sum(i), parts.square(i));
    }
  });
  if (!g.frozen) {
    parts.combine(static_cast<R*>(g.mean) + layer.columns,
                  static_cast<R*>(g.variance) + layer.columns);
  }
}

template <class T>
void conv2_forward(const Layer<T>& layer, const T* z) {
  using R = Real<T>;
  if constexpr (!kInBlocks<T> || kPatchesForBf16) {
    if (layer.block.patch_pixels == 4) return conv2_forward_patches<PatchesOfFour<R>>(layer, z);
  }
  if constexpr (kInBlocks<T>) {
    conv2_forward_blocks<T>(layer, z);
  } else {
    conv2_forward_patches<PatchesOfTwo<R>>(layer, z);
  }
}

template <class T>
void block_forward(const BlockArguments& g) {
  copy_input<T>(g);
  for (int64_t l = 0; l < g.layers; l++) {
    const Layer<T> layer(g, l);
    T* z = static_cast<T*>(g.z) + l * g.z_stride;
    if constexpr (kInBlocks<T>) {
      conv1_forward_blocks<T>(layer, z);
    } else {
      conv1_forward_pixels<T>(layer, z);
    }
    conv2_forward<T>(layer, z);
  }
}

// Backward of the 3x3 convolution: gradients of its weight and of norm2, and grad_bottleneck, the
// gradient of norm2's output. Returns the correction that gives the gradient of z.
template <class T>
Correction<Real<T>> conv2_backward_blocks(const Layer<T>& layer, const T* z, const T* grad_y,
                                          const Correction<Real<T>>& k) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const int64_t width = g.bottleneck, padded = round_up(width, kBlock);
  const int64_t grown = round_up(g.growth, kBlock), image_pixels = g.height * g.width;
  const int64_t rows = band_rows(g.images, g.height, g.width, padded * sizeof(T), g.threads);
  const int64_t bands = (g.height + rows - 1) / rows, ld = g.columns();
  const Affine<R> affine = layer.norm2();
  const R* mean = static_cast<R*>(args.mean2);
  const Weight<R> weight = layer.weight(args.weight2, args.strides2);
  T* panel = scratch<T>(6, 9 * grown * padded);
  pack_panel<T>(panel, 9 * grown, width, g.threads, [&](int64_t k, int64_t i) {
    const int64_t tap = k / grown;
    return weight.backward(k % grown, i, g.growth, width, tap / 3, tap % 3);
  });
  const int64_t blocks = padded / kBlock, grown_blocks = grown / kBlock;
  BlockSums<R> grad_weight(9 * blocks * grown_blocks, g.threads);
  GradientSums<R> sums(g.images * bands, width);
  const T* y = static_cast<T*>(g.y) + layer.columns;
  in_parallel(g.images * bands, g.threads, [&](int part, Range items) {
    Tiles tiles;
    grad_weight.clear(part);
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t image = i / bands, first = i % bands * rows, pixel = image * image_pixels;
      const Band band{g.height, g.width, first, smaller(first + rows, g.height)};
      conv2_band_backward<T>(band, y + pixel * ld, grad_y + layer.columns + pixel * ld, ld,
                             g.growth, k, z + pixel * width, width, affine, mean, panel,
                             static_cast<T*>(g.grad_bottleneck) + pixel * width, sums.plain(i),
                             sums.centred(i), grad_weight, args.grad_weight2, part);
    }
  });
  if (args.grad_weight2) {
    const Weight<R> out = layer.weight(args.grad_weight2, args.strides2);
    for_each_in_parallel(grad_weight.blocks, g.threads, [&](int64_t b) {
      const int64_t tap = b / grown_blocks / blocks, i = b / grown_blocks % blocks * kBlock;
      const int64_t o = b % grown_blocks * kBlock;
      grad_weight.write(b, out, o, i, g.growth, width, tap / 3, tap % 3);
    });
  }
  return finish_norm<R>(sums, affine, mean, static_cast<R*>(args.variance2), args.eps2, g.frozen,
                        g.pixels(), width, args.grad_gamma2, args.grad_beta2);
}

// Backward of the 1x1 convolution: the gradient of its weight, its part of grad_buffer, and the sums
// over the pixels for norm1.
template <class T>
GradientSums<Real<T>> conv1_backward_blocks(const Layer<T>& layer, const T* z, const T* grad_y,
                                            const Correction<Real<T>>& k,
                                            const Affine<Real<T>>& affine) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const int64_t pixels = g.pixels(), width = g.bottleneck, ld = g.columns();
  const int64_t columns = layer.columns, padded = round_up(width, kBlock);
  const int64_t column_blocks = round_up(columns, kBlock) / kBlock;
  const int64_t rows = cached_rows<T>(columns, chunk_rows(pixels, g.threads));
  const int64_t chunks = (pixels + rows - 1) / rows;
  std::vector<R> mean(column_blocks * kBlock);
  std::memcpy(mean.data(), args.mean1, columns * sizeof(R));
  const Weight<R> weight = layer.weight(args.weight1, args.strides1);
  T* panel = scratch<T>(6, column_blocks * kBlock * padded);
  pack_panel<T>(panel, width, columns, g.threads, [&](int64_t o, int64_t i) {
    return weight.backward(o, i, width, columns);
  });
  BlockSums<R> grad_weight(column_blocks * (padded / kBlock), g.threads);
  GradientSums<R> sums(chunks, columns);
  const T* y = static_cast<T*>(g.y);
  const T* grad = static_cast<T*>(g.grad_bottleneck);
  T* buffer = static_cast<T*>(g.grad_buffer);
  in_parallel(chunks, g.threads, [&](int part, Range items) {
    Tiles tiles;
    grad_weight.clear(part);
    for (int64_t i = items.begin; i < items.end; i++) {
      const int64_t begin = i * rows;
      const Conv1Input<T> in{y + begin * ld, ld,           columns,
                             affine,         mean.data(),  nullptr,
                             grad_y + begin * ld, buffer + begin * ld};
      conv1_chunk_backward<T, 1>(
          smaller(rows, pixels - begin), in, [](int64_t row) { return row; }, grad + begin * width,
          z + begin * width, width, k, panel, sums.plain(i), sums.centred(i), grad_weight,
          args.grad_weight1, part);
    }
  });
  if (args.grad_weight1) {
    write_conv1_gradient(grad_weight, layer.weight(args.grad_weight1, args.strides1), width,
                         columns);
  }
  return sums;
}

// The gradients of norm1, and what it adds to the correction of its input's gradient.
template <class T>
void finish_norm1(const Layer<T>& layer, GradientSums<Real<T>> sums, const Affine<Real<T>>& affine,
                  Pending& pending) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const R* variance = static_cast<R*>(args.variance1);
  for (int64_t c = 0; c < layer.columns; c++) {
    double plain, centred;
    sums.total(c, &plain, &centred);
    const double rstd = 1 / std::sqrt(variance[c] + args.eps1), scale = affine.scale[c];
    write_norm_gradient<R>(args.grad_gamma1, args.grad_beta1, c, centred * rstd, plain);
    if (g.frozen) continue;
    pending.constant[c] += scale * plain / g.pixels();
    pending.slope[c] += scale * rstd * rstd * centred / g.pixels();
  }
}

template <class T>
Correction<Real<T>> conv2_backward(const Layer<T>& layer, const T* z, const T* grad_y,
                                   const Correction<Real<T>>& k) {
  using R = Real<T>;
  if constexpr (!kInBlocks<T> || kPatchesForBf16) {
    if (layer.block.patch_pixels == 4) {
      return conv2_backward_patches<PatchesOfFour<R>>(layer, z, grad_y, k);
    }
  }
  if constexpr (kInBlocks<T>) {
    return conv2_backward_blocks<T>(layer, z, grad_y, k);
  } else {
    return conv2_backward_patches<PatchesOfTwo<R>>(layer, z, grad_y, k);
  }
}

template <class T>
void layer_backward(const Layer<T>& layer, const T* z, const T* grad_y, Pending& pending) {
  using R = Real<T>;
  const Correction<R> of_output = pending.correction(static_cast<R*>(layer.block.mean),
                                                     layer.columns, layer.block.growth);
  const Affine<R> affine = layer.norm1();
  const Correction<R> k = conv2_backward<T>(layer, z, grad_y, of_output);
  if constexpr (kInBlocks<T>) {
    finish_norm1<T>(layer, conv1_backward_blocks<T>(layer, z, grad_y, k, affine), affine, pending);
  } else {
    finish_norm1<T>(layer, conv1_backward_pixels<T>(layer, z, grad_y, k, affine), affine, pending);
  }
}

template <class T>
void block_backward(const BlockArguments& g) {
  using R = Real<T>;
  const T* grad_y = static_cast<T*>(g.grad_y);
  Pending pending(g.columns());
  for (int64_t l = g.layers - 1; l >= 0; l--) {
    const Layer<T> layer(g, l);
    const T* z = static_cast<T*>(g.z) + l * g.z_stride;
    layer_backward<T>(layer, z, grad_y, pending);
    // The layer processed first has copied the gradient of the block's output.
    grad_y = static_cast<T*>(g.grad_buffer);
  }
  if (!g.grad_x) return;
  const Correction<R> k = pending.correction(static_cast<R*>(g.mean), 0, g.input_columns);
  correct<T>(k, static_cast<T*>(g.y), g.columns(), grad_y, g.columns(), g.pixels(),
             g.input_columns, g.threads, static_cast<T*>(g.grad_x));
}

}  // namespace
