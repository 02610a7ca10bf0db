// The whole network in evaluation, for the types of inference_layers.h. Everything before the classifier is
// one parallel region: stem, dense blocks, transitions, the last norm and, if they are wanted, the
// means of its pixels. Each part writes into the buffer of the next.
//
// The weights are packed once (network_pack) and cached by Python.

#pragma once

#include "classifier.h"
#include "first_convolution.h"
#include "inference.h"
#include "pooling.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct NetworkArguments {
  int64_t images, threads, blocks;
  int64_t pooled;    // the stem has a norm, relu and pool after its convolution
  int64_t averages;  // the transitions pool by average; else by maximum
  FirstConvolution first;
  StemArguments stem;
  InferenceArguments* block;
  TransitionArguments* transition;  // blocks - 1, followed by one for the last norm
  void* y;  // output of the last norm; null: it is not wanted
  void* means;  // of type Real<T>: those of relu of it over the pixels, in its place
  ClassifierArguments classifier;  // of the means, as they; without classes there is none
  void *weights, *norms;  // written by network_pack
  uint64_t fingerprint;
  int64_t weight_numbers, norm_numbers;
};

// Start of each part in the packed weights and norms, and the size of its maps.
template <class T>
struct NetworkLayout {
  struct Part {
    int64_t weights, norms;
  };
  std::vector<Part> block, transition;  // the last transition: the last norm
  Part end{0, 0};

  explicit NetworkLayout(const NetworkArguments& g) {
    const int64_t columns = round_up(g.first.columns, kLanes<T>);
    end = {FirstLayout<T>(g.first).depth * columns, columns};
    for (int64_t b = 0; b < g.blocks; b++) {
      block.push_back(end);
      const InferenceArguments& i = g.block[b];
      const LayerLayout<T> size(i.block, i.block.layers);
      end = {end.weights + size.weights, end.norms + size.norms};
      transition.push_back(end);
      const TransitionArguments& t = g.transition[b];
      const int64_t columns = round_up(t.columns, kLanes<T>);
      end.norms += 2 * columns;
      if (b + 1 < g.blocks) end.weights += columns * round_up(t.output_columns, kLanes<T>);
    }
  }
};

inline void mix_into(uint64_t* hash, uint64_t bits) {
  *hash = (*hash ^ bits) * 1099511628211u;  // FNV-1a
}

// As inference_fingerprint, for all parts; also the number of values that network_pack writes.
template <class T>
void network_fingerprint(const NetworkArguments& arguments) {
  using R = Real<T>;
  NetworkArguments& g = const_cast<NetworkArguments&>(arguments);
  uint64_t hash = 1469598103934665603u;
  const auto ends = [&](const void* data, int64_t n) {
    const R* numbers = static_cast<const R*>(data);
    for (int64_t i : {int64_t{0}, n / 2, n - 1}) {
      uint64_t bits = 0;
      std::memcpy(&bits, numbers + i, sizeof(R));
      mix_into(&hash, bits);
    }
  };
  const Weight<R> first = g.first.weights<R>();
  for (int64_t i = 0; i < 3; i++) {
    const int64_t tap = (g.first.kernel - 1) * i / 2;
    ends(&first((g.first.columns - 1) * i / 2, (g.first.channels - 1) * i / 2, tap, tap), 1);
  }
  if (g.pooled) {
    for (void* data : {g.stem.gamma, g.stem.beta, g.stem.mean, g.stem.variance}) {
      ends(data, g.stem.columns);
    }
  }
  for (int64_t b = 0; b < g.blocks; b++) {
    InferenceArguments block = g.block[b];  // other threads may read the original
    inference_fingerprint<T>(block);
    mix_into(&hash, block.fingerprint);
    const TransitionArguments& t = g.transition[b];
    for (void* data : {t.gamma, t.beta, t.mean, t.variance}) ends(data, t.columns);
    if (t.weight) ends(t.weight, t.columns * t.output_columns);
  }
  g.fingerprint = hash;
  const NetworkLayout<T> layout(g);
  g.weight_numbers = layout.end.weights, g.norm_numbers = layout.end.norms;
}

template <class R>
void pack_norm(const Affine<R>& affine, int64_t columns, R* out) {
  const int64_t padded = round_up(columns, kLanes<R>);
  std::memset(out, 0, 2 * padded * sizeof(R));
  std::memcpy(out, affine.scale.data(), columns * sizeof(R));
  std::memcpy(out + padded, affine.shift.data(), columns * sizeof(R));
}

