// Where the patches of patch_forms.h are in training, where what is transformed is computed anew and
// has a frame of zeros, so that no window asks where the image ends.

#pragma once

#include "layer.h"
#include "winograd.h"

namespace {

// Some rows of one image, or some whole images, each in a frame of zeros: a row above, a column on
// the left, and on the other sides one or more, so that every patch has its window.
struct Strip {
  int64_t height, width;  // of an image
  int64_t size;           // of a patch: pixels of its height and width
  Range images, rows;     // rows.begin is a multiple of `size`
  int64_t patch_rows() const { return (rows.end - rows.begin + size - 1) / size; }
  int64_t patch_columns() const { return (width + size - 1) / size; }
  int64_t patches() const { return (images.end - images.begin) * patch_rows() * patch_columns(); }
  int64_t pitch() const { return size * patch_columns() + 2; }
  int64_t frame_rows() const { return size * patch_rows() + 2; }
  int64_t framed() const { return (images.end - images.begin) * frame_rows() * pitch(); }
  int64_t first_pixel() const { return (images.begin * height + rows.begin) * width; }
  int64_t pixels() const {
    return (images.end - images.begin) * (rows.end - rows.begin) * width;
  }
};

// The strips of all images: equal shares for all threads, with frames that fit into the cache.
template <class Form>
struct Strips {
  int64_t images, height, width, parts_of_image, groups;

  Strips(const BlockArguments& g, int64_t pixel_bytes)
      : images(g.images), height(g.height), width(g.width) {
    constexpr int64_t kSize = Form::kPixels;
    const int64_t patch_columns = (width + kSize - 1) / kSize, patches = patch_rows() * patch_columns;
    const int64_t fitting = Form::kFrameBytes / ((kSize * patch_columns + 2) * pixel_bytes) - 2;
    const int64_t most = fitting > kSize ? fitting / kSize : 1;
    const int64_t wanted = (patch_rows() + most - 1) / most;
    const int64_t fair = (2 * g.threads + images - 1) / images;
    parts_of_image = smaller(patch_rows(), wanted > fair ? wanted : fair);
    groups = images;
    if (parts_of_image > 1) return;  // of one image each: a strip's pixels are adjacent
    const int64_t together = smaller(Form::kInBackward / patches, images);
    if (together > 1) groups = (images + together - 1) / together;
    // With many groups the bits of the sums do not depend on the number of threads.
    if (groups < 8 * g.threads) groups = smaller(images, round_up(groups, g.threads));
  }
  int64_t patch_rows() const { return (height + Form::kPixels - 1) / Form::kPixels; }
  int64_t count() const { return groups * parts_of_image; }
  Strip operator[](int64_t i) const {
    const Range part = share(patch_rows(), i % parts_of_image, parts_of_image);
    return {height,
            width,
            Form::kPixels,
            share(images, i / parts_of_image, groups),
            {Form::kPixels * part.begin, smaller(Form::kPixels * part.end, height)}};
  }
};

// Calls fill(pixel, to) for each row of the frame that is in the image, with its first pixel; the
// rest of the frame becomes zero.
template <class T, class Fill>
inline void fill_frame(const Strip& strip, int64_t columns, T* frame, Fill fill) {
  const int64_t line = strip.pitch() * columns;
  for (int64_t image = strip.images.begin; image < strip.images.end; image++) {
    for (int64_t i = 0; i < strip.frame_rows(); i++, frame += line) {
      const int64_t row = strip.rows.begin + i - 1;
      if (row < 0 || row >= strip.height) {
        std::memset(frame, 0, line * sizeof(T));
        continue;
      }
      T* end = frame + (1 + strip.width) * columns;
      std::memset(frame, 0, columns * sizeof(T));
      fill((image * strip.height + row) * strip.width, frame + columns);
      std::memset(end, 0, (frame + line - end) * sizeof(T));
    }
  }
}

// Where a patch is. Its own pixels begin one row and one column inside of its window.
struct Place {
  int64_t window, pixel;  // first pixels, in the strip's frame and in the batch
  int64_t rows, columns;  // of the patch that are in the image
};

// Calls work(row, column, lanes) for the pixels of a patch; of a whole one, and a whole register, all
// are constants.
template <class Form, class Work>
inline void for_pixels(const Place& place, int lanes, int all_lanes, Work work) {
  constexpr int kSize = Form::kPixels;
  if (place.rows == kSize && place.columns == kSize && lanes == all_lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kSize; r++) {
#pragma GCC unroll 4
      for (int c = 0; c < kSize; c++) work(r, c, all_lanes);
    }
    return;
  }
  for (int r = 0; r < place.rows; r++) {
    for (int c = 0; c < place.columns; c++) work(r, c, lanes);
  }
}

inline void find_places(const Strip& strip, Range patches, Place* places) {
  const int64_t size = strip.size;
  for (int64_t p = patches.begin; p < patches.end; p++) {
    const int64_t line = p / strip.patch_columns(), column = p % strip.patch_columns() * size;
    const int64_t image = line / strip.patch_rows(), row = line % strip.patch_rows() * size;
    const int64_t from = strip.rows.begin + row;
    *places++ = {(image * strip.frame_rows() + row) * strip.pitch() + column,
                 ((strip.images.begin + image) * strip.height + from) * strip.width + column,
                 smaller(size, strip.rows.end - from), smaller(size, strip.width - column)};
  }
}

// out[i * stride + p * columns + n] of the transforms of the patches' windows, `columns` of them from
// the frame's `ld`.
template <class Form, class T>
inline void transform_windows(const Strip& strip, const Place* places, int64_t count,
                              const T* frame, int64_t ld, int64_t columns, T* out, int64_t stride) {
  const int64_t row_ld = strip.pitch() * ld;
  for (int64_t p = 0; p < count; p++) {
    const T* corner = frame + places[p].window * ld;
    for (int64_t n = 0; n < columns; n += kLanes<T>) {
      T* to = out + p * columns + n;
      Form::transform(
          [&](int r, int c) { return load<T>(corner + r * row_ld + c * ld + n, kLanes<T>); },
          [&](int i, Vec<T> v) { store<T>(to + i * stride, v, kLanes<T>); });
    }
  }
}

// The same of the transforms of gradients, of the patches' own pixels, which a frame has.
template <class Form, class T>
inline void transform_gradients(const Strip& strip, const Place* places, int64_t count,
                                const T* frame, int64_t columns, T* out, int64_t stride) {
  const int64_t row_ld = strip.pitch() * columns;
  for (int64_t p = 0; p < count; p++) {
    const T* corner = frame + (places[p].window + strip.pitch() + 1) * columns;
    for (int64_t n = 0; n < columns; n += kLanes<T>) {
      T* to = out + p * columns + n;
      Form::gradient(
          [&](int r, int c) { return load<T>(corner + r * row_ld + c * columns + n, kLanes<T>); },
          [&](int i, Vec<T> v) { store<T>(to + i * stride, v, kLanes<T>); });
    }
  }
}

}  // namespace
