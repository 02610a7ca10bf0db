// The tiles of int8_product.h on ARM. Included by that file alone.
//
// Only FEAT_I8MM multiplies numbers without a sign by numbers with one. Elsewhere 128 is subtracted
// from the activations, and added again as 128 times the sum of a column's weights.

#pragma once

namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8)

constexpr bool kCentred = false;
using Activations = uint8x16_t;
inline Activations activations(uint8x16_t a) { return a; }

template <int kFour>
inline Sums add_products(Sums sums, Activations a, int8x16_t b) {
  return vsudotq_laneq_s32(sums, b, a, kFour);
}
inline Sums add_weights(Sums sums, int8x16_t) { return sums; }

#else

constexpr bool kCentred = true;
using Activations = int8x16_t;
inline Activations activations(uint8x16_t a) {
  return vreinterpretq_s8_u8(veorq_u8(a, vdupq_n_u8(128)));
}

#if defined(__ARM_FEATURE_DOTPROD)

template <int kFour>
inline Sums add_products(Sums sums, Activations a, int8x16_t b) {
  return vdotq_laneq_s32(sums, b, a, kFour);
}
inline Sums add_weights(Sums sums, int8x16_t b) { return vdotq_s32(sums, b, vdupq_n_s8(1)); }

#else

// The sum of two products fits into 16 bits: two weights are at most 128 together.
template <int kFour>
inline Sums add_products(Sums sums, Activations a, int8x16_t b) {
  const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(a), kFour));
  const int16x8_t low = vmull_s8(vget_low_s8(b), vget_low_s8(four));
  return vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(b, four)));
}
inline Sums add_weights(Sums sums, int8x16_t b) { return vpadalq_s16(sums, vpaddlq_s8(b)); }

#endif
#endif

template <int kRows, int kVectors>
struct ByteSums {
  Sums products[kRows][kVectors], weights[kVectors];

  // Number kFour of four adjacent summands in each row of `a`; `b` is where theirs begin.
  template <int kFour>
  inline void add(const Activations* a, const int8_t* b) {
    for (int v = 0; v < kVectors; v++) {
      const int8x16_t line = vld1q_s8(b + v * kSumColumns * kSummands);
      if (kCentred) weights[v] = add_weights(weights[v], line);
      for (int r = 0; r < kRows; r++) {
        products[r][v] = add_products<kFour>(products[r][v], a[r], line);
      }
    }
  }

  inline void add_sixteen(const Activations* a, const int8_t* b) {
    constexpr int kLine = kSummands * kBytePanel;
    add<0>(a, b);
    add<1>(a, b + kLine);
    add<2>(a, b + 2 * kLine);
    add<3>(a, b + 3 * kLine);
  }
};

template <class Out>
inline void store_result(Sums sums, const float* scale, Out* to, int64_t columns) {
  const int32x4_t whole = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums), vld1q_f32(scale)));
  if constexpr (std::is_signed_v<Out>) {
    store_some(to, vqmovn_s32(whole), columns);
  } else {
    const uint16x4_t words = vqmovun_s32(whole);
    const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
    store_some(to, vget_lane_u32(vreinterpret_u32_u8(bytes), 0), columns);
  }
}

template <class Out, class Way, int kRows, int kVectors>
void byte_tile(const ByteRows& rows, const uint8_t* a, const int8_t* b, const Result<Out>& result,
               Out* const* to) {
  constexpr int kAtOnce = 16;  // summands
  ByteSums<kRows, kVectors> sums;
  for (int v = 0; v < kVectors; v++) {
    const Sums bias = vld1q_s32(result.bias + v * kSumColumns);
    sums.weights[v] = vdupq_n_s32(0);
    for (int r = 0; r < kRows; r++) sums.products[r][v] = bias;
  }
  const int64_t lda = rows.ld, depth = rows.depth;
  for (int64_t s = 0; s < rows.segments; s++) {
    Activations some[kRows];
    int64_t k = 0;
    for (; k + kAtOnce <= depth; k += kAtOnce) {
      for (int r = 0; r < kRows; r++) some[r] = activations(vld1q_u8(a + r * lda + k));
      sums.add_sixteen(some, b + k * kBytePanel);
    }
    for (; k < depth; k += kSummands) {
      for (int r = 0; r < kRows; r++) {
        uint32_t four;
        std::memcpy(&four, a + r * lda + k, sizeof(four));
        some[r] = activations(vreinterpretq_u8_u32(vdupq_n_u32(four)));
      }
      sums.template add<0>(some, b + k * kBytePanel);
    }
    a += rows.segment_ld;
    b += depth * kBytePanel;
  }
  for (int v = 0; v < kVectors; v++) {
    const int64_t columns = result.columns - v * kSumColumns;
    if (columns <= 0) break;
    const Sums missing = vshlq_n_s32(sums.weights[v], 7);
    for (int r = 0; r < kRows; r++) {
      store_result<Out>(vaddq_s32(sums.products[r][v], missing), result.scale + v * kSumColumns,
                        to[r] + result.first + v * kSumColumns, columns);
    }
  }
}

}  // namespace
