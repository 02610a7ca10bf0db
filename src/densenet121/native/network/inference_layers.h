// Inference of a dense block in float and double, and in bf16 where pairs are multiplied: norm2 is
// folded into the 1x1 convolution, and the 3x3 convolution uses Winograd's algorithm. In bf16 the
// block's channels are of 16 bits, the bottleneck is of 32.
//
// The bits of an image's output depend neither on the number of threads nor on the other images.

#pragma once

#include "block.h"
#include "whole_patches.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct InferenceArguments {
  BlockArguments block;
  void* weights;  // written by inference_pack, of type T
  void* norms;    // written by inference_pack, of type Real<T>
  uint64_t fingerprint;
  int64_t weight_numbers, norm_numbers;
};

// Start of a layer's part of `weights` and `norms`, and its padded sizes.
template <class T>
struct LayerLayout {
  int64_t columns, width, growth;  // multiples of the number of lanes
  int64_t weights = 0, norms = 0;

  LayerLayout(const BlockArguments& g, int64_t layer)
      : width(round_up(g.bottleneck, kLanes<T>)), growth(round_up(g.growth, kLanes<T>)) {
    const int64_t products = (g.patch_pixels + 2) * (g.patch_pixels + 2);
    for (int64_t l = 0; l < layer; l++) {
      columns = round_up(g.input_columns + l * g.growth, kLanes<T>);
      weights += columns * width + products * width * growth;
      norms += 2 * columns + width;
      if (kTogether<T> > 1) norms += products * growth;  // units of the weights
    }
    columns = round_up(g.input_columns + layer * g.growth, kLanes<T>);
  }
};

template <class T>
void pack_layers(const InferenceArguments& arguments) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  for (int64_t l = 0; l < g.layers; l++) {
    const Layer<T> layer(g, l);
    const LayerLayout<T> at(g, l);
    const Affine<R> norm1 = layer.norm1(), norm2 = layer.norm2();
    T* panels = static_cast<T*>(arguments.weights) + at.weights;
    const Weight<R> weight1 = layer.weight(layer.args.weight1, layer.args.strides1);
    const Weight<R> weight2 = layer.weight(layer.args.weight2, layer.args.strides2);
    pack_product<T>(panels, layer.columns, g.bottleneck, g.threads,
                    [&](int64_t i, int64_t o) { return norm2.scale[o] * weight1(o, i); });
    R* norms = static_cast<R*>(arguments.norms) + at.norms;
    std::memset(norms, 0, (2 * at.columns + at.width) * sizeof(R));
    std::memcpy(norms, norm1.scale.data(), layer.columns * sizeof(R));
    std::memcpy(norms + at.columns, norm1.shift.data(), layer.columns * sizeof(R));
    std::memcpy(norms + 2 * at.columns, norm2.shift.data(), g.bottleneck * sizeof(R));
    panels += at.columns * at.width, norms += 2 * at.columns + at.width;
    const auto value2 = [&](int64_t i, int64_t o, int r, int c) { return weight2(o, i, r, c); };
    if (g.patch_pixels == 4) {
      pack_patches<PatchesOfFour<R>>(panels, norms, g.bottleneck, g.growth, g.threads, value2);
    } else {
      pack_patches<PatchesOfTwo<R>>(panels, norms, g.bottleneck, g.growth, g.threads, value2);
    }
  }
}

// Work of one thread alone, or of all threads of a team.
struct Worker {
  Phases* team;
  int threads, member;
  int64_t phase = 0;  // next phase of the team

  // Calls work(i, claim) for i = 0 .. pieces - 1.
  template <class Work>
  void run(int64_t pieces, Work work) {
    if (team) {
      team->run(phase++, pieces, member, work);
    } else {
      Claim claim;
      for (int64_t i = 0; i < pieces; i++) work(i, claim);
    }
  }