template <class T>
void network_pack(const NetworkArguments& g) {
  using R = Real<T>;
  const NetworkLayout<T> layout(g);
  T* weights = static_cast<T*>(g.weights);
  R* norms = static_cast<R*>(g.norms);
  std::memset(norms, 0, layout.block[0].norms * sizeof(R));
  if (g.pooled) {
    const StemArguments& s = g.stem;
    const Affine<R> norm(static_cast<R*>(s.gamma), static_cast<R*>(s.beta), static_cast<R*>(s.mean),
                         static_cast<R*>(s.variance), s.eps, s.columns);
    std::memcpy(norms, norm.shift.data(), s.columns * sizeof(R));
    pack_first_convolution<T>(g.first, norm.scale.data(), weights);
  } else {
    pack_first_convolution<T>(g.first, nullptr, weights);
  }
  for (int64_t b = 0; b < g.blocks; b++) {
    InferenceArguments block = g.block[b];
    block.block.threads = g.threads;
    block.weights = weights + layout.block[b].weights;
    block.norms = norms + layout.block[b].norms;
    pack_layers<T>(block);
    const TransitionArguments& t = g.transition[b];
    pack_norm<R>(t.affine<R>(), t.columns, norms + layout.transition[b].norms);
    if (!t.weight) continue;
    const Weight<R> weight = t.matrix<R>(t.weight);
    pack_product<T>(weights + layout.transition[b].weights, t.columns, t.output_columns, g.threads,
                    [&](int64_t i, int64_t o) { return weight(o, i); });
  }
}

// Computes the network for some images.
template <class T>
struct Pass {
  using R = Real<T>;
  const NetworkArguments& g;
  const NetworkLayout<T> layout;
  std::vector<BlockArguments> blocks;  // with the map sizes of these images
  std::vector<int64_t> buffers;        // start of each block's y, for one image

  explicit Pass(const NetworkArguments& g) : g(g), layout(g) {
    int64_t height = g.pooled ? g.stem.out_height : g.first.output(g.first.height);
    int64_t width = g.pooled ? g.stem.out_width : g.first.output(g.first.width);
    buffers.push_back(0);
    for (int64_t b = 0; b < g.blocks; b++, height /= 2, width /= 2) {
      BlockArguments block = g.block[b].block;
      block.height = height, block.width = width;
      blocks.push_back(block);
      buffers.push_back(buffers.back() + pixels(b) * block.columns());
    }
  }

  int64_t pixels(int64_t b) const { return blocks[b].height * blocks[b].width; }

  // Number of images per group, for the small maps of the last block; two groups per thread, if
  // there are enough images.
  int64_t at_once() const {
    const int64_t fair = (g.images + 2 * g.threads - 1) / (2 * g.threads);
    return images_at_once(2 * pixels(g.blocks - 1), fair);
  }
  int64_t bottleneck_numbers(int64_t images) const {
    int64_t most = 0;
    for (int64_t b = 0; b < g.blocks; b++) {
      const int64_t rows = images_at_once(pixels(b), images) * pixels(b);
      const int64_t numbers = rows * round_up(blocks[b].bottleneck, kPanel<R>);
      most = numbers > most ? numbers : most;
    }
    return most;
  }
  int64_t phases(int64_t images) const {
    int64_t sum = 1;
    for (int64_t b = 0; b < g.blocks; b++) {
      const int64_t some = images_at_once(pixels(b), images);
      sum += 1 + (images + some - 1) / some * Group<T>::phases(blocks[b]);
    }
    return sum;
  }

  void stem(Worker& worker, int64_t first, int64_t images, T* y) const {
    const BlockArguments& block = blocks[0];
    const int64_t ld = block.columns(), numbers = block.height * block.width * ld;
    const T* panels = static_cast<T*>(g.weights);
    const R* shift = static_cast<R*>(g.norms);
    // Each piece computes one row of the convolution that the previous piece also computes.
    const int64_t rows = worker.team ? 7 : 14, pieces = (block.height + rows - 1) / rows;
    worker.run(images * pieces, [&](int64_t i, Claim& claim) {
      if (!claim()) return;  // it writes row after row
      const Range range = share(block.height, i % pieces, pieces);
      T* to = y + i / pieces * numbers;
      if (g.pooled) {
        convolve_and_pool_rows<T>(g.first, g.stem, panels, shift, first + i / pieces, range, to, ld);
      } else {
        convolve_rows<T>(g.first, panels, first + i / pieces, range, to, ld);
      }
    });
  }

  void last_norm(Worker& worker, int64_t images, const T* y, T* out) const {
    const BlockArguments& block = blocks.back();
    const R* scale = static_cast<R*>(g.norms) + layout.transition.back().norms;
    const int64_t columns = block.columns(), padded = round_up(columns, kLanes<T>);
    worker.run(images * block.height, [&](int64_t row, Claim& claim) {
      if (!claim()) return;
      for (int64_t p = row * block.width; p < (row + 1) * block.width; p++) {
        for (int64_t c = 0; c < columns; c += kLanes<T>) {
          const int n = smaller<int64_t>(kLanes<T>, columns - c);
          store<T>(out + p * columns + c,
                   load<T>(y + p * columns + c, n) * load<R>(scale + c, kLanes<T>) +
                       load<R>(scale + padded + c, kLanes<T>),
                   n);
        }
      }
    });
  }

