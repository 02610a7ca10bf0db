// A dense layer, forward: the parts that one thread computes.
//
// A pixel is a row of memory: its channels are adjacent (channels_last). A "band" is some rows of
// pixels of one image, with a border, small enough for the thread's own cache.

#pragma once

#include "pack.h"
#include "team.h"

namespace {

// Number of steps of a product before the next block of columns, so that the packed part in use
// stays in the first-level cache.
#if defined(__AMX_BF16__)
constexpr int kStepsAtOnce = 16;
#else
constexpr int kStepsAtOnce = 4;
#endif

// C = A B for 32 rows and `columns`; c holds one 32 x 32 block for every 32 columns. The summation is
// over groups of `depth` numbers, each padded to whole steps.
template <class T>
inline void multiply_panel(const T* a, int64_t lda, const int32_t* offsets, int steps,
                           const T* panel, int64_t columns, int64_t depth, Real<T>* c) {
  const int group = static_cast<int>(round_up(depth, kBlock) / kBlock);
  for (int s = 0; s < steps; s += kStepsAtOnce) {
    const int some = smaller(kStepsAtOnce, steps - s);
    for (int b = 0; b * kBlock < columns; b++) {
      const Used used{kBlock, in_block(columns, b), group, last_step(depth), s % group};
      multiply<T>(offsets ? a : a + s * kBlock, lda, offsets ? offsets + s : nullptr, some,
                  panel + (static_cast<int64_t>(b) * steps + s) * kStep, c + b * kStep, s > 0,
                  used);
    }
  }
}

// out = relu(scale * x + shift) of some rows; zeros from `columns` to `padded`. Fetches the row that
// is `ahead` rows further into the cache, unless that is 0.
template <class T, class Out>
inline void normalise_some(const T* x, int64_t ld, int64_t rows, int64_t columns, int64_t padded,
                           const Real<T>* scale, const Real<T>* shift, Out* out, int64_t out_ld,
                           int64_t ahead = 0) {
  using R = Real<T>;
  constexpr int kRows = 4;  // that share a scale and a shift
  for (int64_t r = 0; r < rows; r += kRows) {
    const int some = smaller<int64_t>(kRows, rows - r);
    for (int64_t c = 0; c < padded; c += kLanes<T>) {
      const Vec<T> s = load<R>(scale + c, kLanes<T>), t = load<R>(shift + c, kLanes<T>);
      const T* from = x + r * ld + c;
      Out* to = out + r * out_ld + c;
      if (ahead && c % kLine<T> == 0) {
        for (int i = 0; i < kRows; i++) __builtin_prefetch(from + (ahead + i) * ld, 0, 2);
      }
      if (some == kRows && c + kLanes<T> <= columns) {
        for (int i = 0; i < kRows; i++) {
          store<Out>(to + i * out_ld, relu(load<T>(from + i * ld, kLanes<T>) * s + t), kLanes<T>);
        }
        continue;
      }
      const int n = smaller<int64_t>(kLanes<T>, columns > c ? columns - c : 0);
      for (int i = 0; i < some; i++) {
        store<Out>(to + i * out_ld, relu(load<T>(from + i * ld, n) * s + t), kLanes<T>);
      }
    }
  }
}

// relu(scale * x + shift) of some pixels; `columns` numbers each, zeros up to a multiple of 32.
template <class T>
inline void normalise_rows(const T* x, int64_t ld, int64_t rows, int64_t columns,
                           const Affine<Real<T>>& affine, T* out, int64_t out_ld,
                           int64_t ahead = 0) {
  normalise_some<T, T>(x, ld, rows, columns, round_up(columns, kBlock), affine.scale.data(),
                       affine.shift.data(), out, out_ld, ahead);
}

// Row r of a 32 x 32 block of sums, as numbers of type T.
template <class T>
inline void store_sums(const Real<T>* c, int r, T* out, int columns) {
  for (int j = 0; j < columns; j += kLanes<T>) {
    store<T>(out + j, load<Real<T>>(c + r * kBlock + j, kLanes<T>),
             smaller(kLanes<T>, columns - j));
  }
}

// z = W1 relu(norm1(x)) for up to 32 pixels.
template <class T>
inline void conv1_rows(const T* x, int64_t ld, int rows, int64_t columns,
                       const Affine<Real<T>>& affine, const T* panel, int64_t width, T* z,
                       int64_t z_ld) {
  const int64_t padded = round_up(columns, kBlock), blocks = round_up(width, kBlock) / kBlock;
  const int64_t lda = padded + kBlock;  // not a power of two: rows would share cache sets
  T* a = scratch<T>(0, kBlock * lda);
  Real<T>* c = scratch<Real<T>>(1, blocks * kStep);
  normalise_rows(x, ld, rows, columns, affine, a, lda, kBlock);  // and fetches the next pixels
  multiply_panel<T>(a, lda, nullptr, padded / kBlock, panel, width, columns, c);
  for (int64_t b = 0; b < blocks; b++) {
    for (int r = 0; r < rows; r++) {
      store_sums<T>(c + b * kStep, r, z + r * z_ld + b * kBlock,
                    smaller<int64_t>(kBlock, width - b * kBlock));
    }
  }
}

// Some rows of pixels of one image in a frame of zeros, as one sequence of pixels: a zero pixel,
// then row after row from `first - 1` to `last`, each followed by a zero pixel. The neighbour
// (dy, dx) of the pixel at q is at q + dy * pitch + dx.
struct Band {
  int64_t height, width, first, last;  // rows first .. last - 1 are computed
  int64_t pitch() const { return width + 1; }
  int64_t flat() const { return (last - first) * pitch(); }
  int64_t steps() const { return round_up(flat(), kBlock) / kBlock; }
  // Pixels of the sequence, including those that the last block of 32 reads after its end.
  int64_t framed() const { return round_up(steps() * kBlock + 2 * pitch() + 2, kBlock); }
  // Position of the band's first pixel in the sequence.
  int64_t origin() const { return 1 + pitch(); }
  // The pixels of the image at positions q .. q + 31 of the band's own rows; -1 for a zero.
  void pixels(int64_t q, int64_t* out) const {
    int64_t r = first + q / pitch(), c = q % pitch();
    for (int i = 0; i < kBlock; i++) {
      out[i] = c < width && r < last ? r * width + c : -1;
      if (++c == pitch()) c = 0, r++;
    }
  }
};

inline int64_t band_rows(int64_t images, int64_t height, int64_t width, int64_t pixel_bytes,
                         int threads) {
  const int64_t fitting = (384 << 10) / ((width + 1) * pixel_bytes) - 2;
  const int64_t fair = (height * images + 2 * threads - 1) / (2 * threads);
  return smaller(height, smaller(fitting, fair) > 1 ? smaller(fitting, fair) : int64_t{1});
}

// h = relu(norm2(z)) of a band with its border; `columns` channels, padded to a multiple of 32.
template <class T>
inline void fill_band(const Band& band, const T* z, int64_t columns, const Affine<Real<T>>& affine,
                      T* h) {
  const int64_t padded = round_up(columns, kBlock), pitch = band.pitch();
  std::memset(h, 0, padded * sizeof(T));
  T* row = h + padded;
  for (int64_t r = band.first - 1; r <= band.last; r++, row += pitch * padded) {
    if (r < 0 || r >= band.height) {
      std::memset(row, 0, pitch * padded * sizeof(T));
      continue;
    }
    normalise_rows(z + r * band.width * columns, columns, band.width, columns, affine, row, padded);
    std::memset(row + band.width * padded, 0, padded * sizeof(T));
  }
  const int64_t rest = band.framed() - (row - h) / padded;
  if (rest > 0) std::memset(row, 0, rest * padded * sizeof(T));
}

// Offsets of the pixels of the 9 taps of a 3x3 window, for each 32 channels.
inline void tap_offsets(int64_t pitch, int64_t padded, int sign, int32_t* offsets) {
  for (int tap = 0; tap < 9; tap++) {
    for (int64_t c = 0; c < padded; c += kBlock) {
      *offsets++ = sign * ((tap / 3 - 1) * pitch + tap % 3 - 1) * padded + c;
    }
  }
}

// new = W2 * h for the `blocks_of_32` of a band in its frame; written to the pixels of the image,
// `ld` numbers apart. A contested claim is for one block.
template <class T>
inline void conv2_band(const Band& band, Range blocks_of_32, const T* h, int64_t columns,
                       const T* panel, int64_t width, T* out, int64_t ld, Claim& claim) {
  const int64_t padded = round_up(columns, kBlock), blocks = round_up(width, kBlock) / kBlock;
  const int steps = 9 * padded / kBlock;
  int32_t* offsets = scratch<int32_t>(2, steps);
  tap_offsets(band.pitch(), padded, 1, offsets);
  Real<T>* c = scratch<Real<T>>(1, blocks * kStep);
  for (int64_t q = blocks_of_32.begin * kBlock; q < blocks_of_32.end * kBlock; q += kBlock) {
    multiply_panel<T>(h + (band.origin() + q) * padded, padded, offsets, steps, panel, width,
                      columns, c);
    if (!claim()) return;
    int64_t pixels[kBlock];
    band.pixels(q, pixels);
    for (int r = 0; r < kBlock; r++) {
      if (pixels[r] < 0) continue;
      for (int64_t b = 0; b < blocks; b++) {
        store_sums<T>(c + b * kStep, r, out + pixels[r] * ld + b * kBlock,
                      smaller<int64_t>(kBlock, width - b * kBlock));
      }
    }
  }
}

}  // namespace
