// The int8 kernels by AMX's tiles, for a processor with AVX2 or AVX-512 and without tiles.

#include "emulated_tiles.h"

#define __AMX_INT8__ 1

#include "int8_entries.h"
