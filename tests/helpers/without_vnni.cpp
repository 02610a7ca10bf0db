// The int8 kernels for AVX-512 as a processor without VNNI runs them.

#define __builtin_cpu_supports(name) false

#include "int8_entries.h"
