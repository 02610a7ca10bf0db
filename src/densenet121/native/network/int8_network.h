// The whole network in 8-bit integers, after calibration: images to pooled features, and these to
// logits in float. network/int8/ has the scheme, and the same arithmetic in plain tensors.
//
// A block is one buffer of channels of 16 bits with a sign, each with a scale and a zero of its own:
// with 8 bits they would be the largest of all errors.
// The bits of an image's features depend neither on the instruction set, nor on the number of
// threads, nor on the other images.

#pragma once

#include "inference_layers.h"
#include "int8_stem.h"
#include "int8_winograd.h"

namespace {

// Computes a block, whose input is in y, for some images.
struct Int8Group {
  const Int8Block& g;
  Maps maps;
  int16_t* y;
  uint8_t* h;  // the bottleneck of one layer: each image in a frame of zeros, as Band's

  static int64_t phases(const Int8Block& g) { return 1 + 2 * g.layers; }
  static int64_t frame_pixels(const Maps& maps) { return (maps.height + 2) * (maps.width + 1) + 1; }
  // With the rows of pixels that a patch at the last rows reads, and the channels that a register
  // reads behind the last pixel, or what tiles read: of that nothing reaches the result.
  static int64_t inner_bytes(const Int8Block& g, const Maps& maps) {
    const int64_t behind = kByteTiles ? kTileHeight : 3 * (maps.width + 2);
    return (maps.images * frame_pixels(maps) + behind) * g.inner_ld() + kTileDepth;
  }
  int64_t pitch() const { return maps.width + 1; }
  // The first of the 3 x 3 pixels around a pixel of the image rows, of which all images have some.
  uint8_t* window(int64_t row, int64_t column) const {
    const int64_t image = row / maps.height, at = row % maps.height * pitch() + column;
    return h + (image * frame_pixels(maps) + at) * g.inner_ld();
  }
  uint8_t* inner(int64_t pixel) const {
    return window(pixel / maps.width, pixel % maps.width) + (pitch() + 1) * g.inner_ld();
  }

  // Where the bottleneck of each of these pixels is. It divides once a row of the image, not for each
  // pixel: a division takes as long as dozens of products.
  void inner_of(Range pixels, uint8_t** to) const {
    int64_t column = pixels.begin % maps.width;
    uint8_t* at = inner(pixels.begin);
    for (int64_t p = pixels.begin; p < pixels.end; p++, column++, at += g.inner_ld()) {
      if (column == maps.width) column = 0, at = inner(p);
      *to++ = at;
    }
  }

  // Writes the zeros around the pixels of an image; the layers write the pixels.
  void clear_frame(uint8_t* image) const {
    const int64_t line = pitch() * g.inner_ld();
    std::memset(image, 0, line);
    for (int64_t row = 1; row <= maps.height; row++) std::memset(image + row * line, 0, g.inner_ld());
    std::memset(image + (maps.height + 1) * line, 0, line + g.inner_ld());
  }

  // The 1x1 convolution of some pixels, at most kByteRowsAtOnce, for some of its columns.
  void conv1(int64_t layer, Range pixels, int part, int parts, Claim& claim) const {
    const Int8Layer& l = g.layer[layer];
    const int64_t rows = pixels.end - pixels.begin, lda = l.affine.padded() + kAffineGroup;
    uint8_t* a = scratch<uint8_t>(0, kByteRowsAtOnce * lda);
    affine_rows(l.affine, y + pixels.begin * g.ld(), g.ld(), rows, a, lda);
    const Range panels = share((g.bottleneck + kBytePanel - 1) / kBytePanel, part, parts);
    const int64_t first = panels.begin * kBytePanel, last = smaller(panels.end * kBytePanel, g.bottleneck);
    uint8_t* own = claim.contested() ? scratch<uint8_t>(1, kByteRowsAtOnce * g.bottleneck) : nullptr;
    uint8_t *places[kByteRowsAtOnce], *to[kByteRowsAtOnce];
    inner_of(pixels, places);
    for (int64_t r = 0; r < rows; r++) to[r] = own ? own + r * g.bottleneck : places[r];
    byte_product<uint8_t>(l.conv1, rows, {a, lda, round_up(l.affine.columns, kSummands)}, first, last,
                          to);
    if (!own || !claim()) return;
    for (int64_t r = 0; r < rows; r++) std::memcpy(places[r] + first, to[r] + first, last - first);
  }

