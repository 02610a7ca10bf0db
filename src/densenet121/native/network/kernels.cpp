// The functions that Python calls, for one instruction set. Plain C: it links no Python, torch or
// OpenMP library; torch's own OpenMP is found in the process (see ../library.py).

#include "../instruction_set.h"
#include "classifier.h"
#include "int8_network.h"
#include "network.h"

extern "C" {

// What this library was compiled for; ../library.py holds it against the file's name.
DENSENET121_PUBLIC const char* densenet121_instruction_set() { return instruction_set(); }

// Whether Python's structures are those of this library; see structures.py. A change of what a
// field means, or of the order of two, raises the version on both sides.
DENSENET121_PUBLIC int densenet121_agrees(int64_t version, const int64_t* sizes, int64_t count) {
  constexpr int64_t kVersion = 10;
  constexpr int64_t kSizes[] = {
      sizeof(LayerArguments),   sizeof(BlockArguments),   sizeof(InferenceArguments),
      sizeof(TransitionArguments), sizeof(StemArguments), sizeof(FirstConvolution),
      sizeof(NetworkArguments), sizeof(Int8Product),      sizeof(Int8Affine),
      sizeof(Int8Layer),        sizeof(Int8Block),        sizeof(Int8Network),
      sizeof(ClassifierArguments)};
  return version == kVersion && count * sizeof(int64_t) == sizeof(kSizes) &&
         std::memcmp(sizes, kSizes, sizeof(kSizes)) == 0;
}

// 0 if this processor and operating system can run the library.
DENSENET121_PUBLIC int densenet121_start() { return allow_tiles() ? 0 : 1; }

#define DENSENET121_ENTRY(name, arguments, type)                \
  DENSENET121_PUBLIC int densenet121_##name##_##type(const arguments* g) try {     \
    name<type>(*g);                                             \
    return 0;                                                   \
  } catch (...) {                                               \
    return 1;                                                   \
  }
#if defined(DENSENET121_BF16)
#define DENSENET121_FOR_ALL_TYPES(name, arguments) \
  DENSENET121_ENTRY(name, arguments, float)        \
  DENSENET121_ENTRY(name, arguments, double)       \
  DENSENET121_ENTRY(name, arguments, bf16)
#else
#define DENSENET121_FOR_ALL_TYPES(name, arguments) \
  DENSENET121_ENTRY(name, arguments, float)        \
  DENSENET121_ENTRY(name, arguments, double)
#endif

DENSENET121_FOR_ALL_TYPES(block_forward, BlockArguments)
DENSENET121_FOR_ALL_TYPES(block_backward, BlockArguments)
DENSENET121_FOR_ALL_TYPES(transition_forward, TransitionArguments)
DENSENET121_FOR_ALL_TYPES(transition_backward, TransitionArguments)
DENSENET121_FOR_ALL_TYPES(stem_forward, StemArguments)
DENSENET121_FOR_ALL_TYPES(stem_backward, StemArguments)
DENSENET121_FOR_ALL_TYPES(inference_fingerprint, InferenceArguments)
DENSENET121_FOR_ALL_TYPES(inference_pack, InferenceArguments)
DENSENET121_FOR_ALL_TYPES(inference_run, InferenceArguments)

#define DENSENET121_FOR_FLOAT_AND_DOUBLE(name, arguments) \
  DENSENET121_ENTRY(name, arguments, float)               \
  DENSENET121_ENTRY(name, arguments, double)
DENSENET121_FOR_FLOAT_AND_DOUBLE(network_fingerprint, NetworkArguments)
DENSENET121_FOR_FLOAT_AND_DOUBLE(network_pack, NetworkArguments)
DENSENET121_FOR_FLOAT_AND_DOUBLE(network_run, NetworkArguments)
DENSENET121_FOR_FLOAT_AND_DOUBLE(classifier_run, ClassifierArguments)
#if defined(DENSENET121_PAIRS)
DENSENET121_ENTRY(network_fingerprint, NetworkArguments, bf16)
DENSENET121_ENTRY(network_pack, NetworkArguments, bf16)
DENSENET121_ENTRY(network_run, NetworkArguments, bf16)
#endif

// Columns of a register, in which the library wants Int8Layer::patches packed; 0: it reads none.
DENSENET121_PUBLIC int densenet121_int8_patch_columns() { return kPatchColumns; }

// For 8-bit integers there is one type of each number.
DENSENET121_PUBLIC int densenet121_int8_network_run(const Int8Network* g) try {
  int8_network_run(*g);
  return 0;
} catch (...) {
  return 1;
}

}
