// Weights in the order of the packed steps of gemm.h.

#pragma once

#include "gemm.h"
#include "parallel.h"

namespace {

// B(k, n) for k < depth, n < width, padded with zeros to multiples of 32: column block after column
// block, and in each step after step. A panel has round_up(depth) * round_up(width) numbers.
template <class T, class Value>
inline void pack_panel(T* panel, int64_t depth, int64_t width, int threads, Value value) {
  const int64_t steps = round_up(depth, kBlock) / kBlock, blocks = round_up(width, kBlock) / kBlock;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < steps * blocks; i++) {
    const int64_t n0 = i / steps * kBlock, k0 = i % steps * kBlock;
    T* step = panel + i * kStep;
    for (int n = 0; n < kBlock; n++) {
      for (int k = 0; k < kBlock; k++) {
        const bool inside = n0 + n < width && k0 + k < depth;
        set(step + packed_index<T>(k, n), inside ? value(k0 + k, n0 + n) : Real<T>(0));
      }
    }
  }
}

// A convolution's weight (out, in, rows, columns) with any strides.
template <class R>
struct Weight {
  R* data;
  int64_t strides[4];
  R& operator()(int64_t o, int64_t i, int64_t r = 0, int64_t c = 0) const {
    return data[o * strides[0] + i * strides[1] + r * strides[2] + c * strides[3]];
  }
};

// Sums of 32 x 32 blocks, one set per thread. Only one such object can exist at a time.
template <class R>
struct BlockSums {
  int64_t blocks;
  int threads;
  R* numbers;

  BlockSums(int64_t blocks, int threads)
      : blocks(blocks), threads(threads), numbers(scratch<R>(7, blocks * threads * kStep)) {}
  R* block(int thread, int64_t b) { return numbers + (thread * blocks + b) * kStep; }
  // Called by each of a team's threads. There may be fewer than requested: theirs are cleared too.
  void clear(int thread, int team) {
    for (; thread < threads; thread += team) {
      std::memset(block(thread, 0), 0, blocks * kStep * sizeof(R));
    }
  }
  R total(int64_t b, int m, int n) { return total(b * kStep + m * kBlock + n); }
  R total(int64_t number) {
    R sum = 0;
    for (int t = 0; t < threads; t++) sum += block(t, 0)[number];
    return sum;
  }
  // Totals of a register of adjacent numbers, `number` and those after it.
  Vec<R> totals(int64_t number) {
    Vec<R> sum{};
    for (int t = 0; t < threads; t++) sum += load<R>(block(t, 0) + number, kLanes<R>);
    return sum;
  }
};

}  // namespace
