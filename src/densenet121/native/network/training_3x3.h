// The 3x3 convolution of a dense layer in training, forward and backward, by Winograd's patches
// (patch_forms.h): the output, the gradient of the input and that of the weight. Numbers of type T in
// memory; what is between, bf16's too, is of type Real<T>, but for the products of patch_products.h.

#pragma once

#include "corrections.h"
#include "forward.h"
#include "outer_product.h"
#include "patch_products.h"

namespace {

// h = relu(norm2(z)) in a frame of `padded` columns.
template <class T>
inline void fill_bottleneck(const Strip& strip, const T* z, int64_t columns, int64_t padded,
                            const Affine<Real<T>>& affine, Real<T>* h) {
  fill_frame(strip, padded, h, [&](int64_t pixel, Real<T>* to) {
    normalise_some<T>(z + pixel * columns, columns, strip.width, columns, padded,
                      affine.scale.data(), affine.shift.data(), to, padded);
  });
}

// new = W2 * relu(norm2(z)) of a strip, `growth` columns `ld` numbers apart.
template <class Form, class T>
void convolve_strip(const Strip& strip, const T* z, int64_t width, const Affine<Real<T>>& affine,
                    const PackedPatches<Form, T>& weights, int64_t growth, T* out, int64_t ld) {
  using R = Real<T>;
  constexpr int kAtOnce = Form::kInForward;
  const int64_t padded = weights.columns, grown = weights.width;
  R* h = scratch<R>(0, strip.framed() * padded);
  PatchProducts<Form, T> products(weights, kAtOnce, grown);
  fill_bottleneck<T>(strip, z, width, padded, affine, h);
  const int parts = (strip.patches() + kAtOnce - 1) / kAtOnce;
  for (int part = 0; part < parts; part++) {
    const Range patches = share(strip.patches(), part, parts);
    const int64_t count = patches.end - patches.begin;
    Place places[kAtOnce];
    find_places(strip, patches, places);
    products.transform(strip, places, count, h);
    products.multiply(count, 0, grown);
    for (int64_t p = 0; p < count; p++) {
      T* corner = out + places[p].pixel * ld;
      const R unit = products.unit(p);
      for (int64_t n = 0; n < grown; n += kLanes<T>) {
        Vec<T> pixels[Form::kPixels][Form::kPixels];
        Form::sums(products.numbers(p, 0, grown, n), pixels);
        const auto write = [&](int r, int c, int lanes) __attribute__((always_inline)) {
          store<T>(corner + (r * strip.width + c) * ld + n, pixels[r][c] * unit, lanes);
        };
        for_pixels<Form>(places[p], smaller<int64_t>(kLanes<T>, growth - n), kLanes<T>, write);
      }
    }
  }
}

// Backward of the 3x3 convolution of one layer, for one thread at a time.
template <class Form, class T>
struct StripBackward {
  using R = Real<T>;
  static constexpr int kAtOnce = Form::kInBackward;
  const Layer<T>& layer;
  const T* z;
  const R* mean;  // padded
  const Affine<R>& affine;
  const PackedPatches<Form, T>& weights;  // `grown` x `padded`
  T* g;              // out: the gradient of norm2's output
  int64_t width, padded, grown;

  // g of a block of columns from the transformed sums of dy, and its sums over the pixels.
  void gate_patches(const Strip& strip, const Place* places, int64_t count, const R* h,
                    int64_t first, int64_t some, const PatchProducts<Form, T>& products, R* plain,
                    R* centred) const {
    for (int64_t p = 0; p < count; p++) {
      const Place& place = places[p];
      const R unit = products.unit(p);
      const R* inside = h + (place.window + strip.pitch() + 1) * padded + first;
      const int64_t corner = place.pixel * width + first;
      for (int64_t n = 0; n < some; n += kLanes<T>) {
        const Vec<T> middle = load<R>(mean + first + n, kLanes<T>);
        Vec<T> pixels[Form::kPixels][Form::kPixels], sum{}, product{};
        Form::sums(products.numbers(p, first, some, n), pixels);
        const auto gate_pixel = [&](int r, int c, int lanes) __attribute__((always_inline)) {
          const int64_t at = corner + (r * strip.width + c) * width + n;
          const R* input = inside + (r * strip.pitch() + c) * padded + n;
          // h > 0 where norm2's output is
          const Vec<T> value = gate(load<R>(input, kLanes<T>), pixels[r][c] * unit);
          sum += value;
          product += value * (load<T>(z + at, lanes) - middle);
          store<T>(g + at, value, lanes);
        };
        for_pixels<Form>(place, smaller<int64_t>(kLanes<T>, width - first - n), kLanes<T>,
                         gate_pixel);
        store<R>(plain + first + n, load<R>(plain + first + n, kLanes<T>) + sum, kLanes<T>);
        store<R>(centred + first + n, load<R>(centred + first + n, kLanes<T>) + product, kLanes<T>);
      }
    }
  }

