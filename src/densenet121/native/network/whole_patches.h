// The 3x3 convolution in bf16 by Winograd's patches of whole numbers: that of inference, and what training
// shares with it.
//
// A patch's transformed pixels become whole numbers of 14 bits with a unit of the patch, those of the
// weights whole numbers of up to 16 bits with a unit for each product and column. Their products and
// sums are exact, and as fast as those of bf16. bf16 itself has 8 bits, too few for the factors of the
// transforms: with patches of 4 x 4 pixels the output is then 4 times as far from the exact one as a
// direct convolution's, with whole numbers 0.6 to 0.7 times.

#pragma once

#include "patches.h"

#if defined(DENSENET121_PAIRS)

namespace {

// No sum exceeds 32 bits: a transformed pixel is at most kMostOfPixels, and the weights of a column
// have magnitudes of at most kMostOfWeights together.
constexpr int32_t kMostOfPixels = 8191, kMostOfWeights = (1 << 18) - 1;

// Position of a channel in a pixel of `columns` whole numbers: `pack_whole` writes two registers of
// 16 channels in this order. Both channels of a pair are adjacent.
inline int64_t whole_position(int64_t channel, int64_t columns) {
  const int64_t first = channel / 32 * 32, i = channel % 32;
  if (first + 32 > columns) return channel;
  return first + i % 16 / 4 * 8 + i / 16 * 4 + i % 4;
}

inline __m512i whole_numbers(const float* from, __m512 factor) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), factor));
}

// Two registers, or the last one of all, become numbers of 16 bits, in the order of whole_position.
inline void pack_whole(const float* from, int64_t columns, __m512 factor, int16_t* to) {
  if (columns >= 32) {
    _mm512_storeu_si512(to, _mm512_packs_epi32(whole_numbers(from, factor),
                                               whole_numbers(from + 16, factor)));
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtsepi32_epi16(whole_numbers(from, factor)));
  }
}

// Eight columns' weights of one product, `stride` apart, as whole numbers: their units, and pairs of
// channels by write(pair, numbers). A unit is the smallest that keeps to both limits; 0 if all weights of a
// column are nearly zero, nan or infinite if one is.
template <class Write>
inline __m512d whole_weights(const double* transformed, int64_t stride, int64_t columns, Write write) {
  __m512d sum = _mm512_setzero_pd(), largest = sum;
  for (int64_t i = 0; i < columns; i++) {
    const __m512d size = _mm512_abs_pd(_mm512_loadu_pd(transformed + i * stride));
    sum = _mm512_add_pd(sum, size), largest = _mm512_max_pd(size, largest);
  }
  // Rounding adds up to a half for each summand.
  const __m512d by_sum = _mm512_div_pd(sum, _mm512_set1_pd(kMostOfWeights - columns / 2));
  const __m512d by_one = _mm512_div_pd(largest, _mm512_set1_pd(INT16_MAX));
  __m512d unit = _mm512_max_pd(by_one, by_sum);  // of nan: the second
  const __mmask8 tiny = _mm512_cmp_pd_mask(unit, _mm512_set1_pd(1e-35), _CMP_LT_OQ);
  unit = _mm512_mask_blend_pd(tiny, unit, _mm512_setzero_pd());
  const __mmask8 usable =
      _mm512_cmp_pd_mask(unit, _mm512_setzero_pd(), _CMP_GT_OQ) &
      _mm512_cmp_pd_mask(unit, _mm512_set1_pd(HUGE_VAL), _CMP_LT_OQ);
  const auto whole = [&](int64_t i) {
    if (i >= columns) return _mm256_setzero_si256();
    const __m512d weights = _mm512_loadu_pd(transformed + i * stride);
    return _mm512_cvtpd_epi32(_mm512_maskz_div_pd(usable, weights, unit));
  };
  for (int64_t i = 0; i < columns; i += 2) {
    write(i, _mm256_or_si256(_mm256_and_si256(whole(i), _mm256_set1_epi32(0xffff)),
                             _mm256_slli_epi32(whole(i + 1), 16)));
  }
  return unit;
}

// Packs the transformed weights of a convolution from `columns` to `width` channels with padded sizes
// and, for each product and column, their unit.
template <class Form, class Value>
inline void pack_patches(bf16* weights, float* units, int64_t columns, int64_t width, int threads,
                         Value value) {
  using Wide = typename DoublesOf<float>::type;
  constexpr int kSome = kLanes<float>, kNumbers = Form::kNumbers;
  const int64_t from = round_up(columns, kSome), to = round_up(width, kSome);
  VnniPair* panels = reinterpret_cast<VnniPair*>(weights);
  std::memset(weights, 0, kNumbers * from * to * sizeof(bf16));
  Wide* all = scratch<Wide>(7, to * columns * kNumbers / kSome);
  for_each_in_parallel(to / kSome, threads, [&](int64_t some) {
    const int64_t o = some * kSome;
    const int lanes = smaller<int64_t>(kSome, width - o);
    Wide* transformed = all + o / kSome * columns * kNumbers;
    for (int64_t i = 0; i < columns; i++) {
      transform_weights<Form>(i, o, lanes, value, transformed + i * kNumbers);
    }
    const double* numbers = reinterpret_cast<const double*>(transformed);
    for (int64_t at = 0; at < kNumbers * kSome; at += 8) {
      const int64_t k = at / kSome, first = o + at % kSome;
      const auto write = [&](int64_t i, __m256i pairs) {
        const int64_t pair = whole_position(i, from) / 2;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(
            panels + k * from / 2 * to + panel_index<VnniPair>(pair, first, from / 2, to)), pairs);
      };
      const __m512d unit = whole_weights(numbers + at, kNumbers * kSome, columns, write);
      _mm256_storeu_ps(units + k * to + first, _mm512_cvtpd_ps(unit));
    }
  });
}

