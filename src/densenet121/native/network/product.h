// The matrix product of inference: any number of rows, columns and summands, with an optional shift
// and relu. T is float, double, or two summands of 16 bits that are multiplied at once (pairs.h), whose
// sums are of Real<T>.
//
// B is packed in panels of two registers of columns (the last may have one), each with all summands
// one after the other. Every number of C is one sum in the order of the summands, for any division
// of the rows.

#pragma once

#include "gemm.h"
#include "pairs.h"
#include "parallel.h"

namespace {

// Number of rows whose sums fit into the registers, with a row of B and a number of A: 16
// registers, 32 for AVX-512. NEON has 32, but none of them is an operand in memory.
constexpr int kTileRows = kRegisterBytes == 64 ? 12 : kRegisters == 32 ? 8 : 6;

// Number of summands of a panel that fill half of a first-level cache of 32 kB.
template <class T>
constexpr int kDepthAtOnce = 16384 / (kPanel<T> * sizeof(T));

// Summands during which a tile prefetches cache lines of the next panel: four tiles prefetch all of
// it, and fewer do if each prefetches more.
template <class T>
constexpr int kUnroll = smaller(4, kLanes<T>);
template <class T>
constexpr int kLinesAhead = kUnroll<T> * kRegisterBytes >= 128 ? kUnroll<T> * kRegisterBytes / 128 : 1;

// Rows of A, each of some segments of adjacent numbers.
template <class T>
struct Rows {
  const T* first;
  int64_t ld, depth;  // numbers from row to row; numbers per segment
  int64_t segments = 1, segment_ld = 0;
};

// C (+)= A B for kRows rows and kVectors registers of columns, summed in registers. Rows of one
// segment have a multiple of kUnroll numbers, during which `lines` cache lines are prefetched. kLd is
// rows.ld if the compiler may know it, else 0: then no register has a row's address. There is at
// least one summand.
template <class T, int kRows, int kVectors, bool kSegmented, int64_t kLd>
__attribute__((noinline)) void product_tile(const Rows<T>& rows, const T* a, const T* b, Real<T>* c,
                                            int64_t ldc, bool accumulate, const Real<T>* shift,
                                            const T* ahead, int lines) {
  using R = Real<T>;
  // The loops that begin and end the sums are unrolled by pragma: otherwise gcc begins the sums
  // in memory, and reads them from there.
  Vec<T> sums[kRows][kVectors] = {};
  if (accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) {
        sums[r][v] = load<R>(c + r * ldc + v * kLanes<T>, kLanes<T>);
      }
    }
  }
  const int64_t lda = kLd ? kLd : rows.ld, depth = rows.depth;
  const auto add = [&](int64_t k) __attribute__((always_inline)) {
    Vec<T> row[kVectors];
    for (int v = 0; v < kVectors; v++) {
      row[v] = load<T>(b + k * kVectors * kLanes<T> + v * kLanes<T>, kLanes<T>);
    }
    for (int r = 0; r < kRows; r++) {
      const T factor = a[r * lda + k];
      for (int v = 0; v < kVectors; v++) multiply_add(sums[r][v], factor, row[v]);
    }
  };
  if constexpr (kSegmented) {
    for (int64_t s = 0; s < rows.segments; s++) {
      for (int64_t k = 0; k < depth; k++) add(k);
      a += rows.segment_ld;
      b += depth * kVectors * kLanes<T>;
    }
  } else {
    int64_t begin = 0;
    do {  // at least once: for a product without summands gcc would keep the sums in memory, too
      for (int i = 0; i < lines; i++, ahead += 64 / sizeof(T)) __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 4
      for (int64_t k = begin; k < begin + kUnroll<T>; k++) add(k);
      begin += kUnroll<T>;
    } while (begin < depth);
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; v++) {
    const Vec<T> more = shift ? load<R>(shift + v * kLanes<T>, kLanes<T>) : Vec<T>{};
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r++) {
      store<R>(c + r * ldc + v * kLanes<T>, shift ? relu(sums[r][v] + more) : sums[r][v],
               kLanes<T>);
    }
  }
}

template <class T, int kVectors, bool kSegmented, int64_t kLd, int kRows = kTileRows>
inline void product_rows(int count, const Rows<T>& rows, const T* a, const T* b, Real<T>* c,
                         int64_t ldc, bool accumulate, const Real<T>* shift, const T* ahead,
                         int lines) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      product_tile<T, kRows, kVectors, kSegmented, kLd>(rows, a, b, c, ldc, accumulate, shift, ahead,
                                                        lines);
    } else {
      product_rows<T, kVectors, kSegmented, kLd, kRows - 1>(count, rows, a, b, c, ldc, accumulate,
                                                            shift, ahead, lines);
    }
  }
}