  // The 3x3 convolution of one row of pixels; writes the layer's new channels of y.
  void conv2_row(int64_t layer, int64_t row, Claim& claim) const {
    const int64_t ld = g.inner_ld();
    int16_t* out = y + row * maps.width * g.ld() + g.input_columns + layer * g.growth;
    int16_t* own = claim.contested() ? scratch<int16_t>(1, maps.width * g.growth) : nullptr;
    int16_t* to[kByteRowsAtOnce];
    for (int64_t p = 0; p < maps.width; p += kByteRowsAtOnce) {
      const int64_t some = smaller(kByteRowsAtOnce, maps.width - p);
      for (int64_t i = 0; i < some; i++) {
        to[i] = own ? own + (p + i) * g.growth : out + (p + i) * g.ld();
      }
      byte_product<int16_t>(g.layer[layer].conv2, some, {window(row, p), ld, 3 * ld, 3, pitch() * ld}, 0,
                           g.growth, to);
    }
    if (!own || !claim()) return;
    for (int64_t p = 0; p < maps.width; p++) {
      std::memcpy(out + p * g.ld(), own + p * g.growth, g.growth * sizeof(int16_t));
    }
  }

  // The 3x3 convolution of some patches, in its place.
#if defined(DENSENET121_INT8_PATCHES)
  static constexpr int64_t kPatch = Int8Form::kPixels, kAtOnce = Int8Form::kAtOnce;
  void conv2_patches(int64_t layer, Range range, Claim& claim) const {
    const Int8Layer& l = g.layer[layer];
    const Int8Patches patches{l.conv2, static_cast<int16_t*>(l.patches),
                              round_up(g.bottleneck, kWordChannels)};
    int16_t* inputs = scratch<int16_t>(2, patches.kNumbers * patches.input_stride());
    int32_t* sums = scratch<int32_t>(4, patches.kNumbers * patches.sum_stride());
    for (int64_t p = range.begin; p < range.end; p++) {
      const Patch patch(maps, p, kPatch);
      patches.transform(window(patch.image * maps.height + patch.row, patch.column), g.inner_ld(),
                        pitch(), inputs + (p - range.begin) * patches.channels);
    }
    patches.multiply(range.end - range.begin, inputs, sums);
    if (!claim()) return;
    int16_t* out = y + g.input_columns + layer * g.growth;
    for (int64_t p = range.begin; p < range.end; p++) {
      const Patch patch(maps, p, kPatch);
      const int64_t pixel = (patch.image * maps.height + patch.row) * maps.width + patch.column;
      patches.write(sums + (p - range.begin) * patches.columns(), maps.height - patch.row,
                    maps.width - patch.column, maps.width * g.ld(), g.ld(), out + pixel * g.ld());
    }
  }
#else
  static constexpr int64_t kPatch = 1, kAtOnce = 1;
  void conv2_patches(int64_t, Range, Claim&) const {}  // not by_patches
#endif

  // Pieces of the 3x3 convolution of a layer: patches, or rows of pixels where the patches are so few
  // that reading their weights, eight times as large, takes longer than they save.
  bool by_patches() const {
    return kPatchColumns && g.by_patches && maps.patches(kPatch) >= 2 * kAtOnce;
  }
  int64_t pieces(int64_t threads) const {
    if (!by_patches()) return maps.images * maps.height;
    return patch_blocks(maps.patches(kPatch), kAtOnce, threads);
  }
  Range patches_of(int64_t piece, int64_t pieces) const {
    return share(maps.patches(kPatch), piece, pieces);
  }
  void conv2(int64_t layer, int64_t piece, int64_t pieces, Claim& claim) const {
    if (by_patches()) {
      conv2_patches(layer, patches_of(piece, pieces), claim);
    } else {
      conv2_row(layer, piece, claim);
    }
  }
  // The pixels whose 1x1 convolution a piece of the 3x3 convolution, and those before it, read.
  int64_t wanted(int64_t piece, int64_t pieces) const {
    if (!by_patches()) return smaller((piece + 2) * maps.width, maps.pixels());
    return pixels_read(maps, patches_of(piece, pieces).end - 1, kPatch);
  }

