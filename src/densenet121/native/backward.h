// A dense layer, backward: the pieces that one thread computes.
//
// The backward of batch norm needs two sums over all pixels before it can give the gradient of any
// one: with g the gradient of its output, dx = scale * g - mean(scale * g) - (x - mean) * slope. So
// the gradients before that correction are written, the sums taken on the way, and whoever reads
// them applies the correction, which is of the form constant + slope * x for each channel.

#pragma once

#include "forward.h"

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

// An odd number of cache lines, so that neighbouring rows fall into different cache sets.
template <class T>
inline int64_t skewed(int64_t numbers) {
  const int64_t line = 64 / sizeof(T);
  const int64_t lines = round_up(numbers, line) / line;
  return (lines | 1) * line;
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

// relu and norm backward where a convolution's gradient arrives: for 32 pixels (-1: a zero pixel)
// and up to 32 columns at x, g = gradient where scale * x + shift > 0. Packs relu(scale * x +
// shift) as a step of B, adds up the sums, hands (pixel, column, lanes, g, scale) on to `write`.
template <class T, class Write>
inline void relu_norm_backward(const T* x, int64_t ld, const int64_t* pixels, int columns,
                               const Real<T>* scale, const Real<T>* shift, const Real<T>* mean,
                               const Real<T>* gradient, T* step, Real<T>* sum_plain,
                               Real<T>* sum_centred, Write write) {
  using R = Real<T>;
  for (int c = 0; c < kBlock; c += kLanes<T>) {
    const int n = smaller(kLanes<T>, columns - c);
    if (n <= 0) {
      for (int r = 0; r < kBlock; r += 2) store_packed<T>(step, r, c, Vec<T>{}, Vec<T>{});
      continue;
    }
    const Vec<T> s = load<R>(scale + c, kLanes<T>), t = load<R>(shift + c, kLanes<T>);
    const Vec<T> m = load<R>(mean + c, n);
    Vec<T> plain{}, centred{};
    for (int r = 0; r < kBlock; r += 2) {
      Vec<T> h[2] = {};
      for (int i = 0; i < 2; i++) {
        const int64_t pixel = pixels[r + i];
        if (pixel < 0) continue;
        const Vec<T> value = load<T>(x + pixel * ld + c, n);
        const Vec<T> u = value * s + t;
        const Vec<T> g = gate(u, load<R>(gradient + (r + i) * kBlock + c, kLanes<T>));
        h[i] = relu(u);
        plain += g;
        centred += g * (value - m);
        write(pixel, c, n, g, s);
      }
      store_packed<T>(step, r, c, h[0], h[1]);
    }
    store<R>(sum_plain + c, load<R>(sum_plain + c, kLanes<T>) + plain, kLanes<T>);
    store<R>(sum_centred + c, load<R>(sum_centred + c, kLanes<T>) + centred, kLanes<T>);
  }
}

// The gradient of the new channels of a band, in its frame, corrected: `out` by pixels, `turned`
// by channels.
template <class T>
inline void fill_gradient(const Band& band, const T* y, const T* gradient, int64_t ld,
                          int64_t columns, const Correction<Real<T>>& k, T* out, T* turned,
                          int64_t turned_ld) {
  using R = Real<T>;
  const int64_t padded = round_up(columns, kBlock);
  std::memset(out, 0, band.framed() * padded * sizeof(T));
  for (int64_t r = band.first - 1; r <= band.last; r++) {
    if (r < 0 || r >= band.height) continue;
    T* to = out + (1 + (r - band.first + 1) * band.pitch()) * padded;
    for (int64_t p = r * band.width; p < (r + 1) * band.width; p++, to += padded) {
      for (int64_t c = 0; c < columns; c += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, columns - c);
        const Vec<T> d = load<T>(gradient + p * ld + c, n) +
                         load<R>(k.constant.data() + c, kLanes<T>) +
                         load<R>(k.slope.data() + c, kLanes<T>) * load<T>(y + p * ld + c, n);
        store<T>(to + c, d, n);
      }
    }
  }
  for (int64_t q = 0; q < band.framed(); q += kBlock) {
    for (int64_t c = 0; c < padded; c += kBlock) {
      transpose_block<T>(out + q * padded + c, padded, turned + c * turned_ld + q, turned_ld);
    }
  }
}