// C (+)= A B for `count` rows and one panel of B; `width` is the number of the panel's columns, one
// or two registers. With a shift, C is relu(sums + shift). Prefetches the memory at `next`, unless
// rows have several segments.
template <class T, bool kSegmented = false, int64_t kLd = 0>
inline void product(int64_t count, const Rows<T>& rows, const T* b, int64_t width, Real<T>* c,
                    int64_t ldc, bool accumulate, const Real<T>* shift, const T* next) {
  // Tiles of nearly equal height: in a low one at the end the multiplier would have to wait.
  const int tiles = (count + kTileRows - 1) / kTileRows;
  constexpr int kTimes[5] = {4, 4, 2, 2, 1};  // by the number of tiles
  const int lines = kLinesAhead<T> * kTimes[smaller(tiles, 4)];
  const int64_t asked = rows.depth / kUnroll<T> * lines * 64 / sizeof(T);
  for (int i = 0; i < tiles; i++) {
    const Range tile = share(count, i, tiles);
    const int height = tile.end - tile.begin;
    const T* a = rows.first + tile.begin * rows.ld;
    const T* ahead = i < 4 ? next + i * asked : b;
    Real<T>* to = c + tile.begin * ldc;
    if (width == kPanel<T>) {
      product_rows<T, 2, kSegmented, kLd>(height, rows, a, b, to, ldc, accumulate, shift, ahead,
                                          lines);
    } else {
      product_rows<T, 1, kSegmented, kLd>(height, rows, a, b, to, ldc, accumulate, shift, ahead,
                                          lines);
    }
  }
}

// Pixels whose 1x1 convolution is one piece of work: a multiple of all tile heights.
constexpr int64_t kRowsAtOnce = 60;

// Numbers from one row of A to the next; not a power of two: all rows would share a cache set.
template <class T>
constexpr int64_t kSkewedDepth = kDepthAtOnce<T> + 64 / sizeof(T);

// Where C is: the first row of the panel whose first column is n, and the distance of its rows.
template <class R>
struct ByRows {
  R* first;
  int64_t ld;
  R* panel(int64_t n) const { return first + n; }
};

// Panel after panel, each with all its `rows`, of which those from `begin` on are computed. The pixels of
// a patch's window are then few cache lines apart, and not a power of two, as in rows of 128 columns.
template <class R>
struct ByPanels {
  R* first;
  int64_t rows, begin;
  static constexpr int64_t ld = kPanel<R>;
  R* panel(int64_t n) const { return first + n * rows + begin * ld; }
};

// C (+)= A B for the summands k .. k + depth - 1, at most kDepthAtOnce, of panel_depth; C is
// overwritten if k = 0. After the last summand C becomes relu(sums + shift), if there is a shift.
template <class T, class Sums>
inline void multiply_panels(int64_t rows, const T* a, int64_t k, int64_t depth, const T* panels,
                            int64_t panel_depth, int64_t width, const Sums& c,
                            const Real<T>* shift) {
  const bool ends = shift && k + depth == panel_depth;
  for (int64_t n = 0; n < width; n += kPanel<T>) {
    const int64_t some = smaller<int64_t>(kPanel<T>, width - n);
    const T* panel = panels + n * panel_depth + k * some;
    const T* next = n + some < width ? panel + some * panel_depth : panels + (k + depth) * kPanel<T>;
    product<T, false, kSkewedDepth<T>>(rows, {a, kSkewedDepth<T>, depth}, panel, some,
                                       c.panel(n), c.ld, k > 0,
                                       ends ? shift + n : nullptr, next);
  }
}

// The same for numbers of type T, of which a summand of the product has kTogether<T>: sizes of what is
// normalised for it, and the product. k, depth and panel_depth are numbers.
template <class T>
constexpr int64_t kNumbersAtOnce = kDepthAtOnce<Factor<T>> * kTogether<T>;
template <class T>
constexpr int64_t kSkewedNumbers = kSkewedDepth<Factor<T>> * kTogether<T>;

template <class T, class Sums>
inline void multiply_factors(int64_t rows, const T* a, int64_t k, int64_t depth, const T* panels,
                             int64_t panel_depth, int64_t width, const Sums& c,
                             const Real<T>* shift) {
  using F = Factor<T>;
  constexpr int kSome = kTogether<T>;
  multiply_panels<F>(rows, reinterpret_cast<const F*>(a), k / kSome, depth / kSome,
                     reinterpret_cast<const F*>(panels), panel_depth / kSome, width, c, shift);
}

// Position of the number (k, n) of B.
template <class T>
inline int64_t panel_index(int64_t k, int64_t n, int64_t depth, int64_t width) {
  const int64_t first = n / kPanel<T> * kPanel<T>;
  return first * depth + k * smaller<int64_t>(kPanel<T>, width - first) + n - first;
}

// Packs B: value(k, n), and zeros up to the padded sizes, as numbers of type T.
template <class T, class Value>
inline void pack_product(T* panels, int64_t depth, int64_t width, int threads, Value value) {
  using F = Factor<T>;
  constexpr int64_t kSome = 64;  // summands
  const int64_t padded_depth = round_up(depth, kLanes<T>) / kTogether<T>;
  const int64_t padded = round_up(width, kLanes<T>);
  const int64_t parts = (padded_depth + kSome - 1) / kSome;
  const int64_t count = (padded + kPanel<T> - 1) / kPanel<T>;
  const auto summand = summands<T>(depth, value);
  for_each_in_parallel(count * parts, threads, [&](int64_t i) {
    const int64_t first = i / parts * kPanel<T>, last = smaller(first + kPanel<T>, padded);
    for (int64_t k = i % parts * kSome; k < smaller((i % parts + 1) * kSome, padded_depth); k++) {
      F* to = reinterpret_cast<F*>(panels) + panel_index<F>(k, first, padded_depth, padded);
      for (int64_t n = first; n < last; n++) to[n - first] = n < width ? summand(k, n) : F{};
    }
  });
}

}  // namespace
