// The 1x1 convolution of a dense layer in training, forward and backward, in float and double.

#pragma once

#include "corrections.h"
#include "forward.h"
#include "layer.h"
#include "outer_product.h"

namespace {

// The pixels in chunks: of one size where there are many, so that the bits of the sums do not depend
// on the number of threads; else equal shares for the threads.
struct Chunks {
  static constexpr int64_t kMost = 8 * kRowsAtOnce;
  int64_t pixels, count;
  bool shared;
  Chunks(int64_t pixels, int threads) : pixels(pixels), count((pixels + kMost - 1) / kMost) {
    shared = count < 8 * threads;
    if (shared) count = smaller(pixels, round_up(count, threads));
  }
  Range operator[](int64_t i) const {
    if (shared) return share(pixels, i, count);
    return {i * kMost, smaller((i + 1) * kMost, pixels)};
  }
};

// Calls work(pixels) for nearly equal parts of at most `most` pixels.
template <class Work>
inline void in_parts(Range pixels, int64_t most, Work work) {
  const int64_t count = pixels.end - pixels.begin;
  const int parts = (count + most - 1) / most;
  for (int i = 0; i < parts; i++) {
    const Range part = share(count, i, parts);
    work(Range{pixels.begin + part.begin, pixels.begin + part.end});
  }
}

// z = W1 relu(norm1(y)) of at most kRowsAtOnce pixels; `panels` has W1 with padded sizes.
template <class T>
void conv1_pixels(const Layer<T>& layer, Range pixels, const Affine<T>& affine, const T* panels,
                  T* z) {
  const BlockArguments& g = layer.block;
  const int64_t rows = pixels.end - pixels.begin, ld = g.columns(), width = g.bottleneck;
  const int64_t columns = round_up(layer.columns, kLanes<T>), padded = round_up(width, kLanes<T>);
  const T* y = static_cast<T*>(g.y) + pixels.begin * ld;
  T* a = scratch<T>(0, kRowsAtOnce * kSkewedDepth<T>);
  T* out = z + pixels.begin * width;
  T* c = padded == width ? out : scratch<T>(1, kRowsAtOnce * padded);
  for (int64_t k = 0; k < columns; k += kDepthAtOnce<T>) {
    const int64_t depth = smaller<int64_t>(kDepthAtOnce<T>, columns - k);
    normalise_some<T>(y + k, ld, rows, layer.columns - k, depth, affine.scale.data() + k,
                      affine.shift.data() + k, a, kSkewedDepth<T>, rows);
    multiply_panels<T>(rows, a, k, depth, panels, columns, padded, ByRows<Real<T>>{c, padded}, nullptr);
  }
  if (c == out) return;
  for (int64_t r = 0; r < rows; r++) {
    std::memcpy(out + r * width, c + r * padded, width * sizeof(T));
  }
}

template <class T>
void conv1_forward_pixels(const Layer<T>& layer, T* z) {
  const BlockArguments& g = layer.block;
  const int64_t width = g.bottleneck, padded = round_up(width, kLanes<T>);
  const int64_t columns = round_up(layer.columns, kLanes<T>);
  const Affine<T> affine = layer.norm1();
  const Weight<T> weight = layer.weight(layer.args.weight1, layer.args.strides1);
  T* panels = scratch<T>(6, columns * padded);
  pack_product<T>(panels, layer.columns, width, g.threads,
                  [&](int64_t i, int64_t o) { return weight(o, i); });
  const Chunks chunks(g.pixels(), g.threads);
  Parts<T> parts(chunks.count, width);
  for_each_in_parallel(chunks.count, g.threads, [&](int64_t i) {
    const Range chunk = chunks[i];
    in_parts(chunk, kRowsAtOnce,
             [&](Range pixels) { conv1_pixels<T>(layer, pixels, affine, panels, z); });
    if (g.frozen) return;
    parts.rows[i] = chunk.end - chunk.begin;
    column_sums(z + chunk.begin * width, width, parts.rows[i], width, parts.shift(i), parts.sum(i),
                parts.square(i));
  });
  if (!g.frozen) {
    parts.combine(static_cast<T*>(layer.args.mean2), static_cast<T*>(layer.args.variance2));
  }
}

// Pixels of the backward at once: a multiple of all tile heights.
constexpr int64_t kBackwardRows = 120;

// relu and norm1 backward for kVectors registers of columns of some pixels, the last one with `lanes`
// columns in use. gradient: of the convolution's input; a: becomes that input. Writes to = from +
// scale * g, with g = gradient where relu was open, and adds g and g * (x - mean) to the sums.
template <class T, int kVectors>
inline void relu_norm1_backward(int64_t rows, int lanes, const T* x, const T* from, T* to,
                                int64_t ld, const T* scale, const T* shift, const T* mean,
                                const T* gradient, T* a, int64_t block_ld, T* sum_plain,
                                T* sum_centred) {
  Vec<T> plain[kVectors], centred[kVectors];
  const auto at = [](auto* p, int v) { return load<T>(p + v * kLanes<T>, kLanes<T>); };
  for (int v = 0; v < kVectors; v++) plain[v] = at(sum_plain, v), centred[v] = at(sum_centred, v);
  // n of a whole register is a constant: nothing then asks how much of it is used.
  const auto row = [&](int64_t r, int v, int n) __attribute__((always_inline)) {
    const int64_t c = v * kLanes<T>;
    const Vec<T> value = load<T>(x + r * ld + c, n), s = at(scale, v);
    const Vec<T> u = value * s + at(shift, v), g = gate(u, at(gradient + r * block_ld, v));
    store<T>(a + r * block_ld + c, relu(u), kLanes<T>);
    plain[v] += g;
    centred[v] += g * (value - at(mean, v));
    store<T>(to + r * ld + c, s * g + load<T>(from + r * ld + c, n), n);
  };
  for (int64_t r = 0; r < rows; r++) {
    // the next block of columns
    __builtin_prefetch(x + r * ld + kBlock);
    __builtin_prefetch(from + r * ld + kBlock);
    for (int v = 0; v + 1 < kVectors; v++) row(r, v, kLanes<T>);
    if (lanes == kLanes<T>) {
      row(r, kVectors - 1, kLanes<T>);
    } else {
      row(r, kVectors - 1, lanes);
    }
  }
  for (int v = 0; v < kVectors; v++) {
    store<T>(sum_plain + v * kLanes<T>, plain[v], kLanes<T>);
    store<T>(sum_centred + v * kLanes<T>, centred[v], kLanes<T>);
  }
}

// Backward of the 1x1 convolution of one layer, for one thread at a time.
template <class T>
struct Conv1Backward {
  const Layer<T>& layer;
  const T *z, *grad_y;
  const Correction<T>& k;  // of grad_bottleneck and z
  const Affine<T>& affine;
  const T* mean;    // padded to a multiple of 32
  const T* panels;  // W1, from `padded` to `columns` numbers, multiples of the lanes
  int64_t columns, padded;