// Memory for the transforms of a patch as floats, panel after panel. It begins some cache lines into its
// page: a load that has the lower 12 bits of an address just written to waits for the store, and the
// bottleneck begins with its page, too.
constexpr int64_t kIntoPage = 4 * kLine<float>;
template <class Form>
inline int64_t wide_numbers(int64_t columns) {
  return kIntoPage + Form::kNumbers * round_up(columns, kPanel<float>);
}

// The transforms of a patch's window as whole numbers, `stride` apart; their unit. transform(n, write)
// writes those of a register of channels, from n on. `wide` has memory for wide_numbers.
template <class Form, class Transform>
inline float transform_whole(int64_t columns, Transform transform, float* wide, int16_t* out,
                             int64_t stride) {
  constexpr int64_t kSome = kPanel<float>;
  wide += kIntoPage;
  const __m512i sign = _mm512_set1_epi32(INT32_MAX);
  __m512i largest{};  // of the magnitudes' bits: nan and infinity are larger than all numbers
  for (int64_t n = 0; n < columns; n += kLanes<float>) {
    float* to = wide + n / kSome * kSome * Form::kNumbers + n % kSome;
    transform(n, [&](int i, Vec<float> v) __attribute__((always_inline)) {
      const __m512i bits = reinterpret_cast<__m512i>(v);
      largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, sign));
      store<float>(to + i * kSome, v, kLanes<float>);
    });
  }
  const uint32_t bits = _mm512_reduce_max_epu32(largest);
  float most;
  std::memcpy(&most, &bits, sizeof(most));
  const __m512 factor = _mm512_set1_ps(most < 1e-30f ? 0 : kMostOfPixels / most);
  for (int64_t n = 0; n < columns; n += kSome, wide += Form::kNumbers * kSome) {
    for (int i = 0; i < Form::kNumbers; i++) {
      pack_whole(wide + i * kSome, columns - n, factor, out + i * stride + n);
    }
  }
  return most - most == 0 ? most / kMostOfPixels : std::nanf("");
}

// A register of the products' sums as floats.
inline Vec<float> sums_of_whole(const int32_t* sums, const float* units) {
  const __m512i whole = _mm512_loadu_si512(sums);
  return reinterpret_cast<Vec<float>>(_mm512_cvtepi32_ps(whole)) * load<float>(units, kLanes<float>);
}

// As for the other types, of a bottleneck in float.
template <class Form>
inline void convolve_patches(const Maps& maps, int64_t first, int64_t last, const float* x,
                             int64_t columns, const bf16* weights, const float* units, int64_t width,
                             bf16* out, int64_t ld, Claim& claim) {
  const int64_t count = last - first, padded = round_up(width, kLanes<float>);
  const int64_t input_stride = patch_stride<int16_t>(Form::kAtOnce, columns);
  const int64_t sum_stride = patch_stride<int32_t>(Form::kAtOnce, padded);
  float* wide = scratch<float>(0, wide_numbers<Form>(columns));
  int16_t* inputs = scratch<int16_t>(2, Form::kNumbers * input_stride);
  int32_t* sums = scratch<int32_t>(4, Form::kNumbers * sum_stride);
  float own[Form::kAtOnce];
  Patch patch(maps, first, Form::kPixels);
  for (int64_t p = 0; p < count; p++, patch.next(maps, Form::kPixels)) {
    const PatchWindow<Form, float> window(maps, patch, x);
    const auto transform = [&](int64_t n, auto write) __attribute__((always_inline)) {
      window.transform(n, write);
    };
    own[p] = transform_whole<Form>(columns, transform, wide, inputs + p * columns, input_stride);
  }
  multiply_patches<Form, VnniPair>(count, reinterpret_cast<VnniPair*>(inputs), input_stride / 2,
                                    columns / 2, reinterpret_cast<const VnniPair*>(weights), padded,
                                    0, padded, sums, sum_stride);
  if (!claim()) return;
  patch = Patch(maps, first, Form::kPixels);
  for (int64_t p = 0; p < count; p++, patch.next(maps, Form::kPixels)) {
    const auto number = [&](int64_t n, int i) __attribute__((always_inline)) {
      return sums_of_whole(sums + p * padded + n + i * sum_stride, units + i * padded + n);
    };
    write_patch<Form>(maps, patch, width, number, own[p], out, ld);
  }
}

}  // namespace

#endif