  // Number of parts, at most `most`, to divide each of `pieces` into for equal shares.
  int64_t parts(int64_t pieces, int64_t most) const {
    int64_t n = 1;
    while (team && n < most && pieces * n % threads != 0 && pieces * n < 4 * threads) n++;
    return n;
  }
};

// Computes a block, whose input is in y, for some images.
template <class T>
struct Group {
  using R = Real<T>;
  const BlockArguments& g;
  const T* weights;
  const R* norms;
  Maps maps;
  T* y;
  R* h;  // the bottleneck, relu(norm2(conv1)) of one layer, by panels

  static int64_t phases(const BlockArguments& g) { return 2 * g.layers; }

  // The 1x1 convolution of some pixels, for number `part` of `parts` ranges of its columns.
  void conv1(int64_t layer, Range pixels, int part, int parts, Claim& claim) const {
    const LayerLayout<T> at(g, layer);
    const int64_t columns = g.input_columns + layer * g.growth, ld = g.columns();
    const int64_t rows = pixels.end - pixels.begin, panels = (at.width + kPanel<T> - 1) / kPanel<T>;
    const Range mine = share(panels, part, parts);
    const int64_t first = mine.begin * kPanel<T>;
    const int64_t width = smaller(mine.end * kPanel<T>, at.width) - first;
    const R* scale = norms + at.norms;
    const R* shift = scale + 2 * at.columns + first;
    T* a = scratch<T>(0, kRowsAtOnce * kSkewedNumbers<T>);
    const ByPanels<R> out{h + first * maps.pixels(), maps.pixels(), pixels.begin};
    // The sums so far are read again: of two threads each needs its own.
    const ByPanels<R> own{scratch<R>(1, kRowsAtOnce * round_up(width, kPanel<R>)), rows, 0};
    const ByPanels<R>& c = claim.contested() ? own : out;
    for (int64_t k = 0; k < at.columns; k += kNumbersAtOnce<T>) {
      const int64_t depth = smaller<int64_t>(kNumbersAtOnce<T>, at.columns - k);
      normalise_some<T>(y + pixels.begin * ld + k, ld, rows, columns - k, depth, scale + k,
                        scale + at.columns + k, a, kSkewedNumbers<T>);
      multiply_factors<T>(rows, a, k, depth, weights + at.weights + first * at.columns, at.columns,
                          width, c, shift);
    }
    if (!claim.contested() || !claim()) return;
    for (int64_t n = 0; n < width; n += kPanel<R>) {
      std::memcpy(out.panel(n), own.panel(n), rows * kPanel<R> * sizeof(R));
    }
  }

  // The 3x3 convolution of some patches; writes the layer's new channels of y.
  template <class Form>
  void conv2(int64_t layer, Range patches, Claim& claim) const {
    const LayerLayout<T> at(g, layer);
    convolve_patches<Form>(maps, patches.begin, patches.end, h, at.width,
                           weights + at.weights + at.columns * at.width,
                           norms + at.norms + 2 * at.columns + at.width, g.growth,
                           y + g.input_columns + layer * g.growth, g.columns(), claim);
  }

  // For one thread: the result of the 1x1 convolution is used while it is in the cache.
  template <class Form>
  void layer_alone(int64_t layer) const {
    Claim claim;
    int64_t done = 0;
    const int64_t pieces = row_pieces(maps.pixels(), kRowsAtOnce, 1);
    const int64_t count = maps.patches(Form::kPixels);
    const int64_t blocks = patch_blocks(count, Form::kAtOnce, 1);
    for (int64_t i = 0; i < blocks; i++) {
      const Range patches = share(count, i, blocks);
      const int64_t wanted = pixels_read(maps, patches.end - 1, Form::kPixels);
      for (; done < pieces && share(maps.pixels(), done, pieces).begin < wanted; done++) {
        conv1(layer, share(maps.pixels(), done, pieces), 0, 1, claim);
      }
      conv2<Form>(layer, patches, claim);
    }
  }