  // At most kBackwardRows pixels. The gradient of the weight has blocks of 32 columns, each of
  // `padded` rows.
  void run(Range pixels, T* plain, T* centred, T* grad_weight) const {
    const BlockArguments& g = layer.block;
    const int64_t rows = pixels.end - pixels.begin, ld = g.columns(), width = g.bottleneck;
    const int64_t dz_ld = padded + 64 / static_cast<int64_t>(sizeof(T));  // not a power of two
    T* dz = scratch<T>(0, kBackwardRows * dz_ld);
    T* gradient = scratch<T>(1, kBackwardRows * kBlock);
    T* a = scratch<T>(2, kBackwardRows * kBlock);
    for (int64_t r = pixels.begin; r < pixels.end; r++) {  // the first block of columns
      for (int64_t c = 0; c < kBlock; c += kLine<T>) {
        __builtin_prefetch(static_cast<T*>(g.y) + r * ld + c);
        __builtin_prefetch(grad_y + r * ld + c);
      }
    }
    scale_rows(rows, static_cast<T*>(g.grad_bottleneck) + pixels.begin * width,
               z + pixels.begin * width, dz, dz_ld);
    for (int64_t first = 0; first < columns; first += kBlock) {
      const int64_t some = smaller<int64_t>(kBlock, columns - first);
      for (int64_t n = 0; n < some; n += kPanel<T>) {
        const int64_t panel_width = smaller<int64_t>(kPanel<T>, some - n);
        const T* panel = panels + (first + n) * padded;
        product<T>(rows, {dz, dz_ld, padded}, panel, panel_width, gradient + n, kBlock, false,
                   nullptr, panel + panel_width * padded);
        const auto backward =
            panel_width == kPanel<T> ? relu_norm1_backward<T, 2> : relu_norm1_backward<T, 1>;
        const int64_t at = first + n, place = pixels.begin * ld + at;
        const int64_t left = layer.columns - at - panel_width + kLanes<T>;
        backward(rows, smaller<int64_t>(kLanes<T>, left), static_cast<T*>(g.y) + place,
                 grad_y + place, static_cast<T*>(g.grad_buffer) + place, ld,
                 affine.scale.data() + at, affine.shift.data() + at, mean + at, gradient + n, a + n,
                 kBlock, plain + at, centred + at);
      }
      if (!grad_weight) continue;
      outer_product<T>(padded, some, rows, dz, dz_ld, a, kBlock, grad_weight + first * padded,
                       some);
    }
  }

