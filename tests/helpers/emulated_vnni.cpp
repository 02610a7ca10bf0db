// The int8 kernels for AVX2 with AVX-VNNI on a processor that may have none: its instructions in plain
// C++, after Intel's Software Developer's Manual, volume 2 (VPDPBUSD, VPDPWSSD).

#include <immintrin.h>

#include <cstdint>
#include <cstring>

static __m256i emulated_vpdpbusd(__m256i sums, __m256i a, __m256i b) {
  uint8_t bytes[32];
  int8_t weights[32];
  uint32_t numbers[8];
  std::memcpy(bytes, &a, sizeof(a));
  std::memcpy(weights, &b, sizeof(b));
  std::memcpy(numbers, &sums, sizeof(sums));
  for (int i = 0; i < 32; i++) numbers[i / 4] += int32_t{bytes[i]} * weights[i];
  std::memcpy(&sums, numbers, sizeof(sums));
  return sums;
}

static __m256i emulated_vpdpwssd(__m256i sums, __m256i a, __m256i b) {
  int16_t words[16], weights[16];
  uint32_t numbers[8];
  std::memcpy(words, &a, sizeof(a));
  std::memcpy(weights, &b, sizeof(b));
  std::memcpy(numbers, &sums, sizeof(sums));
  for (int i = 0; i < 16; i++) numbers[i / 2] += int32_t{words[i]} * weights[i];
  std::memcpy(&sums, numbers, sizeof(sums));
  return sums;
}

#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32 emulated_vpdpbusd
#define _mm256_dpwssd_avx_epi32 emulated_vpdpwssd

#include "int8_entries.h"
