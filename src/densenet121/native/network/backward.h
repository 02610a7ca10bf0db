// A dense layer, backward: the parts that one thread computes.

#pragma once

#include "corrections.h"
#include "forward.h"

namespace {

// An odd number of cache lines, so that neighbouring rows fall into different cache sets.
template <class T>
inline int64_t skewed(int64_t numbers) {
  const int64_t lines = round_up(numbers, kLine<T>) / kLine<T>;
  return (lines | 1) * kLine<T>;
}

// out[c * ld + r] = rows[r * rows_ld + c] for 32 x 32 numbers.
template <class T>
inline void transpose_block(const T* rows, int64_t rows_ld, T* out, int64_t ld) {
  alignas(64) T step[kStep];
  for (int r = 0; r < kBlock; r += 2) {
    for (int c = 0; c < kBlock; c += kLanes<T>) {
      store_packed<T>(step, r, c, load<T>(rows + r * rows_ld + c, kLanes<T>),
                      load<T>(rows + (r + 1) * rows_ld + c, kLanes<T>));
    }
  }
  transpose_packed<T>(step, out, ld);
}

// relu and norm backward from the gradient of a convolution's input, for 32 of its pixels and up to
// 32 columns. Each of those is the average of kCount pixels of x: the one in `pixels` (-1: it is
// zero) and its neighbours at `offsets`. There, g = gradient / kCount where scale * x + shift > 0.
// Packs the convolution's input as a step of B, adds to the sums, and passes (pixel, column, lanes,
// g, scale) to `write`.
template <class T, int kCount, class Write>
inline void relu_norm_backward(const T* x, int64_t ld, const int64_t* pixels,
                               const int64_t* offsets, int columns, const Real<T>* scale,
                               const Real<T>* shift, const Real<T>* mean, const Real<T>* gradient,
                               T* step, Real<T>* sum_plain, Real<T>* sum_centred, Write write) {
  using R = Real<T>;
  constexpr R kShare = R(1) / kCount;
  // n of a whole register is a constant: nothing then asks how much of it is used.
  const auto column = [&](int c, int n) __attribute__((always_inline)) {
    const Vec<T> s = load<R>(scale + c, kLanes<T>), t = load<R>(shift + c, kLanes<T>);
    const Vec<T> m = load<R>(mean + c, n);
    Vec<T> plain{}, centred{};
    for (int r = 0; r < kBlock; r += 2) {
      Vec<T> h[2] = {};
      for (int i = 0; i < 2; i++) {
        if (pixels[r + i] < 0) continue;
        const Vec<T> d = kShare * load<R>(gradient + (r + i) * kBlock + c, kLanes<T>);
        for (int k = 0; k < kCount; k++) {
          const int64_t pixel = pixels[r + i] + (kCount > 1 ? offsets[k] : 0);
          if (c % kLine<T> == 0) __builtin_prefetch(x + (pixel + kBlock) * ld + c);
          const Vec<T> value = load<T>(x + pixel * ld + c, n);
          const Vec<T> u = value * s + t;
          const Vec<T> g = gate(u, d);
          h[i] += relu(u);
          plain += g;
          centred += g * (value - m);
          write(pixel, c, n, g, s);
        }
      }
      store_packed<T>(step, r, c, kShare * h[0], kShare * h[1]);
    }
    store<R>(sum_plain + c, load<R>(sum_plain + c, kLanes<T>) + plain, kLanes<T>);
    store<R>(sum_centred + c, load<R>(sum_centred + c, kLanes<T>) + centred, kLanes<T>);
  };
  for (int c = 0; c < kBlock; c += kLanes<T>) {
    const int n = columns - c;
    if (n >= kLanes<T>) {
      column(c, kLanes<T>);
    } else if (n > 0) {
      column(c, n);
    } else {
      for (int r = 0; r < kBlock; r += 2) store_packed<T>(step, r, c, Vec<T>{}, Vec<T>{});
    }
  }
}

// The corrected gradient of the new channels of a band, in its frame: `out` by pixels, `turned` by
// channels.
template <class T>
inline void fill_gradient(const Band& band, const T* y, const T* gradient, int64_t ld,
                          int64_t columns, const Correction<Real<T>>& k, T* out, T* turned,
                          int64_t turned_ld) {
  const int64_t padded = round_up(columns, kBlock);
  std::memset(out, 0, band.framed() * padded * sizeof(T));
  for (int64_t r = band.first - 1; r <= band.last; r++) {
    if (r < 0 || r >= band.height) continue;
    const int64_t p = r * band.width;
    corrected_rows<T>(k, y + p * ld, ld, gradient + p * ld, ld, band.width, columns, columns,
                      out + (1 + (r - band.first + 1) * band.pitch()) * padded, padded);
  }
  for (int64_t q = 0; q < band.framed(); q += kBlock) {
    for (int64_t c = 0; c < padded; c += kBlock) {
      transpose_block<T>(out + q * padded + c, padded, turned + c * turned_ld + q, turned_ld);
    }
  }
}

// The backward of the 3x3 convolution for one band: its share of the weight's gradient, and g, the
// gradient of norm2's output, of the band's own pixels.
template <class T>
inline void conv2_band_backward(const Band& band, const T* y, const T* grad_y, int64_t ld,
                                int64_t growth, const Correction<Real<T>>& k, const T* z,
                                int64_t width, const Affine<Real<T>>& affine, const Real<T>* mean,
                                const T* panel, T* g, Real<T>* plain, Real<T>* centred,
                                BlockSums<Real<T>>& grad_weight, bool weight_wanted, int part) {
  using R = Real<T>;
  const int64_t grown = round_up(growth, kBlock), padded = round_up(width, kBlock);
  const int64_t steps = band.steps(), turned_ld = skewed<T>(band.framed());
  T* dy = scratch<T>(0, band.framed() * grown);
  T* turned = scratch<T>(3, grown * turned_ld);
  fill_gradient<T>(band, y, grad_y, ld, growth, k, dy, turned, turned_ld);

  const int taps = 9 * grown / kBlock, blocks = padded / kBlock;
  const int group = static_cast<int>(grown / kBlock);
  int32_t* offsets = scratch<int32_t>(2, taps);
  tap_offsets(band.pitch(), grown, -1, offsets);
  R* c = scratch<R>(1, 2 * kStep);
  T* h = scratch<T>(4, blocks * steps * kStep);
  R* mean_padded = scratch<R>(5, padded);
  std::memset(mean_padded, 0, padded * sizeof(R));
  std::memcpy(mean_padded, mean, width * sizeof(R));
  // A product is started before the sums of the last one are used, so that the matrix unit and the
  // vector unit work in parallel.
  const auto start = [&](int64_t product) {
    const Used used{kBlock, in_block(width, product % blocks), group, last_step(growth)};
    multiply<T>(dy + (band.origin() + product / blocks * kBlock) * grown, grown, offsets, taps,
                panel + product % blocks * taps * kStep, c + product % 2 * kStep, false, used);
  };
  start(0);
  int64_t pixels[kBlock];
  for (int64_t product = 0; product < steps * blocks; product++) {
    if (product + 1 < steps * blocks) start(product + 1);
    const int64_t s = product / blocks, b = product % blocks, column = b * kBlock;
    if (b == 0) band.pixels(s * kBlock, pixels);
    T* to = g + column;
    relu_norm_backward<T, 1>(
        z + column, width, pixels, nullptr, smaller<int64_t>(kBlock, width - column),
        affine.scale.data() + column, affine.shift.data() + column, mean_padded + column,
        c + product % 2 * kStep, h + (b * steps + s) * kStep, plain + column, centred + column,
        [to, width](int64_t pixel, int at, int n, Vec<T> value, Vec<T>) {
          store<T>(to + pixel * width + at, value, n);
        });
  }
  if (!weight_wanted) return;
  for (int64_t s = 0; s < steps; s += kStepsAtOnce) {
    const int some = smaller<int64_t>(kStepsAtOnce, steps - s);
    for (int b = 0; b < blocks; b++) {
      for (int tap = 0; tap < 9; tap++) {
        const int64_t shift = (tap / 3 - 1) * band.pitch() + tap % 3 - 1;
        for (int64_t o = 0; o < group; o++) {
          const Used used{in_block(growth, o), in_block(width, b)};
          multiply<T>(turned + o * kBlock * turned_ld + band.origin() + s * kBlock - shift,
                      turned_ld, nullptr, some, h + (b * steps + s) * kStep,
                      grad_weight.block(part, (tap * blocks + b) * group + o), true, used);
        }
      }
    }
  }
}

// Input of the backward of norm, relu and a 1x1 convolution (of averages of kCount pixels).
template <class T>
struct Conv1Input {
  using R = Real<T>;
  const T* x;
  int64_t ld, columns;
  const Affine<R>& affine;
  const R* mean;           // padded with zeros to a multiple of 32
  const int64_t* offsets;  // from the first averaged pixel to the others
  const T* from;           // scale * g is added to this (null: to zero)
  T* to;                   // ... and written here
};

// That backward for `rows` output pixels. The gradient of the output is k of (g, z); `place`
// returns the first input pixel of an output pixel.
template <class T, int kCount, class Place>
inline void conv1_chunk_backward(int64_t rows, const Conv1Input<T>& in, Place place, const T* g,
                                 const T* z, int64_t width, const Correction<Real<T>>& k,
                                 const T* panel, Real<T>* plain, Real<T>* centred,
                                 BlockSums<Real<T>>& grad_weight, bool weight_wanted, int part) {
  using R = Real<T>;
  const int64_t steps = round_up(rows, kBlock) / kBlock, padded = round_up(width, kBlock);
  const int64_t column_blocks = round_up(in.columns, kBlock) / kBlock;
  const int64_t dz_ld = skewed<T>(padded), turned_ld = skewed<T>(steps * kBlock);
  T* dz = scratch<T>(0, kBlock * dz_ld);
  T* turned = scratch<T>(3, padded * turned_ld);
  T* a = scratch<T>(4, column_blocks * steps * kStep);
  R* c = scratch<R>(1, 2 * kStep);
  // As in conv2_band_backward, a product is started before the sums of the last one are used.
  const int group = static_cast<int>(padded / kBlock);
  const auto start = [&](int64_t b) {
    const Used used{kBlock, in_block(in.columns, b), group, last_step(width)};
    multiply<T>(dz, dz_ld, nullptr, group, panel + b * group * kStep, c + b % 2 * kStep, false,
                used);
  };
  for (int64_t s = 0; s < steps; s++) {
    int64_t pixels[kBlock];
    for (int r = 0; r < kBlock; r++) {
      const int64_t row = s * kBlock + r;
      pixels[r] = row < rows ? place(row) : -1;
      for (int64_t j = 0; j < padded; j += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, width > j ? width - j : 0);
        Vec<T> d{};
        if (row < rows) {
          const int64_t at = row * width + j;
          if (j % kLine<T> == 0) {  // the same channels of the next pixels
            __builtin_prefetch(g + at + kBlock * width);
            __builtin_prefetch(z + at + kBlock * width);
          }
          d = load<T>(g + at, n) * load<R>(k.scale.data() + j, kLanes<T>) +
              load<R>(k.constant.data() + j, kLanes<T>) +
              load<R>(k.slope.data() + j, kLanes<T>) * load<T>(z + at, n);
        }
        store<T>(dz + r * dz_ld + j, d, kLanes<T>);
      }
    }
    for (int64_t j = 0; j < padded; j += kBlock) {
      transpose_block<T>(dz + j, dz_ld, turned + j * turned_ld + s * kBlock, turned_ld);
    }
    start(0);
    for (int64_t b = 0; b < column_blocks; b++) {
      if (b + 1 < column_blocks) start(b + 1);
      const int64_t column = b * kBlock, ld = in.ld;
      const T* from = in.from ? in.from + column : nullptr;
      T* to = in.to + column;
      relu_norm_backward<T, kCount>(
          in.x + column, ld, pixels, in.offsets, smaller<int64_t>(kBlock, in.columns - column),
          in.affine.scale.data() + column, in.affine.shift.data() + column, in.mean + column,
          c + b % 2 * kStep, a + (b * steps + s) * kStep, plain + column, centred + column,
          [from, to, ld](int64_t pixel, int at, int n, Vec<T> value, Vec<T> scale) {
            Vec<T> sum = scale * value;
            if (from) {
              sum += load<T>(from + pixel * ld + at, n);
              // the same channels of the next pixels
              if (at % kLine<T> == 0) __builtin_prefetch(from + (pixel + kBlock) * ld + at);
            }
            store<T>(to + pixel * ld + at, sum, n);
          });
    }
  }
  if (!weight_wanted) return;
  for (int64_t b = 0; b < column_blocks; b++) {
    for (int64_t m = 0; m < group; m++) {
      const Used used{in_block(width, m), in_block(in.columns, b)};
      multiply<T>(turned + m * kBlock * turned_ld, turned_ld, nullptr, steps, a + b * steps * kStep,
                  grad_weight.block(part, b * group + m), true, used);
    }
  }
}

// Writes the sums as the gradient of a 1x1 convolution's weight.
template <class R>
inline void write_conv1_gradient(BlockSums<R>& sums, const Weight<R>& out, int64_t width,
                                 int64_t columns) {
  const int64_t width_blocks = round_up(width, kBlock) / kBlock;
  for_each_in_parallel(sums.blocks, sums.parts, [&](int64_t b) {
    const int64_t i = b / width_blocks * kBlock, o = b % width_blocks * kBlock;
    sums.write(b, out, o, i, width, columns);
  });
}

// Number of rows whose recomputed input of `columns` columns fits into the thread's own cache.
template <class T>
inline int64_t cached_rows(int64_t columns, int64_t wanted) {
  const int64_t fitting = (256 << 10) / (round_up(columns, kBlock) * sizeof(T)) / kBlock * kBlock;
  return smaller(wanted, fitting > 2 * kBlock ? fitting : int64_t{2 * kBlock});
}

}  // namespace
