// Products of 32 x 32 blocks: all products of bf16, and those of transitions. product.h has the others.
//
// A is stored by rows, 32 per block; each step uses 32 adjacent numbers of the summation. B is
// packed: step after step, each 32 (summation) x 32 (columns), in the order that the instruction
// set needs: for bf16 two tiles of 16 columns, with adjacent pairs of the summation (ARM:
// gemm_neon.h); otherwise panels of two registers of columns, each by rows. C is 32 x 32 sums of
// Real<T>, by rows; every sum is computed in the order of the summation.

#pragma once

#include "simd.h"
#include "tiles.h"

namespace {

constexpr int kBlock = 32;
constexpr int kStep = kBlock * kBlock;  // numbers of B in one step

template <class T>
constexpr int kPanel = 2 * kLanes<T>;  // columns

// Position of the number (k, n) in a step of B.
template <class T>
inline int packed_index(int k, int n) {
  return n / kPanel<T> * kBlock * kPanel<T> + k * kPanel<T> + n % kPanel<T>;
}
#if defined(__AVX512BF16__)
template <>
inline int packed_index<bf16>(int k, int n) {
  return (n / 16) * 512 + (k / 2) * 32 + (n % 16) * 2 + (k % 2);
}
#endif

// What of the blocks of a product is used; the rest of C is then not computed, and need not be
// stored. Narrow networks have blocks that are mostly padding.
struct Used {
  int rows = kBlock;     // of A and C
  int columns = kBlock;  // of B and C
  // Of each `group` steps all but the last have 32 numbers of the summation. The product begins with
  // step `first` of its group.
  int group = 1;
  int last = kBlock;  // a multiple of 4
  int first = 0;
};

// The numbers of the last of the blocks that hold n.
inline int last_block(int64_t n) { return static_cast<int>(n - round_up(n, kBlock)) + kBlock; }
// ... of a summation.
inline int last_step(int64_t n) { return static_cast<int>(round_up(last_block(n), 4)); }
// ... of block b.
inline int in_block(int64_t n, int64_t b) {
  return static_cast<int>(smaller<int64_t>(kBlock, n - b * kBlock));
}

// kRows rows and kVectors registers of one panel, summed in registers; b is the panel of the first
// step.
template <class T, int kRows, int kVectors>
inline void multiply_tile(const T* a, int64_t lda, const int32_t* offsets, int steps, const T* b,
                          T* c, bool accumulate, const Used& used) {
  if (steps < 1) return;  // as in outer_tile
  Vec<T> sums[kRows][kVectors] = {};
  if (accumulate) {
#pragma GCC unroll 16  // as in product_tile
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) {
        sums[r][v] = load<T>(c + r * kBlock + v * kLanes<T>, kLanes<T>);
      }
    }
  }
  for (int s = 0, place = used.first; s < steps; s++) {
    const T* as = a + (offsets ? offsets[s] : int64_t{s} * kBlock);
    const T* bs = b + static_cast<int64_t>(s) * kStep;
    const bool is_last = ++place == used.group;
    if (is_last) place = 0;
    const int depth = is_last ? used.last : kBlock;
#pragma GCC unroll 4
    for (int k = 0; k < depth; k++) {
      Vec<T> row[kVectors];
      for (int v = 0; v < kVectors; v++) {
        row[v] = load<T>(bs + k * kPanel<T> + v * kLanes<T>, kLanes<T>);
      }
      for (int r = 0; r < kRows; r++) {
        const T factor = as[r * lda + k];
        for (int v = 0; v < kVectors; v++) sums[r][v] += factor * row[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
      store<T>(c + r * kBlock + v * kLanes<T>, sums[r][v], kLanes<T>);
    }
  }
}

// The used rows of one panel.
template <class T, int kVectors>
inline void multiply_rows(const T* a, int64_t lda, const int32_t* offsets, int steps, const T* b,
                          T* c, bool accumulate, const Used& used) {
  // The sums of a tile, a row of B and a number of A fill the registers: AVX2 has 16, AVX-512 and
  // NEON have 32. All tiles have enough rows that the multiplier never waits for a sum.
  constexpr int kRows = kRegisters == 32 ? 8 : 6, kLowRows = kRegisters == 32 ? 8 : 5;
  constexpr int kHigh = kRegisters == 32 ? 4 : 2;  // tiles of kRows; the others: kLowRows
  static_assert((kBlock - kHigh * kRows) % kLowRows == 0, "");
  int r = 0;
  for (; r < smaller(kHigh * kRows, used.rows); r += kRows) {
    multiply_tile<T, kRows, kVectors>(a + r * lda, lda, offsets, steps, b, c + r * kBlock,
                                      accumulate, used);
  }
  for (; r < used.rows; r += kLowRows) {
    multiply_tile<T, kLowRows, kVectors>(a + r * lda, lda, offsets, steps, b, c + r * kBlock,
                                         accumulate, used);
  }
}

// C (+)= A B over `steps` steps, of which there may be none only if C is added to. Row r of A's step
// s is at a + r * lda + (offsets ? offsets[s] : 32 s); step s of B is at b + 1024 s.
template <class T>
inline void multiply(const T* a, int64_t lda, const int32_t* offsets, int steps, const T* b,
                     Real<T>* c, bool accumulate, const Used& used) {
  for (int n = 0; n < used.columns; n += kPanel<T>) {
    const T* panel = b + n * kBlock;
    if (used.columns - n <= kLanes<T>) {
      multiply_rows<T, 1>(a, lda, offsets, steps, panel, c + n, accumulate, used);
    } else {
      multiply_rows<T, 2>(a, lda, offsets, steps, panel, c + n, accumulate, used);
    }
  }
}

#if defined(__AMX_BF16__)

// Computes whole blocks, used or not: the padding is zero.
template <>
inline void multiply<bf16>(const bf16* a, int64_t lda, const int32_t* offsets, int steps,
                           const bf16* b, float* c, bool accumulate, const Used&) {
  const int64_t c_bytes = kBlock * sizeof(float), a_bytes = lda * sizeof(bf16);
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, c + 16 * kBlock, c_bytes);
    _tile_loadd(3, c + 16 * kBlock + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int s = 0; s < steps; s++) {
    const bf16* as = a + (offsets ? offsets[s] : int64_t{s} * kBlock);
    const bf16* bs = b + static_cast<int64_t>(s) * kStep;
    _tile_loadd(4, as, a_bytes);
    _tile_loadd(6, bs, 64);
    _tile_loadd(7, bs + 512, 64);
    _tile_loadd(5, as + 16 * lda, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, c + 16 * kBlock, c_bytes);
  _tile_stored(3, c + 16 * kBlock + 16, c_bytes);
}

#elif defined(__AVX512BF16__)

template <int kVectors>
inline void multiply_pairs(const bf16* a, int64_t lda, const int32_t* offsets, int steps,
                           const bf16* b, float* c, bool accumulate, const Used& used) {
  constexpr int kRows = 8;
  for (int first = 0; first < used.rows; first += kRows) {
    const bf16* rows = a + first * lda;
    float* out = c + first * kBlock;
    __m512 sums[kRows][kVectors];
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) {
        sums[r][v] = accumulate ? _mm512_loadu_ps(out + r * kBlock + v * 16) : _mm512_setzero_ps();
      }
    }
    for (int s = 0, place = used.first; s < steps; s++) {
      const bf16* as = rows + (offsets ? offsets[s] : int64_t{s} * kBlock);
      const bf16* bs = b + static_cast<int64_t>(s) * kStep;
      const bool is_last = ++place == used.group;
      if (is_last) place = 0;
      const int pairs = (is_last ? used.last : kBlock) / 2;
      for (int pair = 0; pair < pairs; pair++) {
        __m512bh row[kVectors];
        for (int v = 0; v < kVectors; v++) {
          row[v] = (__m512bh)_mm512_loadu_si512(bs + v * 512 + pair * 32);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) {
          int32_t two;
          std::memcpy(&two, as + r * lda + pair * 2, sizeof(two));
          const __m512bh factor = (__m512bh)_mm512_set1_epi32(two);
          for (int v = 0; v < kVectors; v++) {
            sums[r][v] = _mm512_dpbf16_ps(sums[r][v], factor, row[v]);
          }
        }
      }
    }
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(out + r * kBlock + v * 16, sums[r][v]);
    }
  }
}

