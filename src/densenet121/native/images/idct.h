// The inverse cosine transform of libjpeg's "islow" method, bit for bit: Loeffler, Ligtenberg and
// Moschytz (ICASSP 1989) with 11 multiplications, 13 fractional bits in the constants, columns
// before rows, two more bits between them; intermediate sums wrap at 16 bits where the widely used
// vector versions wrap.

#pragma once

#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int k0_298 = 2446, k0_390 = 3196, k0_541 = 4433, k0_765 = 6270, k0_899 = 7373,
              k1_175 = 9633, k1_501 = 12299, k1_847 = 15137, k1_961 = 16069, k2_053 = 16819,
              k2_562 = 20995, k3_072 = 25172;
constexpr int kColumnShift = 11, kRowShift = 18;

#if defined(__AVX2__)

// Two blocks at once: every instruction here processes the two halves of a register separately.
template <int shift>
inline void idct_pass(__m256i v[8]) {
  const auto pair = [](int a, int b) {
    return _mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(b) << 16 | (a & 0xffff)));
  };
  struct Wide {
    __m256i low, high;
  };
  const auto dot = [](__m256i a, __m256i b, __m256i c) {
    return Wide{_mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), c),
                _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), c)};
  };
  const auto add = [](Wide a, Wide b) {
    return Wide{_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  };
  const auto sub = [](Wide a, Wide b) {
    return Wide{_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
  };
  const auto scaled = [](__m256i a) {  // << 13
    const __m256i zero = _mm256_setzero_si256();
    return Wide{_mm256_srai_epi32(_mm256_unpacklo_epi16(zero, a), 3),
                _mm256_srai_epi32(_mm256_unpackhi_epi16(zero, a), 3)};
  };
  const auto descale = [](Wide a) {
    const __m256i round = _mm256_set1_epi32(1 << (shift - 1));
    return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(a.low, round), shift),
                              _mm256_srai_epi32(_mm256_add_epi32(a.high, round), shift));
  };
  // Even part.
  const Wide e3 = dot(v[2], v[6], pair(k0_541 + k0_765, k0_541));
  const Wide e2 = dot(v[2], v[6], pair(k0_541, k0_541 - k1_847));
  const Wide e0 = scaled(_mm256_add_epi16(v[0], v[4])), e1 = scaled(_mm256_sub_epi16(v[0], v[4]));
  const Wide t10 = add(e0, e3), t13 = sub(e0, e3), t11 = add(e1, e2), t12 = sub(e1, e2);
  // Odd part.
  const __m256i s3 = _mm256_add_epi16(v[7], v[3]), s4 = _mm256_add_epi16(v[5], v[1]);
  const Wide z3 = dot(s3, s4, pair(k1_175 - k1_961, k1_175));
  const Wide z4 = dot(s3, s4, pair(k1_175, k1_175 - k0_390));
  const Wide o0 = add(dot(v[7], v[1], pair(k0_298 - k0_899, -k0_899)), z3);
  const Wide o3 = add(dot(v[7], v[1], pair(-k0_899, k1_501 - k0_899)), z4);
  const Wide o1 = add(dot(v[5], v[3], pair(k2_053 - k2_562, -k2_562)), z4);
  const Wide o2 = add(dot(v[5], v[3], pair(-k2_562, k3_072 - k2_562)), z3);
  v[0] = descale(add(t10, o3)), v[7] = descale(sub(t10, o3));
  v[1] = descale(add(t11, o2)), v[6] = descale(sub(t11, o2));
  v[2] = descale(add(t12, o1)), v[5] = descale(sub(t12, o1));
  v[3] = descale(add(t13, o0)), v[4] = descale(sub(t13, o0));
}

inline void transpose_8x8(__m256i v[8]) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    b[4 * i] = _mm256_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    v[2 * i] = _mm256_unpacklo_epi64(b[i], b[4 + i]);
    v[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[4 + i]);
  }
}