  // Of relu of the last norm over the pixels of each image, rounded to T. Sums of 16 pixels are added,
  // sums of 16 of these, and so on, so that large maps round little more than small ones.
  void means(Worker& worker, int64_t images, const T* y, R* out) const {
    constexpr int64_t kSome = 128;  // columns
    constexpr int kLevels = 5;
    const BlockArguments& block = blocks.back();
    const R* scale = static_cast<R*>(g.norms) + layout.transition.back().norms;
    const int64_t columns = block.columns(), padded = round_up(columns, kLanes<T>);
    const int64_t pixels = block.height * block.width;
    const int64_t pieces = (columns + kSome - 1) / kSome;
    worker.run(images * pieces, [&](int64_t i, Claim& claim) {
      if (!claim()) return;
      const int64_t image = i / pieces, last = smaller((i % pieces + 1) * kSome, columns);
      for (int64_t c = i % pieces * kSome; c < last; c += kLanes<T>) {
        const int n = smaller<int64_t>(kLanes<T>, columns - c);
        const Vec<T> factor = load<R>(scale + c, kLanes<T>);
        const Vec<T> shift = load<R>(scale + padded + c, kLanes<T>);
        const T* pixel = y + image * pixels * columns + c;
        Vec<T> sums[kLevels]{};
        for (int64_t p = 1; p <= pixels; p++, pixel += columns) {
          sums[0] += relu(load<T>(pixel, n) * factor + shift);
          int64_t added = p;
          for (int level = 1; level < kLevels && added % 16 == 0; level++, added /= 16) {
            sums[level] += sums[level - 1];
            sums[level - 1] = Vec<T>{};
          }
        }
        for (int level = 1; level < kLevels; level++) sums[0] += sums[level];
        T mean[kLanes<T>];
        store<T>(mean, sums[0] / R(pixels), kLanes<T>);
        store<R>(out + image * columns + c, load<T>(mean, kLanes<T>), n);
      }
    });
  }

  // Images first .. first + images - 1; y and h have memory for all buffers of this many images.
  void run(Worker& worker, int64_t first, int64_t images, T* y, R* h) const {
    stem(worker, first, images, y);
    for (int64_t b = 0; b < g.blocks; b++) {
      const BlockArguments& block = blocks[b];
      T* here = y + buffers[b] * images;
      const int64_t some = images_at_once(pixels(b), images);
      for (int64_t i = 0; i < images; i += some) {
        const Maps maps{smaller(some, images - i), block.height, block.width};
        Group<T>{block, static_cast<T*>(g.weights) + layout.block[b].weights,
                 static_cast<R*>(g.norms) + layout.block[b].norms, maps,
                 here + i * pixels(b) * block.columns(), h}
            .layers(worker);
      }
      if (b + 1 == g.blocks) {
        const int64_t columns = block.columns();
        if (g.y) {
          last_norm(worker, images, here, static_cast<T*>(g.y) + first * pixels(b) * columns);
        } else {
          means(worker, images, here, static_cast<R*>(g.means) + first * columns);
        }
        return;
      }
      const Pooling<T> pooling{g.transition[b], {images, block.height, block.width}, here,
                               static_cast<T*>(g.weights) + layout.transition[b].weights,
                               static_cast<R*>(g.norms) + layout.transition[b].norms,
                               y + buffers[b + 1] * images, blocks[b + 1].columns(),
                               g.averages != 0};
      const int64_t pieces = row_pieces(pooling.outputs(), kRowsAtOnce, worker.threads);
      const int64_t parts = worker.parts(pieces, pooling.panels());
      worker.run(pieces * parts, [&](int64_t i, Claim& claim) {
        pooling.run(share(pooling.outputs(), i / parts, pieces), i % parts, parts, claim);
      });
    }
  }
};

template <class T>
void network_run(const NetworkArguments& g) {
  using R = Real<T>;
  const Pass<T> pass(g);
  const int64_t at_once = pass.at_once(), groups = (g.images + at_once - 1) / at_once;
  const int64_t numbers = pass.buffers.back() * at_once, inner = pass.bottleneck_numbers(at_once);
  T* y = scratch<T>(5, numbers);
  R* h = scratch<R>(3, inner);
  share_groups(groups, pass.phases(at_once), g.threads, [&](Worker& worker, int64_t i) {
    T* own_y = worker.team ? y : scratch<T>(5, numbers);
    R* own_h = worker.team ? h : scratch<R>(3, inner);
    pass.run(worker, i * at_once, smaller(at_once, g.images - i * at_once), own_y, own_h);
  });
  if (g.classifier.classes) classifier_run<R>(g.classifier);
}

}  // namespace
