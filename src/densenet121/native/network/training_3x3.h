// The 3x3 convolution of a dense layer in training, forward and backward, in float and double. Each
// of its three products (the output, the gradient of the input, that of the weight) is 16 products of
// patches of 2 x 2 pixels in place of 36: winograd.h. With y = A' [(G g G') * (B' d B)] A,
// elementwise in the brackets, the gradient of g is G' [(A dy A') * (B' d B)] G, and that of d is the
// same convolution of dy with the weights turned by half a circle.

#pragma once

#include "corrections.h"
#include "forward.h"
#include "outer_product.h"
#include "strip.h"

namespace {

// h = relu(norm2(z)) in a frame of `padded` columns.
template <class T>
inline void fill_bottleneck(const Strip& strip, const T* z, int64_t columns, int64_t padded,
                            const Affine<T>& affine, T* h) {
  fill_frame<T>(strip, padded, h, [&](int64_t pixel, T* to) {
    normalise_some<T>(z + pixel * columns, columns, strip.width, columns, padded,
                      affine.scale.data(), affine.shift.data(), to, padded);
  });
}

// new = W2 * relu(norm2(z)) of a strip, `growth` columns `ld` numbers apart.
template <class T>
void convolve_strip(const Strip& strip, const T* z, int64_t width, const Affine<T>& affine,
                    const T* weights, int64_t growth, T* out, int64_t ld) {
  const int64_t padded = round_up(width, kLanes<T>), grown = round_up(growth, kLanes<T>);
  const int64_t input_stride = patch_stride<T>(kPatchesAtOnce, padded);
  const int64_t sum_stride = patch_stride<T>(kPatchesAtOnce, grown);
  T* h = scratch<T>(0, strip.framed() * padded);
  T* inputs = scratch<T>(2, kPatchSize * input_stride);
  T* sums = scratch<T>(4, kPatchSize * sum_stride);
  fill_bottleneck<T>(strip, z, width, padded, affine, h);
  const int parts = (strip.patches() + kPatchesAtOnce - 1) / kPatchesAtOnce;
  for (int part = 0; part < parts; part++) {
    const Range patches = share(strip.patches(), part, parts);
    const int64_t count = patches.end - patches.begin;
    Place places[kPatchesAtOnce];
    find_places(strip, patches, places);
    transform_windows<T>(strip, places, count, h, padded, padded, inputs, input_stride);
    multiply_patches<T>(count, inputs, input_stride, padded, weights, grown, 0, grown, sums,
                        sum_stride);
    for (int64_t p = 0; p < count; p++) {
      T* corner = out + places[p].pixel * ld;
      for (int64_t n = 0; n < grown; n += kLanes<T>) {
        Vec<T> pixels[2][2];
        transform_sums<T>(sums + p * grown + n, sum_stride, pixels);
        const auto write = [&](int r, int c, int lanes) __attribute__((always_inline)) {
          store<T>(corner + (r * strip.width + c) * ld + n, pixels[r][c], lanes);
        };
        for_pixels(places[p], smaller<int64_t>(kLanes<T>, growth - n), kLanes<T>, write);
      }
    }
  }
}

// Backward of the 3x3 convolution of one layer, for one thread at a time.
template <class T>
struct StripBackward {
  const Layer<T>& layer;
  const T *z, *mean;  // mean: padded
  const Affine<T>& affine;
  const T* weights;  // packed by pack_patches, `grown` x `padded`
  T* g;              // out: the gradient of norm2's output
  int64_t width, padded, grown;

