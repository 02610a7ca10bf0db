// Scratch memory of threads, and deterministic sums over columns.

#pragma once

#include <cmath>
#include <cstdlib>
#include <new>
#include <vector>

#include "loops.h"
#include "simd.h"

namespace {

// Number of pieces of at most `most` of n: as many for each of the threads, as far as none becomes
// smaller than `least`.
inline int64_t even_pieces(int64_t n, int64_t most, int64_t least, int64_t threads) {
  const int64_t fewest = (n + most - 1) / most, allowed = n / least;
  return smaller(round_up(fewest, threads), allowed > fewest ? allowed : fewest);
}

// The same of rows of a product, which are too few if they are less than half of `most`.
inline int64_t row_pieces(int64_t rows, int64_t most, int64_t threads) {
  return even_pieces(rows, most, most / 2, threads);
}

// Memory of this thread that is reused between calls, because new pages are slow. Its content is
// lost when a `slot` needs more than ever before.
template <class T>
inline T* scratch(int slot, int64_t count) {
  struct Slot {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Slot() { std::free(memory); }
  };
  static thread_local Slot slots[8];
  const size_t bytes = round_up(count * sizeof(T) + 256, 4096);
  Slot& s = slots[slot];
  if (s.bytes < bytes) {
    std::free(s.memory);
    s.bytes = 0;  // also if there is no memory: the next call must not take what is gone
    s.memory = std::aligned_alloc(4096, bytes);
    if (!s.memory) throw std::bad_alloc();
    s.bytes = bytes;
  }
  return static_cast<T*>(s.memory);
}

// Sums of every column over some rows. Values are relative to the first row, so that the variance
// does not lose digits if the mean is far from zero.
template <class T>
inline void column_sums(const T* rows, int64_t ld, int64_t num_rows, int64_t columns,
                        Real<T>* shift, Real<T>* sum, Real<T>* square) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const int n = smaller<int64_t>(kLanes<T>, columns - c);
    const Vec<T> first = load<T>(rows + c, n);
    Vec<T> s{}, q{};
    for (int64_t r = 0; r < num_rows; r++) {
      const Vec<T> d = load<T>(rows + r * ld + c, n) - first;
      s += d;
      q += d * d;
    }
    store<Real<T>>(shift + c, first, n);
    store<Real<T>>(sum + c, s, n);
    store<Real<T>>(square + c, q, n);
  }
}

// Column sums of consecutive parts of the rows, each computed by one thread.
template <class R>
struct Parts {
  int64_t columns;
  std::vector<int64_t> rows;
  std::vector<R> numbers;

  Parts(int64_t parts, int64_t columns)
      : columns(columns), rows(parts, 0), numbers(parts * columns * 3) {}
  R* shift(int64_t part) { return numbers.data() + part * columns * 3; }
  R* sum(int64_t part) { return shift(part) + columns; }
  R* square(int64_t part) { return shift(part) + 2 * columns; }

  // Mean and variance (divided by the number of rows) of all parts, in their order: Chan, Golub,
  // LeVeque 1979, "Updating formulae", equation 2.1.
  void combine(R* mean, R* variance) {
    for (int64_t c = 0; c < columns; c++) {
      double n = 0, m = 0, m2 = 0;
      for (size_t p = 0; p < rows.size(); p++) {
        if (rows[p] == 0) continue;
        const double k = rows[p], s = sum(p)[c], q = square(p)[c];
        const double part_mean = shift(p)[c] + s / k, delta = part_mean - m;
        m2 += (q - s * s / k) + delta * delta * n * k / (n + k);
        m += delta * k / (n + k);
        n += k;
      }
      mean[c] = m;
      variance[c] = m2 > 0 ? m2 / n : (m2 == m2 ? 0 : m2);
    }
  }
};

// A batch norm as scale * x + shift, zero in the columns of padding.
template <class R>
struct Affine {
  std::vector<R> scale, shift;

  // From numbers that were computed before, padding included.
  Affine(const R* scale, const R* shift, int64_t padded)
      : scale(scale, scale + padded), shift(shift, shift + padded) {}
  Affine(const R* gamma, const R* beta, const R* mean, const R* variance, double eps,
         int64_t columns)
      : scale(round_up(columns, 32)), shift(round_up(columns, 32)) {
    for (int64_t c = 0; c < columns; c++) {
      scale[c] = gamma[c] / std::sqrt(variance[c] + eps);
      shift[c] = beta[c] - mean[c] * scale[c];
    }
  }
};

}  // namespace