  // For one thread: the result of the 1x1 convolution is used while it is in the cache.
  void layer_alone(int64_t layer) const {
    Claim claim;
    const int64_t some = pieces(1), rows = row_pieces(maps.pixels(), kByteRowsAtOnce, 1);
    int64_t done = 0;
    for (int64_t i = 0; i < some; i++) {
      const int64_t until = wanted(i, some);
      for (; done < rows && share(maps.pixels(), done, rows).begin < until; done++) {
        conv1(layer, share(maps.pixels(), done, rows), 0, 1, claim);
      }
      conv2(layer, i, some, claim);
    }
  }

  void layers(Worker& worker) const {
    worker.run(maps.images, [&](int64_t i, Claim& claim) {
      if (claim()) clear_frame(h + i * frame_pixels(maps) * g.inner_ld());
    });
    const int64_t panels = (g.bottleneck + kBytePanel - 1) / kBytePanel;
    const int64_t rows = row_pieces(maps.pixels(), kByteRowsAtOnce, worker.threads);
    const int64_t parts = worker.parts(rows, panels), some = pieces(worker.threads);
    for (int64_t l = 0; l < g.layers; l++) {
      if (!worker.team) {
        layer_alone(l);
        continue;
      }
      worker.run(rows * parts, [&](int64_t i, Claim& claim) {
        conv1(l, share(maps.pixels(), i / parts, rows), i % parts, parts, claim);
      });
      worker.run(some, [&](int64_t i, Claim& claim) { conv2(l, i, some, claim); });
    }
  }

  // A transition: some pixels of the next block's input.
  void reduce(Range pixels, bool averages, int16_t* out, int64_t out_ld) const {
    const Int8Affine& affine = g.transition;
    const int64_t rows = pixels.end - pixels.begin, lda = affine.padded() + kAffineGroup;
    const int64_t columns = g.reduction.columns, w = maps.width / 2, height = maps.height / 2;
    uint8_t* a = scratch<uint8_t>(0, kByteRowsAtOnce * lda);
    int16_t* candidates = scratch<int16_t>(1, kByteRowsAtOnce * columns);
    const int16_t* corners[kByteRowsAtOnce][4];
    int16_t *to[kByteRowsAtOnce], *next[kByteRowsAtOnce];
    for (int64_t r = 0; r < rows; r++) {
      const int64_t pixel = pixels.begin + r;
      const int64_t row = pixel / w / height * maps.height + pixel / w % height * 2;
      for (int i = 0; i < 4; i++) {
        corners[r][i] = y + ((row + i / 2) * maps.width + pixel % w * 2 + i % 2) * g.ld();
      }
      to[r] = out + pixel * out_ld;
      next[r] = candidates + r * columns;
    }
    const ByteRows input{a, lda, round_up(affine.columns, kSummands)};
    for (int i = 0; i < (averages ? 1 : 4); i++) {
      for (int64_t r = 0; r < rows; r++) {
        if (averages) {
          affine_average(affine, corners[r], a + r * lda);
        } else {
          affine_rows(affine, corners[r][i], 0, 1, a + r * lda, lda);
        }
      }
      byte_product<int16_t>(g.reduction, rows, input, 0, columns, i ? next : to);
      for (int64_t r = 0; i && r < rows; r++) {
        for (int64_t c = 0; c < columns; c++) to[r][c] = to[r][c] > next[r][c] ? to[r][c] : next[r][c];
      }
    }
  }
};

struct Int8Pass {
  const Int8Network& g;
  std::vector<Maps> maps;        // of each block, for one image
  std::vector<int64_t> buffers;  // start of each block's y, for one image

  explicit Int8Pass(const Int8Network& g) : g(g) {
    int64_t height = g.pooled ? g.pool.out_height : g.first.output(g.first.height);
    int64_t width = g.pooled ? g.pool.out_width : g.first.output(g.first.width);
    buffers.push_back(0);
    for (int64_t b = 0; b < g.blocks; b++, height /= 2, width /= 2) {
      maps.push_back({1, height, width});
      buffers.push_back(buffers.back() + maps[b].pixels() * g.block[b].ld());
    }
  }

  // Number of images per group, for the small maps of the last block; two groups per thread, if
  // there are enough images.
  int64_t at_once() const {
    const int64_t fair = (g.first.images + 2 * g.threads - 1) / (2 * g.threads);
    return images_at_once(2 * maps.back().pixels(), fair);
  }
  Maps of(int64_t b, int64_t images) const { return {images, maps[b].height, maps[b].width}; }
  int64_t inner_bytes(int64_t images) const {
    int64_t most = 0;
    for (int64_t b = 0; b < g.blocks; b++) {
      const int64_t bytes = Int8Group::inner_bytes(g.block[b], of(b, images_at_once(maps[b].pixels(), images)));
      most = bytes > most ? bytes : most;
    }
    return most;
  }
  int64_t phases(int64_t images) const {
    int64_t sum = 1;
    for (int64_t b = 0; b < g.blocks; b++) {
      const int64_t some = images_at_once(maps[b].pixels(), images);
      sum += 1 + (images + some - 1) / some * Int8Group::phases(g.block[b]);
    }
    return sum;
  }

