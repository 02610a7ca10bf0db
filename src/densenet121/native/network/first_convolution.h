// conv0 in inference, for the types of inference_layers.h, with norm0, relu and pool0 if the stem has them: rows of
// the convolution are pooled while they are in the cache.
//
// In a row of pixels with adjacent channels, a row of a window is one contiguous piece of memory,
// and that of the next window begins `stride` pixels later. The only copy needed is the one that
// adds the zeros of the border. The images are of Real<T>: in bf16 that copy rounds them.

#pragma once

#include "product.h"
#include "stem.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct FirstConvolution {
  int64_t images, height, width, channels;  // of x
  int64_t columns, kernel, stride, padding;
  int64_t x_strides[4], weight_strides[4];
  void *x, *weight;

  int64_t output(int64_t size) const { return (size + 2 * padding - kernel) / stride + 1; }
  template <class T>
  Weight<T> weights() const {
    const int64_t* s = weight_strides;
    return {static_cast<T*>(weight), {s[0], s[1], s[2], s[3]}};
  }
};

// Numbers of a pixel and of a row of the copied images, of a row of a window and of a window. All but
// the third begin at a multiple of kTogether numbers.
template <class T>
struct FirstLayout {
  int64_t pixel, row, segment, depth;

  explicit FirstLayout(const FirstConvolution& f)
      : pixel(f.channels + f.stride * f.channels % kTogether<T>),
        row(round_up((f.width + 2 * f.padding) * pixel + kTogether<T> - 1, kTogether<T>)),
        segment(round_up(f.kernel * pixel, kTogether<T>)),
        depth(f.kernel * segment) {}
};

// Panels of the weights, each output channel multiplied by its scale (null: 1).
template <class T>
void pack_first_convolution(const FirstConvolution& f, const Real<T>* scale, T* panels) {
  using F = Factor<T>;
  const FirstLayout<T> at(f);
  const int64_t width = round_up(f.columns, kLanes<T>), depth = at.depth / kTogether<T>;
  const Weight<Real<T>> weight = f.weights<Real<T>>();
  const auto value = [&](int64_t k, int64_t n) {
    const int64_t row = k / at.segment, column = k % at.segment / at.pixel;
    const int64_t channel = k % at.segment % at.pixel;
    if (column >= f.kernel || channel >= f.channels) return Real<T>(0);
    return (scale ? scale[n] : Real<T>(1)) * weight(n, channel, row, column);
  };
  const auto summand = summands<T>(at.depth, value);
  std::memset(panels, 0, at.depth * width * sizeof(T));
  for (int64_t k = 0; k < depth; k++) {
    for (int64_t n = 0; n < f.columns; n++) {
      reinterpret_cast<F*>(panels)[panel_index<F>(k, n, depth, width)] = summand(k, n);
    }
  }
}

// Some output rows of one image.
template <class T>
struct StemRows {
  using R = Real<T>;
  const FirstConvolution& f;
  const FirstLayout<T> at;
  const T* panels;
  const R* shift;  // none: neither norm nor relu
  int64_t image;
  T* inputs;   // scratch: padded rows of x
  R* outputs;  // scratch: rows of the convolution
  int64_t first_input = 0;

  StemRows(const FirstConvolution& f, const T* panels, const R* shift, int64_t image,
           int64_t input_rows, int64_t output_rows)
      : f(f),
        at(f),
        panels(panels),
        shift(shift),
        image(image),
        inputs(scratch<T>(2, input_rows * at.row)),
        outputs(scratch<R>(4, output_rows * output_numbers())) {}

  int64_t padded() const { return round_up(f.columns, kLanes<T>); }
  int64_t output_numbers() const { return f.output(f.width) * padded(); }

  // Rows of x that the output rows first .. last - 1 read, in a frame of zeros.
  void read(int64_t first, int64_t last) {
    first_input = first * f.stride - f.padding;
    const int64_t* s = f.x_strides;
    const R* x = static_cast<R*>(f.x) + image * s[0];
    T* to = inputs;
    for (int64_t r = first_input; r < (last - 1) * f.stride - f.padding + f.kernel; r++) {
      std::memset(to, 0, at.row * sizeof(T));
      if (r >= 0 && r < f.height) read_row(x + r * s[2], to + f.padding * at.pixel);
      to += at.row;
    }
  }

  void read_row(const R* from, T* to) const {
    const int64_t apart = f.x_strides[1], pixel = f.x_strides[3];
    if (pixel == f.channels && at.pixel == f.channels && (apart == 1 || f.channels == 1)) {
      store_numbers<T>(from, f.width * f.channels, to);
      return;
    }
    for (int64_t c = 0; c < f.channels; c++) {
      for (int64_t i = 0; i < f.width; i++) set(to + i * at.pixel + c, from[c * apart + i * pixel]);
    }
  }

