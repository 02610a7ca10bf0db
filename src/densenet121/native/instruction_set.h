// What the compiler was told it may use, by the names of setup.py.

#ifndef DENSENET121_INSTRUCTION_SET_H
#define DENSENET121_INSTRUCTION_SET_H

#define DENSENET121_PUBLIC __attribute__((visibility("default")))

inline const char* instruction_set() {
#if defined(__AMX_TILE__)
  return "amx";
#elif defined(__AVX512BF16__)
  return "avx512_bf16";
#elif defined(__AVX512F__)
  return "avx512";
#elif defined(__AVXVNNI__)
  return "avx2_vnni";
#elif defined(__AVX2__)
  return "avx2";
#elif defined(DENSENET121_PORTABLE) || !defined(__aarch64__)
  return "portable";
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return "neon_bf16";
#elif defined(__ARM_FEATURE_DOTPROD)
  return "neon_dotprod";
#else
  return "neon";
#endif
}

#endif