  // dz: the gradient of z.
  void scale_rows(int64_t rows, const T* gradient, const T* z, T* dz, int64_t dz_ld) const {
    const int64_t width = layer.block.bottleneck;
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t c = 0; c < padded; c += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, width - c);
        const Vec<T> d = load<T>(gradient + r * width + c, n) *
                             load<T>(k.scale.data() + c, kLanes<T>) +
                         load<T>(k.constant.data() + c, kLanes<T>) +
                         load<T>(k.slope.data() + c, kLanes<T>) * load<T>(z + r * width + c, n);
        store<T>(dz + r * dz_ld + c, d, kLanes<T>);
      }
    }
  }
};

// Returns the sums over the pixels for norm1; writes the gradient of the weight and grad_buffer.
template <class T>
GradientSums<T> conv1_backward_pixels(const Layer<T>& layer, const T* z, const T* grad_y,
                                      const Correction<T>& k, const Affine<T>& affine) {
  const BlockArguments& g = layer.block;
  const LayerArguments& args = layer.args;
  const int64_t width = g.bottleneck, padded = round_up(width, kLanes<T>);
  const int64_t columns = round_up(layer.columns, kLanes<T>);
  std::vector<T> mean(round_up(columns, kBlock));
  std::memcpy(mean.data(), args.mean1, layer.columns * sizeof(T));
  const Weight<T> weight = layer.weight(args.weight1, args.strides1);
  T* panels = scratch<T>(6, columns * padded);
  pack_product<T>(panels, width, layer.columns, g.threads,
                  [&](int64_t o, int64_t i) { return weight(o, i); });
  const Chunks chunks(g.pixels(), g.threads);
  BlockSums<T> grad_weight(round_up(columns * padded, kStep) / kStep, g.threads);
  GradientSums<T> sums(chunks.count, layer.columns);
  const Conv1Backward<T> backward{layer,       z,      grad_y,  k,     affine,
                                  mean.data(), panels, columns, padded};
  in_parallel(chunks.count, g.threads, [&](int part, Range items) {
    grad_weight.clear(part);
    for (int64_t i = items.begin; i < items.end; i++) {
      in_parts(chunks[i], kBackwardRows, [&](Range pixels) {
        backward.run(pixels, sums.plain(i), sums.centred(i),
                     args.grad_weight1 ? grad_weight.block(part, 0) : nullptr);
      });
    }
  });
  if (!args.grad_weight1) return sums;
  const Weight<T> out = layer.weight(args.grad_weight1, args.strides1);
  for_each_in_parallel(width, g.threads, [&](int64_t o) {
    for (int64_t i = 0; i < layer.columns; i += kBlock) {
      grad_weight.write_row(i * padded + o * smaller<int64_t>(kBlock, columns - i),
                            in_block(layer.columns, i / kBlock), &out(o, i), out.strides[1]);
    }
  });
  return sums;
}

}  // namespace