// Two blocks; writes their pixels to `first` and `second`. `quantisation` has the blocks' order.
inline void inverse_cosine(const int16_t* block, const int16_t* other, const int16_t* quantisation,
                           uint8_t* first, uint8_t* second, int64_t stride) {
  __m256i v[8];
  for (int i = 0; i < 8; i++) {
    const __m256i c = _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 8 * i))),
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(other + 8 * i)), 1);
    v[i] = _mm256_mullo_epi16(c, _mm256_broadcastsi128_si256(_mm_loadu_si128(
                                     reinterpret_cast<const __m128i*>(quantisation + 8 * i))));
  }
  idct_pass<kColumnShift>(v);
  transpose_8x8(v);
  idct_pass<kRowShift>(v);
  transpose_8x8(v);
  for (int i = 0; i < 8; i += 2) {
    const __m256i rows = _mm256_add_epi8(_mm256_packs_epi16(v[i], v[i + 1]),
                                         _mm256_set1_epi8(static_cast<char>(128)));
    const __m128i a = _mm256_castsi256_si128(rows), b = _mm256_extracti128_si256(rows, 1);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(first + i * stride), a);
    _mm_storeh_pd(reinterpret_cast<double*>(first + (i + 1) * stride), _mm_castsi128_pd(a));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(second + i * stride), b);
    _mm_storeh_pd(reinterpret_cast<double*>(second + (i + 1) * stride), _mm_castsi128_pd(b));
  }
}

#else

template <int shift>
inline void idct_pass(const int16_t in[8], int16_t out[8]) {
  const auto wrap = [](int x) { return static_cast<int>(static_cast<int16_t>(x)); };
  const auto descale = [](int x) {
    const int y = static_cast<int>(static_cast<uint32_t>(x) + (1u << (shift - 1))) >> shift;
    return static_cast<int16_t>(y < -32768 ? -32768 : y > 32767 ? 32767 : y);
  };
  const auto sum = [](int a, int b) {
    return static_cast<int>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  };
  const auto difference = [](int a, int b) {
    return static_cast<int>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
  };
  const auto dot = [&](int a, int b, int c, int d) { return sum(a * c, b * d); };
  const int e3 = dot(in[2], in[6], k0_541 + k0_765, k0_541);
  const int e2 = dot(in[2], in[6], k0_541, k0_541 - k1_847);
  const int e0 = wrap(in[0] + in[4]) * 8192, e1 = wrap(in[0] - in[4]) * 8192;
  const int t10 = sum(e0, e3), t13 = difference(e0, e3);
  const int t11 = sum(e1, e2), t12 = difference(e1, e2);
  const int s3 = wrap(in[7] + in[3]), s4 = wrap(in[5] + in[1]);
  const int z3 = dot(s3, s4, k1_175 - k1_961, k1_175);
  const int z4 = dot(s3, s4, k1_175, k1_175 - k0_390);
  const int o0 = sum(dot(in[7], in[1], k0_298 - k0_899, -k0_899), z3);
  const int o3 = sum(dot(in[7], in[1], -k0_899, k1_501 - k0_899), z4);
  const int o1 = sum(dot(in[5], in[3], k2_053 - k2_562, -k2_562), z4);
  const int o2 = sum(dot(in[5], in[3], -k2_562, k3_072 - k2_562), z3);
  out[0] = descale(sum(t10, o3)), out[7] = descale(difference(t10, o3));
  out[1] = descale(sum(t11, o2)), out[6] = descale(difference(t11, o2));
  out[2] = descale(sum(t12, o1)), out[5] = descale(difference(t12, o1));
  out[3] = descale(sum(t13, o0)), out[4] = descale(difference(t13, o0));
}

inline void inverse_cosine(const int16_t* block, const int16_t* quantisation, uint8_t* pixels,
                           int64_t stride) {
  int16_t columns[8][8];  // the transform of each column
  for (int x = 0; x < 8; x++) {
    int16_t column[8];
    for (int y = 0; y < 8; y++)
      column[y] = static_cast<int16_t>(block[8 * y + x] * quantisation[8 * y + x]);
    idct_pass<kColumnShift>(column, columns[x]);
  }
  for (int y = 0; y < 8; y++) {
    int16_t row[8], result[8];
    for (int x = 0; x < 8; x++) row[x] = columns[x][y];
    idct_pass<kRowShift>(row, result);
    for (int x = 0; x < 8; x++) {
      const int value = result[x] < -128 ? -128 : result[x] > 127 ? 127 : result[x];
      pixels[y * stride + x] = static_cast<uint8_t>(value + 128);
    }
  }
}

inline void inverse_cosine(const int16_t* block, const int16_t* other, const int16_t* quantisation,
                           uint8_t* first, uint8_t* second, int64_t stride) {
  inverse_cosine(block, quantisation, first, stride);
  inverse_cosine(other, quantisation, second, stride);
}

#endif

}  // namespace
