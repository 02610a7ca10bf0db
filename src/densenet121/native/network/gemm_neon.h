// Products of 32 x 32 blocks of bf16 on ARM (FEAT_BF16). Included by gemm.h alone.
//
// BFMMLA multiplies two rows of A by two columns of B over four summands, and adds to the square of
// their four sums. So B is packed in panels of 8 columns: of four summands after another, 8 columns x
// 4 numbers.

#pragma once

namespace {

constexpr int kSquares = 4;           // squares in a row or a column of a tile
constexpr int kSide = 2 * kSquares;   // rows and columns of a tile
constexpr int kSummandsAtOnce = 4;

template <>
inline int packed_index<bf16>(int k, int n) {
  return n / kSide * kBlock * kSide + k / 4 * 4 * kSide + n % kSide * 4 + k % 4;
}

inline bfloat16x8_t two_rows(const bf16* first, const bf16* second) {
  uint64_t rows[2];
  std::memcpy(&rows[0], first, sizeof(rows[0]));
  std::memcpy(&rows[1], second, sizeof(rows[1]));
  return vreinterpretq_bf16_u64(vcombine_u64(vcreate_u64(rows[0]), vcreate_u64(rows[1])));
}

// As `multiply`, for a tile: `a`, `b` and `c` are where it begins.
inline void multiply_squares(const bf16* a, int64_t lda, const int32_t* offsets, int steps,
                             const bf16* b, float* c, bool accumulate, const Used& used) {
  float32x4_t sums[kSquares][kSquares];  // of a square by rows
  for (int r = 0; r < kSquares; r++) {
    for (int n = 0; n < kSquares; n++) {
      const float* from = c + 2 * r * kBlock + 2 * n;
      sums[r][n] =
          accumulate ? vcombine_f32(vld1_f32(from), vld1_f32(from + kBlock)) : vdupq_n_f32(0);
    }
  }
  for (int s = 0, place = used.first; s < steps; s++) {
    const bf16* as = a + (offsets ? offsets[s] : int64_t{s} * kBlock);
    const bf16* bs = b + static_cast<int64_t>(s) * kStep;
    const bool is_last = ++place == used.group;
    if (is_last) place = 0;
    const int depth = is_last ? used.last : kBlock;
    for (int k = 0; k < depth; k += kSummandsAtOnce) {
      bfloat16x8_t columns[kSquares];
      for (int n = 0; n < kSquares; n++) {
        columns[n] = vld1q_bf16(reinterpret_cast<const bfloat16_t*>(bs + k * kSide + n * 8));
      }
      for (int r = 0; r < kSquares; r++) {
        const bf16* row = as + 2 * r * lda + k;
        const bfloat16x8_t rows = two_rows(row, row + lda);
        for (int n = 0; n < kSquares; n++) {
          sums[r][n] = vbfmmlaq_f32(sums[r][n], rows, columns[n]);
        }
      }
    }
  }
  for (int r = 0; r < kSquares; r++) {
    for (int n = 0; n < kSquares; n++) {
      float* to = c + 2 * r * kBlock + 2 * n;
      vst1_f32(to, vget_low_f32(sums[r][n]));
      vst1_f32(to + kBlock, vget_high_f32(sums[r][n]));
    }
  }
}

template <>
inline void multiply<bf16>(const bf16* a, int64_t lda, const int32_t* offsets, int steps,
                           const bf16* b, float* c, bool accumulate, const Used& used) {
  for (int n = 0; n < used.columns; n += kSide) {
    for (int r = 0; r < used.rows; r += kSide) {
      multiply_squares(a + r * lda, lda, offsets, steps, b + n * kBlock, c + r * kBlock + n,
                       accumulate, used);
    }
  }
}

template <>
inline void store_packed<bf16>(bf16* step, int k, int n, Vec<bf16> row0, Vec<bf16> row1) {
  bf16 rows[2][kLanes<bf16>];
  store<bf16>(rows[0], row0, kLanes<bf16>);
  store<bf16>(rows[1], row1, kLanes<bf16>);
  for (int i = 0; i < kLanes<bf16>; i++) {
    bf16* to = step + packed_index<bf16>(k, n + i);
    to[0] = rows[0][i], to[1] = rows[1][i];
  }
}

template <>
inline void transpose_packed<bf16>(const bf16* step, bf16* out, int64_t ld) {
  for (int n = 0; n < kBlock; n++) {
    for (int k = 0; k < kBlock; k += kSummandsAtOnce) {
      std::memcpy(out + n * ld + k, step + packed_index<bf16>(k, n),
                  kSummandsAtOnce * sizeof(bf16));
    }
  }
}

}  // namespace
