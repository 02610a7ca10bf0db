// The 3x3 convolution by Winograd's patches (patch_forms.h): packed weights, and the products.

#pragma once

#include "patch_forms.h"
#include "product.h"
#include "team.h"

namespace {

// A register's numbers as double.
template <class T>
struct DoublesOf;
template <>
struct DoublesOf<float> {
  typedef double type __attribute__((vector_size(2 * kRegisterBytes)));
};
template <>
struct DoublesOf<double> {
  typedef double type __attribute__((vector_size(kRegisterBytes)));
};

// The transforms of the weights from channel i to the channels o .. o + lanes - 1, in double;
// value(i, o, row, column) is one weight.
template <class Form, class Wide, class Value>
inline void transform_weights(int64_t i, int64_t o, int lanes, Value value, Wide* out) {
  Wide window[3][3] = {};
  for (int lane = 0; lane < lanes; lane++) {
    for (int r = 0; r < 3; r++) {
      for (int c = 0; c < 3; c++) window[r][c][lane] = value(i, o + lane, r, c);
    }
  }
  Form::template weight<Wide>([&](int r, int c) { return window[r][c]; }, out);
}

// Packs the transformed weights of a convolution from `columns` to `width` channels with padded
// sizes.
template <class Form, class T, class Value>
inline void pack_patches(T* panels, int64_t columns, int64_t width, int threads, Value value) {
  using Wide = typename DoublesOf<T>::type;
  const int64_t from = round_up(columns, kLanes<T>), to = round_up(width, kLanes<T>);
  for_each_in_parallel(from, threads, [&](int64_t i) {
    for (int64_t o = 0; o < to; o += kLanes<T>) {
      Wide transformed[Form::kNumbers];
      const int lanes = i < columns ? smaller<int64_t>(kLanes<T>, width - o) : 0;
      transform_weights<Form>(i, o, lanes, value, transformed);
      for (int k = 0; k < Form::kNumbers; k++) {
        store<T>(panels + k * from * to + panel_index<T>(i, o, from, to),
                 __builtin_convertvector(transformed[k], Vec<T>), kLanes<T>);
      }
    }
  });
}

// Numbers from one of a patch's transforms to the next. One more cache line: with a power of two all
// would share a cache set.
template <class T>
inline int64_t patch_stride(int64_t patches, int64_t columns) {
  const int64_t line = 64 / sizeof(T);
  return round_up(patches * columns, line) + line;
}

// The products of `count` patches: sums[i] of `some` columns from `first` on. The packed weights
// have `columns` x `width` numbers for each; `width` is a multiple of the lanes.
template <class Form, class T>
inline void multiply_patches(int64_t count, const T* inputs, int64_t input_stride, int64_t columns,
                             const T* weights, int64_t width, int64_t first, int64_t some,
                             Real<T>* sums, int64_t sum_stride) {
  for (int i = 0; i < Form::kNumbers; i++) {
    for (int64_t n = 0; n < some; n += kPanel<T>) {
      const int64_t panel_width = smaller<int64_t>(kPanel<T>, some - n);
      const T* panel = weights + (i * width + first + n) * columns;
      const bool ends = n + panel_width == some;
      const T* next = ends ? weights + ((i + 1) * width + first) * columns
                           : panel + panel_width * columns;
      const Rows<T> rows{inputs + i * input_stride, columns, columns};
      Real<T>* to = sums + i * sum_stride + n;
      if (kUsualDepth<T> && columns == kUsualDepth<T>) {
        product<T, false, kUsualDepth<T>>(count, rows, panel, panel_width, to, some, false, nullptr,
                                          next);
      } else {
        product<T>(count, rows, panel, panel_width, to, some, false, nullptr, next);
      }
    }
  }
}

// Images of one size with contiguous pixels.
struct Maps {
  int64_t images, height, width;
  int64_t pixels() const { return images * height * width; }
  // Patches of size x size pixels, of which those at the end may be outside of the image in part.
  int64_t patch_columns(int64_t size) const { return (width + size - 1) / size; }
  int64_t patches_of_one(int64_t size) const {
    return (height + size - 1) / size * patch_columns(size);
  }
  int64_t patches(int64_t size) const { return images * patches_of_one(size); }
};

struct Patch {
  int64_t image, row, column;  // of the first output pixel
  Patch(const Maps& maps, int64_t index, int64_t size)
      : image(index / maps.patches_of_one(size)),
        row(index % maps.patches_of_one(size) / maps.patch_columns(size) * size),
        column(index % maps.patch_columns(size) * size) {}
  void next(const Maps& maps, int64_t size) {
    column += size;
    if (column < maps.width) return;
    column = 0, row += size;
    if (row < maps.height) return;
    row = 0, image++;
  }
};

// Number of pieces of work.
inline int64_t patch_blocks(int64_t patches, int64_t at_once, int64_t threads) {
  return even_pieces(patches, at_once, 1, threads);
}

// The patches up to `last` read only pixels before this one.
inline int64_t pixels_read(const Maps& maps, int64_t last, int64_t size) {
  const Patch patch(maps, last, size);
  return (patch.image * maps.height + smaller(patch.row + size + 1, maps.height)) * maps.width;
}

}  // namespace