  // Writes row r of the output, prepared by `read`, to `out`: padded() numbers per pixel.
  void convolve(int64_t r, R* out) const {
    using F = Factor<T>;
    constexpr int kSome = kTogether<T>;
    const T* first = inputs + (r * f.stride - f.padding - first_input) * at.row;
    const Rows<F> rows{reinterpret_cast<const F*>(first), f.stride * at.pixel / kSome,
                       at.segment / kSome, f.kernel, at.row / kSome};
    const F* panel = reinterpret_cast<const F*>(panels);
    for (int64_t n = 0; n < padded(); n += kPanel<F>) {
      const int64_t some = smaller<int64_t>(kPanel<F>, padded() - n);
      product<F, true>(f.output(f.width), rows, panel + n * at.depth / kSome, some, out + n,
                       padded(), false, shift ? shift + n : nullptr, panel);
    }
  }
};

// Writes rows begin .. end - 1 of the convolution to y, whose pixels are `ld` numbers apart.
template <class T>
void convolve_rows(const FirstConvolution& f, const T* panels, int64_t image, Range range, T* y,
                   int64_t ld) {
  StemRows<T> rows(f, panels, nullptr, image, (range.end - range.begin) * f.stride + f.kernel, 1);
  rows.read(range.begin, range.end);
  const int64_t width = f.output(f.width);
  for (int64_t r = range.begin; r < range.end; r++) {
    rows.convolve(r, rows.outputs);
    for (int64_t p = 0; p < width; p++) {
      store_numbers<T>(rows.outputs + p * rows.padded(), f.columns, y + (r * width + p) * ld);
    }
  }
}

constexpr int kRing = 3;  // rows of the convolution that the pooling reads

// One row of the maximum of 3 x 3 pixels with stride 2 to `out`; `ring` has row i of its input at i % kRing.
// In place of what is outside of the image, a pixel of the window inside of it is read once more.
template <class T>
inline void pool_row(const StemArguments& pool, int64_t row, const Real<T>* ring, int64_t row_numbers,
                     int64_t pixel_numbers, int64_t columns, T* out, int64_t ld) {
  const Window window(pool, row, 0);
  const Real<T>* rows[kRing];
  for (int i = 0; i < kRing; i++) {
    const int64_t inside = smaller(i < window.rows.begin ? window.rows.begin : i, window.rows.end - 1);
    rows[i] = ring + (window.top + inside) % kRing * row_numbers;
  }
  // nan is larger than everything, as in torch
  const auto larger = [](Vec<T> a, Vec<T> b) { return (b > a) | (b != b) ? b : a; };
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const auto of_column = [&](int64_t column) __attribute__((always_inline)) {
      const int64_t at = smaller(column < 0 ? 0 : column, pool.width - 1) * pixel_numbers + c;
      const auto number = [&](int i) { return load<Real<T>>(rows[i] + at, kLanes<T>); };
      return larger(larger(number(0), number(1)), number(2));
    };
    const int n = smaller<int64_t>(kLanes<T>, columns - c);
    Vec<T> shared = of_column(window.left);  // by a window and the one before
    for (int64_t i = 0; i < pool.out_width; i++) {
      const int64_t left = window.left + 2 * i;
      const Vec<T> first = larger(shared, of_column(left + 1));
      shared = of_column(left + 2);
      store<T>(out + i * ld + c, larger(first, shared), n);
    }
  }
}

// The same for the maximum of 3 x 3 pixels with stride 2 of relu(norm(convolution)).
template <class T>
void convolve_and_pool_rows(const FirstConvolution& f, const StemArguments& pool, const T* panels,
                            const Real<T>* shift, int64_t image, Range range, T* y, int64_t ld) {
  const int64_t first = range.begin * 2 > pool.pad_top ? range.begin * 2 - pool.pad_top : 0;
  const int64_t last = smaller(range.end * 2 - pool.pad_top + 1, pool.height);
  StemRows<T> rows(f, panels, shift, image, (last - first) * f.stride + f.kernel, kRing);
  rows.read(first, last);
  int64_t done = first;  // rows of the convolution before this one
  for (int64_t row = range.begin; row < range.end; row++) {
    const int64_t bottom = smaller(row * 2 - pool.pad_top + 3, pool.height);
    for (; done < bottom; done++) {
      rows.convolve(done, rows.outputs + done % kRing * rows.output_numbers());
    }
    pool_row<T>(pool, row, rows.outputs, rows.output_numbers(), rows.padded(), f.columns,
                y + row * pool.out_width * ld, ld);
  }
}

}  // namespace