  // g of a block of columns from the transformed sums of dy, and its sums over the pixels.
  void gate_patches(const Strip& strip, const Place* places, int64_t count, const T* h,
                    int64_t first, int64_t some, const T* sums, int64_t stride, T* plain,
                    T* centred) const {
    for (int64_t p = 0; p < count; p++) {
      const Place& place = places[p];
      const T* inside = h + (place.window + strip.pitch() + 1) * padded + first;
      const int64_t corner = place.pixel * width + first;
      for (int64_t n = 0; n < some; n += kLanes<T>) {
        const Vec<T> middle = load<T>(mean + first + n, kLanes<T>);
        Vec<T> pixels[2][2], sum{}, product{};
        transform_sums<T>(sums + p * some + n, stride, pixels);
        const auto gate_pixel = [&](int r, int c, int lanes) __attribute__((always_inline)) {
          const int64_t at = corner + (r * strip.width + c) * width + n;
          const T* input = inside + (r * strip.pitch() + c) * padded + n;
          // h > 0 where norm2's output is
          const Vec<T> value = gate(load<T>(input, kLanes<T>), pixels[r][c]);
          sum += value;
          product += value * (load<T>(z + at, lanes) - middle);
          store<T>(g + at, value, lanes);
        };
        for_pixels(place, smaller<int64_t>(kLanes<T>, width - first - n), kLanes<T>, gate_pixel);
        store<T>(plain + first + n, load<T>(plain + first + n, kLanes<T>) + sum, kLanes<T>);
        store<T>(centred + first + n, load<T>(centred + first + n, kLanes<T>) + product, kLanes<T>);
      }
    }
  }

