// The functions that Python calls: from an encoded image, or its pixels, to a window of the resized
// image, flipped and with adjusted colours. Plain C, without Python or OpenMP; runs in the calling
// thread.

#include "../instruction_set.h"
#include "adjust.h"
#include "affine.h"
#include "colour.h"
#include "crc32c.h"
#include "jpeg.h"
#include "resize.h"

extern "C" {

// In the order in which the fields are applied; see datasets/operations.py.
struct ImageArguments {
  const uint8_t* data;    // a JPEG of `size` bytes; null: use `pixels`
  int64_t size;
  const uint8_t* pixels;  // RGB
  int64_t row_bytes;      // bytes from row to row of `pixels`
  int64_t sides[2];       // height, width of `pixels`
  int64_t crop[4];        // top, left, height, width
  int64_t resized[2];     // height, width that the crop is resized to
  int64_t window[4];      // in the resized crop: top, left, height, width
  int64_t flip;
  int64_t steps;
  int64_t step[3];        // kBrightness, kContrast or kSaturation
  double factor[3];
  uint8_t* out;           // RGB of the window
};
}

namespace {

enum { kDone = 0, kUnsupported = 1, kNoMemory = 2, kInvalid = 3 };
enum { kBrightness = 0, kContrast = 1, kSaturation = 2 };

// No side is so long, and no factor so large, that a number below could overflow.
constexpr int64_t kLongest = int64_t{1} << 28;
constexpr double kLargestFactor = 1e6;

// Whether first .. first + count - 1 is a part of 0 .. all - 1.
inline bool is_within(int64_t first, int64_t count, int64_t all) {
  return first >= 0 && count > 0 && all <= kLongest && count <= all && first <= all - count;
}

// Whether what is asked for exists: the crop in an image of these sides, the window in the resized
// crop, and all steps.
inline bool is_valid(const ImageArguments& g, int64_t height, int64_t width) {
  if (!is_within(g.crop[0], g.crop[2], height) || !is_within(g.crop[1], g.crop[3], width) ||
      !is_within(g.window[0], g.window[2], g.resized[0]) ||
      !is_within(g.window[1], g.window[3], g.resized[1]) || g.steps < 0 || g.steps > 3) {
    return false;
  }
  for (int64_t i = 0; i < g.steps; i++) {
    if (g.step[i] < kBrightness || g.step[i] > kSaturation) return false;
    if (!(std::abs(g.factor[i]) <= kLargestFactor)) return false;  // nor nan
  }
  return true;
}

thread_local JpegMemory jpeg_memory;
thread_local std::vector<uint8_t> image_memory;

struct PixelRows {
  const uint8_t* pixels;
  int64_t row_bytes, width;

  void write(int64_t y, uint8_t* out) const {
    const uint8_t* row = pixels + y * row_bytes;
    for (int64_t x = 0; x < width; x++) {
      out[4 * x] = row[3 * x], out[4 * x + 1] = row[3 * x + 1], out[4 * x + 2] = row[3 * x + 2];
      out[4 * x + 3] = 0;
    }
  }
};

// Rows of a crop of a JPEG, from column `first` on.
struct JpegRows {
  ColourRows rows;
  int64_t top, first;

  void write(int64_t y, uint8_t* out) { rows.write(top + y, out + 4 * first); }
};

struct Range {
  int64_t begin, end;
};

// The rows (of `source`, resized to `result`) for `count` rows of the result from `begin` on.
inline Range needed(int64_t source, int64_t result, int64_t begin, int64_t count) {
  if (source == result) return {begin, begin + count};
  // Halving uses rows 2 y and 2 y + 1, which are also within this range.
  return {std::clamp<int64_t>(tap_of(begin, source, result).first, 0, source - 1),
          std::clamp<int64_t>(tap_of(begin + count - 1, source, result).first + 1, 0, source - 1) +
              1};
}

inline void pack(const uint8_t* from, int64_t pixels, uint8_t* out) {
  int64_t x = 0;
#if defined(__AVX2__)
  const __m128i order = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  for (; x + 6 <= pixels; x += 4) {  // writes 16 bytes, 12 of them valid
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 4 * x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * x), _mm_shuffle_epi8(four, order));
  }
#endif
  for (; x < pixels; x++)
    for (int c = 0; c < 3; c++) out[3 * x + c] = from[4 * x + c];
}