  void stem(Worker& worker, int64_t first, int64_t images, int16_t* y) const {
    const int64_t ld = g.block[0].ld(), height = maps[0].height;
    // Each piece computes one row of the convolution that the previous piece also computes.
    const int64_t rows = worker.team ? 7 : 14, pieces = (height + rows - 1) / rows;
    worker.run(images * pieces, [&](int64_t i, Claim& claim) {
      if (!claim()) return;  // it writes row after row
      int16_t* to = y + i / pieces * maps[0].pixels() * ld;
      int8_stem_rows(g, first + i / pieces, share(height, i % pieces, pieces), to, ld);
    });
  }

  // The mean over the pixels of relu(norm5(y)).
  void features(Worker& worker, int64_t first, int64_t images, const int16_t* y) const {
    const Int8Block& last = g.block[g.blocks - 1];
    const int64_t pixels = maps.back().pixels(), columns = last.columns();
    const int64_t groups = (columns + kAffineGroup - 1) / kAffineGroup;
    worker.run(images * groups, [&](int64_t i, Claim& claim) {
      if (!claim()) return;
      const int64_t image = i / groups, begin = i % groups * kAffineGroup;
      const int64_t end = smaller(begin + kAffineGroup, columns);
      int64_t sums[kAffineGroup];
      affine_sums(last.transition, y + image * pixels * last.ld(), last.ld(), pixels, begin, end, sums);
      float* out = static_cast<float*>(g.y) + (first + image) * columns;
      for (int64_t c = begin; c < end; c++) {
        const float mean = static_cast<float>(sums[c - begin]) / static_cast<float>(pixels);
        out[c] = mean * static_cast<float*>(g.feature_scale)[c];
      }
    });
  }

  // Images first .. first + images - 1; y and h have memory for all buffers of this many images.
  void run(Worker& worker, int64_t first, int64_t images, int16_t* y, uint8_t* h) const {
    stem(worker, first, images, y);
    for (int64_t b = 0; b < g.blocks; b++) {
      const Int8Block& block = g.block[b];
      int16_t* here = y + buffers[b] * images;
      const int64_t some = images_at_once(maps[b].pixels(), images);
      for (int64_t i = 0; i < images; i += some) {
        Int8Group{block, of(b, smaller(some, images - i)),
                  here + i * maps[b].pixels() * block.ld(), h}
            .layers(worker);
      }
      if (b + 1 == g.blocks) return features(worker, first, images, here);
      const Int8Group all{block, of(b, images), here, nullptr};
      const int64_t outputs = images * maps[b + 1].pixels();
      const int64_t pieces = row_pieces(outputs, kByteRowsAtOnce, worker.threads);
      worker.run(pieces, [&](int64_t i, Claim& claim) {
        if (!claim()) return;
        all.reduce(share(outputs, i, pieces), g.averages != 0, y + buffers[b + 1] * images,
                   g.block[b + 1].ld());
      });
    }
  }
};

inline void int8_network_run(const Int8Network& g) {
  const Int8Pass pass(g);
  const int64_t images = g.first.images, at_once = pass.at_once();
  const int64_t groups = (images + at_once - 1) / at_once;
  const int64_t numbers = pass.buffers.back() * at_once, inner = pass.inner_bytes(at_once);
  int16_t* y = scratch<int16_t>(5, numbers);
  uint8_t* h = scratch<uint8_t>(3, inner);
  share_groups(groups, pass.phases(at_once), g.threads, [&](Worker& worker, int64_t i) {
    Tiles tiles;
    int16_t* own_y = worker.team ? y : scratch<int16_t>(5, numbers);
    uint8_t* own_h = worker.team ? h : scratch<uint8_t>(3, inner);
    pass.run(worker, i * at_once, smaller(at_once, images - i * at_once), own_y, own_h);
  });
  if (g.classifier.classes) classifier_run<float>(g.classifier);
}

}  // namespace