// What of the 3x3 convolution's backward is one band's: its share of the weight's gradient, and
// g, the gradient of norm2's output, of the band's own pixels.
template <class T>
inline void conv2_band_backward(const Band& band, const T* y, const T* grad_y, int64_t ld,
                                int64_t growth, const Correction<Real<T>>& k, const T* z,
                                int64_t width, const Affine<Real<T>>& affine, const Real<T>* mean,
                                const T* panel, T* g, Real<T>* plain, Real<T>* centred,
                                BlockSums<Real<T>>& grad_weight, bool weight_wanted, int thread) {
  using R = Real<T>;
  const int64_t grown = round_up(growth, kBlock), padded = round_up(width, kBlock);
  const int64_t steps = band.steps(), turned_ld = skewed<T>(band.framed());
  T* dy = scratch<T>(0, band.framed() * grown);
  T* turned = scratch<T>(3, grown * turned_ld);
  fill_gradient<T>(band, y, grad_y, ld, growth, k, dy, turned, turned_ld);

  const int taps = 9 * grown / kBlock, blocks = padded / kBlock;
  int32_t* offsets = scratch<int32_t>(2, taps);
  tap_offsets(band.pitch(), grown, -1, offsets);
  R* c = scratch<R>(1, blocks * kStep);
  T* h = scratch<T>(4, blocks * steps * kStep);
  R* mean_padded = scratch<R>(5, padded);
  std::memset(mean_padded, 0, padded * sizeof(R));
  std::memcpy(mean_padded, mean, width * sizeof(R));
  for (int64_t s = 0; s < steps; s++) {
    multiply_panel<T>(dy + (band.origin() + s * kBlock) * grown, grown, offsets, taps, panel, blocks,
                      c);
    int64_t pixels[kBlock];
    band.pixels(s * kBlock, pixels);
    for (int b = 0; b < blocks; b++) {
      const int64_t column = b * kBlock;
      relu_norm_backward<T>(z + column, width, pixels, smaller<int64_t>(kBlock, width - column),
                            affine.scale.data() + column, affine.shift.data() + column,
                            mean_padded + column, c + b * kStep, h + (b * steps + s) * kStep,
                            plain + column, centred + column,
                            [&](int64_t pixel, int at, int n, Vec<T> value, Vec<T>) {
                              store<T>(g + pixel * width + column + at, value, n);
                            });
    }
  }
  if (!weight_wanted) return;
  for (int64_t s = 0; s < steps; s += kStepsAtOnce) {
    const int some = smaller<int64_t>(kStepsAtOnce, steps - s);
    for (int b = 0; b < blocks; b++) {
      for (int tap = 0; tap < 9; tap++) {
        const int64_t shift = (tap / 3 - 1) * band.pitch() + tap % 3 - 1;
        for (int64_t o = 0; o < grown; o += kBlock) {
          multiply<T>(turned + o * turned_ld + band.origin() + s * kBlock - shift, turned_ld,
                      nullptr, some, h + (b * steps + s) * kStep,
                      grad_weight.block(thread, (tap * blocks + b) * (grown / kBlock) + o / kBlock),
                      true);
        }
      }
    }
  }
}

// The same for the 1x1 convolution and `rows` neighbouring pixels: g is the gradient of norm2's
// output, k its correction; scale * (gradient of norm1's output) is added to `from`, into `to`.
template <class T>
inline void conv1_chunk_backward(int64_t rows, const T* y, int64_t ld, int64_t columns,
                                 const Affine<Real<T>>& affine, const Real<T>* mean_padded,
                                 const T* g, const T* z, int64_t width,
                                 const Correction<Real<T>>& k, const T* panel, const T* from, T* to,
                                 Real<T>* plain, Real<T>* centred, BlockSums<Real<T>>& grad_weight,
                                 bool weight_wanted, int thread) {
  using R = Real<T>;
  const int64_t steps = round_up(rows, kBlock) / kBlock, padded = round_up(width, kBlock);
  const int64_t column_blocks = round_up(columns, kBlock) / kBlock;
  const int64_t dz_ld = skewed<T>(padded), turned_ld = skewed<T>(steps * kBlock);
  T* dz = scratch<T>(0, kBlock * dz_ld);
  T* turned = scratch<T>(3, padded * turned_ld);
  T* a = scratch<T>(4, column_blocks * steps * kStep);
  R* c = scratch<R>(1, kStep);
  for (int64_t s = 0; s < steps; s++) {
    int64_t pixels[kBlock];
    for (int r = 0; r < kBlock; r++) {
      const int64_t pixel = s * kBlock + r;
      pixels[r] = pixel < rows ? pixel : -1;
      for (int64_t j = 0; j < padded; j += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, width > j ? width - j : 0);
        Vec<T> d{};
        if (pixel < rows) {
          d = load<T>(g + pixel * width + j, n) * load<R>(k.scale.data() + j, kLanes<T>) +
              load<R>(k.constant.data() + j, kLanes<T>) +
              load<R>(k.slope.data() + j, kLanes<T>) * load<T>(z + pixel * width + j, n);
        }
        store<T>(dz + r * dz_ld + j, d, kLanes<T>);
      }
    }
    for (int64_t j = 0; j < padded; j += kBlock) {
      transpose_block<T>(dz + j, dz_ld, turned + j * turned_ld + s * kBlock, turned_ld);
    }
    for (int64_t b = 0; b < column_blocks; b++) {
      const int64_t column = b * kBlock;
      multiply<T>(dz, dz_ld, nullptr, padded / kBlock, panel + b * padded / kBlock * kStep, c,
                  false);
      relu_norm_backward<T>(
          y + column, ld, pixels, smaller<int64_t>(kBlock, columns - column),
          affine.scale.data() + column, affine.shift.data() + column, mean_padded + column, c,
          a + (b * steps + s) * kStep, plain + column, centred + column,
          [&](int64_t pixel, int at, int n, Vec<T> value, Vec<T> scale) {
            const int64_t place = pixel * ld + column + at;
            store<T>(to + place, load<T>(from + place, n) + scale * value, n);
          });
    }
  }
  if (!weight_wanted) return;
  for (int64_t b = 0; b < column_blocks; b++) {
    for (int64_t m = 0; m < padded / kBlock; m++) {
      multiply<T>(turned + m * kBlock * turned_ld, turned_ld, nullptr, steps, a + b * steps * kStep,
                  grad_weight.block(thread, b * (padded / kBlock) + m), true);
    }
  }
}

}  // namespace