template <class Source>
void make(const ImageArguments& g, Source& source) {
  const int64_t height = g.window[2], width = g.window[3], pixels = height * width;
  std::vector<uint8_t>& image = image_memory;
  if (int64_t(image.size()) < 4 * pixels + 64) image.resize(4 * pixels + 64);
  Resizer<Source> resizer(source, g.crop[2], g.crop[3], g.resized[0], g.resized[1], g.window[1],
                          width, g.flip != 0);
  for (int64_t y = 0; y < height; y++)
    resizer.write(g.window[0] + y, image.data() + 4 * width * y);
  for (int64_t i = 0; i < g.steps; i++) {
    if (g.step[i] == kBrightness) adjust_levels(image.data(), 4 * pixels, g.factor[i], 0);
    if (g.step[i] == kContrast) adjust_contrast(image.data(), pixels, g.factor[i]);
    if (g.step[i] == kSaturation) adjust_saturation(image.data(), pixels, g.factor[i]);
  }
  pack(image.data(), pixels, g.out);
}

}  // namespace

extern "C" {

// What this library was compiled for; ../library.py holds it against the file's name.
DENSENET121_PUBLIC const char* densenet121_instruction_set() { return instruction_set(); }

// Whether Python's structure is that of this library; see __init__.py. A change of what a field
// means, or of the order of two, raises the version on both sides.
DENSENET121_PUBLIC int densenet121_agrees(int64_t version, const int64_t* sizes, int64_t count) {
  constexpr int64_t kVersion = 1;
  return version == kVersion && count == 1 && sizes[0] == sizeof(ImageArguments);
}

// Height and width of a JPEG that densenet121_image supports, if its code is undamaged.
DENSENET121_PUBLIC int densenet121_jpeg_size(const uint8_t* data, int64_t size,
                                             int64_t* sides) try {
  Jpeg jpeg(jpeg_memory);
  if (!jpeg.read_header(data, size)) return kUnsupported;
  sides[0] = jpeg.height, sides[1] = jpeg.width;
  return kDone;
} catch (...) {
  return kNoMemory;
}

DENSENET121_PUBLIC int densenet121_image(const ImageArguments* g) try {
  if (!g->data) {
    if (!is_valid(*g, g->sides[0], g->sides[1])) return kInvalid;
    PixelRows rows{g->pixels + g->crop[0] * g->row_bytes + 3 * g->crop[1], g->row_bytes,
                   g->crop[3]};
    make(*g, rows);
    return kDone;
  }
  Jpeg jpeg(jpeg_memory);
  if (!jpeg.read_header(g->data, g->size)) return kUnsupported;
  if (!is_valid(*g, jpeg.height, jpeg.width)) return kInvalid;
  const Range y = needed(g->crop[2], g->resized[0], g->window[0], g->window[2]);
  const Range x = needed(g->crop[3], g->resized[1], g->window[1], g->window[3]);
  const int64_t left = g->crop[1] + x.begin, width = x.end - x.begin;
  if (!jpeg.decode({g->crop[0] + y.begin, left, y.end - y.begin, width})) return kUnsupported;
  JpegRows rows{{jpeg, left, width}, g->crop[0], x.begin};
  make(*g, rows);
  return kDone;
} catch (...) {
  return kNoMemory;
}

// `image` and `out`: RGB of height x width without gaps. See resample_affine.
DENSENET121_PUBLIC int densenet121_affine(const uint8_t* image, int64_t height, int64_t width,
                                          const double* matrix, const uint8_t* fill,
                                          uint8_t* out) try {
  const int64_t pixels = height * width;
  std::vector<uint8_t>& memory = image_memory;
  if (int64_t(memory.size()) < 8 * pixels + 64) memory.resize(8 * pixels + 64);
  uint8_t *from = memory.data(), *to = memory.data() + 4 * pixels;
  PixelRows{image, 0, pixels}.write(0, from);
  const uint8_t filled[4] = {fill[0], fill[1], fill[2], 0};
  resample_affine(from, height, width, matrix, filled, to);
  pack(to, pixels, out);
  return kDone;
} catch (...) {
  return kNoMemory;
}

// `image` and `out`: RGB of height x width without gaps. See sharpen.
DENSENET121_PUBLIC void densenet121_sharpen(const uint8_t* image, int64_t height, int64_t width,
                                            float factor, uint8_t* out) {
  sharpen(image, height, width, factor, out);
}

// The sum of TFRecord files, of `size` bytes.
DENSENET121_PUBLIC uint32_t densenet121_crc32c(const uint8_t* data, int64_t size) {
  return crc32c(data, size);
}
}