  void layers(Worker& worker) const {
    if (g.patch_pixels == 4) {
      layers_in<PatchesOfFour<R>>(worker);
    } else {
      layers_in<PatchesOfTwo<R>>(worker);
    }
  }

  template <class Form>
  void layers_in(Worker& worker) const {
    // With few rows the columns are divided too, so that every thread has work.
    const int64_t panels = (round_up(g.bottleneck, kLanes<T>) + kPanel<T> - 1) / kPanel<T>;
    const int64_t pieces = row_pieces(maps.pixels(), kRowsAtOnce, worker.threads);
    const int64_t parts = worker.parts(pieces, panels);
    const int64_t count = maps.patches(Form::kPixels);
    const int64_t patches = patch_blocks(count, Form::kAtOnce, worker.threads);
    for (int64_t l = 0; l < g.layers; l++) {
      if (!worker.team) {
        layer_alone<Form>(l);
        continue;
      }
      worker.run(pieces * parts, [&](int64_t i, Claim& claim) {
        conv1(l, share(maps.pixels(), i / parts, pieces), i % parts, parts, claim);
      });
      worker.run(patches, [&](int64_t i, Claim& claim) {
        conv2<Form>(l, share(count, i, patches), claim);
      });
    }
  }
};

// Number of images that are computed together: several if the maps are small, so that a product has
// enough rows for the weights it reads.
inline int64_t images_at_once(int64_t pixels, int64_t images) {
  const int64_t wanted = smaller(196 / pixels, images);
  return wanted > 1 ? wanted : 1;
}

// Calls work(worker, group) for groups 0 .. groups - 1: each on its own thread if that keeps all
// threads busy, else each on all threads, in `phases` phases.
template <class Work>
void share_groups(int64_t groups, int64_t phases, int threads, Work work) {
  const bool alone = groups % threads == 0 || groups > 4 * threads;
  Phases team(alone ? 1 : groups * phases, threads);
#pragma omp parallel num_threads(threads)
  {
    // There may be fewer threads than requested.
    Worker worker{alone ? nullptr : &team, omp_get_num_threads(), omp_get_thread_num()};
    if (alone) {
      team.run(0, groups, worker.member, [&](int64_t i, Claim& claim) {
        claim();  // a group is too much to be computed twice
        work(worker, i);
      });
    } else {
      try {
        for (int64_t i = 0; i < groups; i++) work(worker, i);
      } catch (...) {
        team.failure.note();
      }
    }
  }
  team.failure.check();
}

template <class T>
void run_layers(const InferenceArguments& arguments) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  const int64_t pixels = g.height * g.width, fair = (g.images + g.threads - 1) / g.threads;
  const int64_t at_once = images_at_once(pixels, fair);
  const int64_t groups = (g.images + at_once - 1) / at_once;
  const int64_t numbers = at_once * pixels * round_up(g.bottleneck, kPanel<R>);
  R* shared = scratch<R>(3, numbers);
  share_groups(groups, 1 + Group<T>::phases(g), g.threads, [&](Worker& worker, int64_t i) {
    const Maps maps{smaller(at_once, g.images - i * at_once), g.height, g.width};
    const T* x = static_cast<T*>(g.x) + i * at_once * pixels * g.input_columns;
    T* y = static_cast<T*>(g.y) + i * at_once * pixels * g.columns();
    worker.run(maps.images * maps.height, [&](int64_t row, Claim& claim) {
      if (!claim()) return;
      for (int64_t p = row * maps.width; p < (row + 1) * maps.width; p++) {
        std::memcpy(y + p * g.columns(), x + p * g.input_columns, g.input_columns * sizeof(T));
      }
    });
    Group<T>{g, static_cast<T*>(arguments.weights), static_cast<R*>(arguments.norms), maps, y,
             worker.team ? shared : scratch<R>(3, numbers)}
        .layers(worker);
  });
}

}  // namespace