  // Adds to the gradient of the transformed weight unless it is null: for each block of columns
  // kNumbers x grown x the block's columns.
  void run(const Strip& strip, const T* y, const T* grad_y, const Correction<R>& k, R* plain,
           R* centred, R* grad_weight) const {
    const BlockArguments& block = layer.block;
    const int64_t ld = block.columns();
    const int64_t narrow_stride = patch_stride<R>(kAtOnce, grown);
    const int64_t wide_stride = patch_stride<R>(kAtOnce, kBlock);
    R* dy = scratch<R>(0, strip.framed() * grown);
    R* h = scratch<R>(1, strip.framed() * padded);
    R* gradients = scratch<R>(3, Form::kNumbers * narrow_stride);
    PatchProducts<Form, T> products(weights, kAtOnce, kBlock);
    R* wide = scratch<R>(4, Form::kNumbers * wide_stride);  // where the products' sums were before
    fill_frame(strip, grown, dy, [&](int64_t pixel, R* to) {
      corrected_rows<T>(k, y + pixel * ld, ld, grad_y + pixel * ld, ld, strip.width, block.growth,
                        grown, to, grown);
    });
    fill_bottleneck<T>(strip, z, width, padded, affine, h);
    const int parts = (strip.patches() + kAtOnce - 1) / kAtOnce;
    for (int part = 0; part < parts; part++) {
      const Range patches = share(strip.patches(), part, parts);
      const int64_t count = patches.end - patches.begin;
      Place places[kAtOnce];
      find_places(strip, patches, places);
      products.transform(strip, places, count, dy);
      if (grad_weight) {
        transform_gradients<Form>(strip, places, count, dy, grown, gradients, narrow_stride);
      }
      for (int64_t first = 0; first < padded; first += kBlock) {
        const int64_t some = smaller<int64_t>(kBlock, padded - first);
        products.multiply(count, first, some);
        gate_patches(strip, places, count, h, first, some, products, plain, centred);
        if (!grad_weight) continue;
        transform_windows<Form>(strip, places, count, h + first, padded, some, wide, wide_stride);
        R* block = grad_weight + first * Form::kNumbers * grown;
        for (int i = 0; i < Form::kNumbers; i++, block += grown * some) {
          outer_product<R>(grown, some, count, gradients + i * narrow_stride, grown,
                           wide + i * wide_stride, some, block, some);
        }
      }
    }
  }
};

template <class Form, class T>
void conv2_forward_patches(const Layer<T>& layer, const T* z) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const Affine<R> affine = layer.norm2();
  const Weight<R> weight = layer.weight(layer.args.weight2, layer.args.strides2);
  const PackedPatches<Form, T> weights(
      g.bottleneck, g.growth, g.threads,
      [&](int64_t i, int64_t o, int r, int c) { return weight(o, i, r, c); });
  T* out = static_cast<T*>(g.y) + layer.columns;
  const Strips<Form> strips(g, weights.columns * sizeof(R));
  Parts<R> parts(strips.count(), g.growth);
  for_each_in_parallel(strips.count(), g.threads, [&](int64_t i) {
    const Strip strip = strips[i];
    convolve_strip<Form>(strip, z, g.bottleneck, affine, weights, g.growth, out, g.columns());
    if (g.frozen) return;
    parts.rows[i] = strip.pixels();
    column_sums(out + strip.first_pixel() * g.columns(), g.columns(), strip.pixels(), g.growth,
                parts.shift(i), parts.sum(i), parts.square(i));
  });
  if (!g.frozen) {
    parts.combine(static_cast<R*>(g.mean) + layer.columns,
                  static_cast<R*>(g.variance) + layer.columns);
  }
}

// k corrects the gradient of the convolution's output.
template <class Form, class T>
Correction<Real<T>> conv2_backward_patches(const Layer<T>& layer, const T* z, const T* grad_y,
                                           const Correction<Real<T>>& k) {
  using R = Real<T>;
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const int64_t width = g.bottleneck;
  const Affine<R> affine = layer.norm2();
  const Weight<R> weight = layer.weight(args.weight2, args.strides2);
  const PackedPatches<Form, T> weights(
      g.growth, width, g.threads,
      [&](int64_t o, int64_t i, int r, int c) { return weight(o, i, 2 - r, 2 - c); });
  const int64_t grown = weights.columns, padded = weights.width;
  std::vector<R> mean(padded);
  std::memcpy(mean.data(), args.mean2, width * sizeof(R));
  const int64_t numbers = Form::kNumbers * grown * padded;
  BlockSums<R> grad_weight(round_up(numbers, kStep) / kStep, g.threads);
  const Strips<Form> strips(g, padded * sizeof(R));
  GradientSums<R> sums(strips.count(), width);
  const StripBackward<Form, T> backward{layer,  z,      mean.data(), affine, weights,
                                  static_cast<T*>(g.grad_bottleneck), width, padded, grown};
  in_parallel(strips.count(), g.threads, [&](int part, Range items) {
    grad_weight.clear(part);
    for (int64_t i = items.begin; i < items.end; i++) {
      backward.run(strips[i], static_cast<T*>(g.y) + layer.columns, grad_y + layer.columns, k,
                   sums.plain(i), sums.centred(i),
                   args.grad_weight2 ? grad_weight.block(part, 0) : nullptr);
    }
  });
  if (args.grad_weight2) {
    const Weight<R> out = layer.weight(args.grad_weight2, args.strides2);
    for_each_in_parallel(g.growth, g.threads, [&](int64_t o) {
      for (int64_t i = 0; i < width; i += kLanes<T>) {
        const int64_t first = i / kBlock * kBlock, some = smaller<int64_t>(kBlock, padded - first);
        const int64_t at = first * Form::kNumbers * grown + o * some + i - first;
        using Wide = typename DoublesOf<R>::type;
        Form::template weight_gradient<Wide>(
            [&](int n) {
              return __builtin_convertvector(grad_weight.totals(at + n * grown * some), Wide);
            },
            [&](int r, int c, Wide v) {
              for (int l = 0; l < smaller<int64_t>(kLanes<T>, width - i); l++) {
                out(o, i + l, r, c) = v[l];
              }
            });
      }
    });
  }
  return finish_norm<R>(sums, affine, mean.data(), static_cast<R*>(args.variance2), args.eps2,
                        g.frozen, g.pixels(), width, args.grad_gamma2, args.grad_beta2);
}

}  // namespace
