// Weights in the order of the packed steps of gemm.h.

#pragma once

#include "gemm.h"
#include "parallel.h"

namespace {

// Up to 32 x 32 numbers of a weight as B(k, n) = first[k * k_stride + n * n_stride], times scale[n] if
// it is given: it has a multiple of 32 numbers.
template <class R>
struct WeightBlock {
  const R* first;
  int64_t k_stride, n_stride;
  int depth, width;
  const R* scale = nullptr;
};

// A convolution's weight (out, in, rows, columns) with any strides.
template <class R>
struct Weight {
  R* data;
  int64_t strides[4];
  R& operator()(int64_t o, int64_t i, int64_t r = 0, int64_t c = 0) const {
    return data[o * strides[0] + i * strides[1] + r * strides[2] + c * strides[3]];
  }
  // The block from input i and output o on, of a weight with so many, with the inputs summed.
  WeightBlock<R> forward(int64_t i, int64_t o, int64_t inputs, int64_t outputs, int64_t r = 0,
                         int64_t c = 0) const {
    return {&(*this)(o, i, r, c), strides[1], strides[0], in_block(inputs, i / kBlock),
            in_block(outputs, o / kBlock)};
  }
  // The same with the outputs summed.
  WeightBlock<R> backward(int64_t o, int64_t i, int64_t outputs, int64_t inputs, int64_t r = 0,
                          int64_t c = 0) const {
    return {&(*this)(o, i, r, c), strides[0], strides[1], in_block(outputs, o / kBlock),
            in_block(inputs, i / kBlock)};
  }
};

// Packs one block as a step, padded with zeros.
template <class T>
inline void pack_step(const WeightBlock<Real<T>>& block, T* step) {
  using R = Real<T>;
  alignas(64) R numbers[kStep];  // by k
  const bool in_place = block.n_stride == 1 && block.width == kBlock;
  const R* rows = in_place ? block.first : numbers;
  const int64_t ld = in_place ? block.k_stride : kBlock;
  if (!in_place) {
    std::memset(numbers, 0, sizeof(numbers));
    for (int n = 0; n < block.width; n++) {
      for (int k = 0; k < block.depth; k++) {
        numbers[k * kBlock + n] = block.first[k * block.k_stride + n * block.n_stride];
      }
    }
  }
  for (int n = 0; n < kBlock; n += kLanes<T>) {
    const Vec<R> scale = block.scale ? load<R>(block.scale + n, kLanes<R>) : broadcast<R>(1);
    for (int k = 0; k < kBlock; k += 2) {
      Vec<R> pair[2]{};
      for (int i = 0; i < 2 && k + i < block.depth; i++) {
        pair[i] = scale * load<R>(rows + (k + i) * ld + n, kLanes<R>);
      }
      store_packed<T>(step, k, n, pair[0], pair[1]);
    }
  }
}
#if defined(__AVX512BF16__)
// The numbers of a column are pairs as they are stored: 32 bits that are transposed.
inline void pack_columns(const WeightBlock<float>& block, bf16* step) {
  for (int tile = 0; tile < 2; tile++) {
    __m512i pairs[16]{};
    for (int n = 0; n < 16 && tile * 16 + n < block.width; n++) {
      const int at = tile * 16 + n, low = smaller(block.depth, 16);
      const float* column = block.first + at * block.n_stride;
      const Vec<float> scale = broadcast<float>(block.scale ? block.scale[at] : 1);
      const Vec<float> first = scale * load<float>(column, low);
      const Vec<float> second = scale * load<float>(column + 16, block.depth - low);
      pairs[n] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
          reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
    }
    transpose_16(pairs);
    for (int k = 0; k < 16; k++) _mm512_storeu_si512(step + tile * 512 + k * 32, pairs[k]);
  }
}
#endif

// B(k, n) for k < depth, n < width, padded with zeros to multiples of 32: column block after column
// block, and in each step after step. A panel has round_up(depth) * round_up(width) numbers.
// block(k, n) is the block from there on.
template <class T, class Block>
inline void pack_panel(T* panel, int64_t depth, int64_t width, int threads, Block block) {
  const int64_t steps = round_up(depth, kBlock) / kBlock, blocks = round_up(width, kBlock) / kBlock;
  for_each_in_parallel(steps * blocks, threads, [&](int64_t i) {
    const WeightBlock<Real<T>> numbers = block(i % steps * kBlock, i / steps * kBlock);
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, bf16>) {
      if (numbers.k_stride == 1) return pack_columns(numbers, panel + i * kStep);
    }
#endif
    pack_step<T>(numbers, panel + i * kStep);
  });
}

// Sums of 32 x 32 blocks, one set for each part of a loop. Only one such object can exist at a time.
template <class R>
struct BlockSums {
  int64_t blocks;
  int parts;
  R* numbers;

  BlockSums(int64_t blocks, int parts)
      : blocks(blocks), parts(parts), numbers(scratch<R>(7, blocks * parts * kStep)) {}
  R* block(int part, int64_t b) { return numbers + (part * blocks + b) * kStep; }
  void clear(int part) { std::memset(block(part, 0), 0, blocks * kStep * sizeof(R)); }
  // Totals of a register of adjacent numbers, `number` and those after it.
  Vec<R> totals(int64_t number) {
    Vec<R> sum{};
    for (int p = 0; p < parts; p++) sum += load<R>(block(p, 0) + number, kLanes<R>);
    return sum;
  }
  // The totals of block b as numbers of a weight with so many outputs and inputs, from (o, i, r, c) on.
  void write(int64_t b, const Weight<R>& out, int64_t o, int64_t i, int64_t outputs, int64_t inputs,
             int64_t r = 0, int64_t c = 0) {
    for (int64_t m = 0; m < in_block(outputs, o / kBlock); m++) {
      write_row(b * kStep + m * kBlock, in_block(inputs, i / kBlock), &out(o + m, i, r, c),
                out.strides[1]);
    }
  }
  // Totals of `count` adjacent numbers, at most 32, to every `stride`th of `to`.
  void write_row(int64_t number, int count, R* to, int64_t stride) {
    for (int n = 0; n < count; n += kLanes<R>) {
      const Vec<R> sum = totals(number + n);
      const int some = smaller(kLanes<R>, count - n);
      if (stride == 1) {
        store<R>(to + n, sum, some);
      } else {
        for (int lane = 0; lane < some; lane++) to[(n + lane) * stride] = sum[lane];
      }
    }
  }
};

}  // namespace