  // Adds to the gradient of the transformed weight, 16 x grown x padded numbers, unless it is null.
  void run(const Strip& strip, const T* y, const T* grad_y, const Correction<T>& k, T* plain,
           T* centred, T* grad_weight) const {
    const BlockArguments& block = layer.block;
    const int64_t ld = block.columns();
    const int64_t narrow_stride = patch_stride<T>(kTrainingPatches, grown);
    const int64_t wide_stride = patch_stride<T>(kTrainingPatches, kBlock);
    T* dy = scratch<T>(0, strip.framed() * grown);
    T* h = scratch<T>(1, strip.framed() * padded);
    T* windows = scratch<T>(2, kPatchSize * narrow_stride);
    T* gradients = scratch<T>(3, kPatchSize * narrow_stride);
    T* wide = scratch<T>(4, kPatchSize * wide_stride);
    fill_frame<T>(strip, grown, dy, [&](int64_t pixel, T* to) {
      corrected_rows<T>(k, y + pixel * ld, ld, grad_y + pixel * ld, ld, strip.width, block.growth,
                        grown, to, grown);
    });
    fill_bottleneck<T>(strip, z, width, padded, affine, h);
    const int parts = (strip.patches() + kTrainingPatches - 1) / kTrainingPatches;
    for (int part = 0; part < parts; part++) {
      const Range patches = share(strip.patches(), part, parts);
      const int64_t count = patches.end - patches.begin;
      Place places[kTrainingPatches];
      find_places(strip, patches, places);
      transform_windows<T>(strip, places, count, dy, grown, grown, windows, narrow_stride);
      if (grad_weight) {
        transform_gradients<T>(strip, places, count, dy, grown, gradients, narrow_stride);
      }
      for (int64_t first = 0; first < padded; first += kBlock) {
        const int64_t some = smaller<int64_t>(kBlock, padded - first);
        multiply_patches<T>(count, windows, narrow_stride, grown, weights, padded, first, some,
                            wide, wide_stride);
        gate_patches(strip, places, count, h, first, some, wide, wide_stride, plain, centred);
        if (!grad_weight) continue;
        transform_windows<T>(strip, places, count, h + first, padded, some, wide, wide_stride);
        for (int i = 0; i < kPatchSize; i++) {
          outer_product<T>(grown, some, count, gradients + i * narrow_stride, grown,
                           wide + i * wide_stride, some, grad_weight + i * grown * padded + first,
                           padded);
        }
      }
    }
  }
};

// The gradient of a window of weights, G' S G, from that of its transform; number(i) is one of S.
template <class Number, class Out>
inline void write_window(Number number, Out out) {
  double rows[3][4];
  for (int c = 0; c < 4; c++) {
    const double first = number(4 + c), second = number(8 + c), both = (first + second) / 2;
    rows[0][c] = number(c) + both;
    rows[1][c] = (first - second) / 2;
    rows[2][c] = both + number(12 + c);
  }
  for (int r = 0; r < 3; r++) {
    const double both = (rows[r][1] + rows[r][2]) / 2;
    out(r, 0) = rows[r][0] + both;
    out(r, 1) = (rows[r][1] - rows[r][2]) / 2;
    out(r, 2) = both + rows[r][3];
  }
}

// The 3x3 convolution by Winograd's algorithm.
template <class T>
void conv2_forward_patches(const Layer<T>& layer, const T* z) {
  const BlockArguments& g = layer.block;
  const int64_t padded = round_up(g.bottleneck, kLanes<T>), grown = round_up(g.growth, kLanes<T>);
  const Affine<T> affine = layer.norm2();
  const Weight<T> weight = layer.weight(layer.args.weight2, layer.args.strides2);
  T* panels = scratch<T>(6, kPatchSize * padded * grown);
  pack_patches<T>(panels, g.bottleneck, g.growth, g.threads,
                  [&](int64_t i, int64_t o, int r, int c) { return weight(o, i, r, c); });
  T* out = static_cast<T*>(g.y) + layer.columns;
  const Strips strips(g, padded * sizeof(T));
  Parts<T> parts(strips.count(), g.growth);
  Failure failure;
#pragma omp parallel for num_threads(g.threads) schedule(static)
  for (int64_t i = 0; i < strips.count(); i++) try {
    const Strip strip = strips[i];
    convolve_strip<T>(strip, z, g.bottleneck, affine, panels, g.growth, out, g.columns());
    if (g.frozen) continue;
    parts.rows[i] = strip.pixels();
    column_sums(out + strip.first_pixel() * g.columns(), g.columns(), strip.pixels(), g.growth,
                parts.shift(i), parts.sum(i), parts.square(i));
  } catch (...) {
    failure.note();
  }
  failure.check();
  if (!g.frozen) {
    parts.combine(static_cast<T*>(g.mean) + layer.columns,
                  static_cast<T*>(g.variance) + layer.columns);
  }
}

// Backward of the 3x3 convolution by Winograd's algorithm; k corrects the gradient of its output.
template <class T>
Correction<T> conv2_backward_patches(const Layer<T>& layer, const T* z, const T* grad_y,
                                     const Correction<T>& k) {
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const int64_t width = g.bottleneck, padded = round_up(width, kLanes<T>);
  const int64_t grown = round_up(g.growth, kLanes<T>);
  const Affine<T> affine = layer.norm2();
  const Weight<T> weight = layer.weight(args.weight2, args.strides2);
  T* panels = scratch<T>(6, kPatchSize * padded * grown);
  pack_patches<T>(panels, g.growth, width, g.threads,
                  [&](int64_t o, int64_t i, int r, int c) { return weight(o, i, 2 - r, 2 - c); });
  std::vector<T> mean(padded);
  std::memcpy(mean.data(), args.mean2, width * sizeof(T));
  const int64_t numbers = kPatchSize * grown * padded;
  BlockSums<T> grad_weight(round_up(numbers, kStep) / kStep, g.threads);
  const Strips strips(g, padded * sizeof(T));
  GradientSums<T> sums(strips.count(), width);
  const StripBackward<T> backward{layer,  z,      mean.data(), affine, panels,
                                  static_cast<T*>(g.grad_bottleneck), width, padded, grown};
  Failure failure;
#pragma omp parallel num_threads(g.threads)
  {
    const int thread = omp_get_thread_num();
    grad_weight.clear(thread, omp_get_num_threads());
#pragma omp for schedule(static)
    for (int64_t i = 0; i < strips.count(); i++) try {
      backward.run(strips[i], static_cast<T*>(g.y) + layer.columns, grad_y + layer.columns, k,
                   sums.plain(i), sums.centred(i),
                   args.grad_weight2 ? grad_weight.block(thread, 0) : nullptr);
    } catch (...) {
      failure.note();
    }
  }
  failure.check();
  if (args.grad_weight2) {
    const Weight<T> out = layer.weight(args.grad_weight2, args.strides2);
#pragma omp parallel for num_threads(g.threads) schedule(static)
    for (int64_t o = 0; o < g.growth; o++) {
      for (int64_t i = 0; i < width; i++) {
        write_window(
            [&](int n) { return grad_weight.total((n * grown + o) * padded + i); },
            [&](int r, int c) -> T& { return out(o, i, r, c); });
      }
    }
  }
  return finish_norm<T>(sums, affine, mean.data(), static_cast<T*>(args.variance2), args.eps2,
                        g.frozen, g.pixels(), width, args.grad_gamma2, args.grad_beta2);
}

}  // namespace