template <>
inline void multiply<bf16>(const bf16* a, int64_t lda, const int32_t* offsets, int steps,
                           const bf16* b, float* c, bool accumulate, const Used& used) {
  const auto tiles = used.columns <= 16 ? multiply_pairs<1> : multiply_pairs<2>;
  tiles(a, lda, offsets, steps, b, c, accumulate, used);
}

#endif

// Two neighbouring rows (k even, and k + 1) of a packed step, one register from column n on.
template <class T>
inline void store_packed(T* step, int k, int n, Vec<T> row0, Vec<T> row1) {
  store<T>(step + packed_index<T>(k, n), row0, kLanes<T>);
  store<T>(step + packed_index<T>(k + 1, n), row1, kLanes<T>);
}
#if defined(__AVX512BF16__)
template <>
inline void store_packed<bf16>(bf16* step, int k, int n, Vec<bf16> row0, Vec<bf16> row1) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i both = reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(row1), reinterpret_cast<__m512>(row0)));
  _mm512_storeu_si512(step + packed_index<bf16>(k, n), _mm512_permutexvar_epi16(order, both));
}
#endif

// The transpose of a packed step: out[n * ld + k] for n, k below 32.
template <class T>
inline void transpose_packed(const T* step, T* out, int64_t ld) {
  for (int n = 0; n < kBlock; n++) {
    for (int k = 0; k < kBlock; k++) out[n * ld + k] = step[packed_index<T>(k, n)];
  }
}
#if defined(__AVX512BF16__)
// Transposes 16 x 16 numbers of 32 bits.
inline void transpose_16(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

template <>
inline void transpose_packed<bf16>(const bf16* step, bf16* out, int64_t ld) {
  // A pair of the summation is one 32-bit number, so this is two 16 x 16 transposes of pairs.
  for (int tile = 0; tile < 2; tile++) {
    __m512i r[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(step + tile * 512 + i * 32);
    transpose_16(r);
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (tile * 16 + i) * ld, r[i]);
  }
}
#endif

}  // namespace

#if defined(DENSENET121_NEON) && defined(DENSENET121_BF16)
#include "gemm_neon.h"
#endif
