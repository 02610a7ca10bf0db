// A dense block's inference in float and double: norm2 is folded into the 1x1 convolution, the 3x3
// convolution is Winograd's.
//
// Neither the number of threads nor of the images beside it changes the bits of an image's output.

#pragma once

#include "block.h"
#include "team.h"
#include "winograd.h"

namespace {

// Filled in by Python (network/fused/inference.py): the order and the types must agree.
struct InferenceArguments {
  BlockArguments block;
  void* weights;  // what inference_pack writes: numbers of type T
  void* norms;    // likewise: of type Real<T>
  uint64_t fingerprint;
  int64_t weight_numbers, norm_numbers;
};

// Where a layer's share begins in `weights` and in `norms`, and its padded sizes.
template <class T>
struct LayerLayout {
  int64_t columns, width, growth;  // multiples of a register's numbers
  int64_t weights = 0, norms = 0;

  LayerLayout(const BlockArguments& g, int64_t layer)
      : width(round_up(g.bottleneck, kLanes<T>)), growth(round_up(g.growth, kLanes<T>)) {
    for (int64_t l = 0; l < layer; l++) {
      columns = round_up(g.input_columns + l * g.growth, kLanes<T>);
      weights += columns * width + kPatchSize * width * growth;
      norms += 2 * columns + width;
    }
    columns = round_up(g.input_columns + layer * g.growth, kLanes<T>);
  }
};

template <class T>
void pack_layers(const InferenceArguments& arguments) {
  const BlockArguments& g = arguments.block;
  for (int64_t l = 0; l < g.layers; l++) {
    const Layer<T> layer(g, l);
    const LayerLayout<T> at(g, l);
    const Affine<T> norm1 = layer.norm1(), norm2 = layer.norm2();
    T* panels = static_cast<T*>(arguments.weights) + at.weights;
    const Weight<T> weight1 = layer.weight(layer.args.weight1, layer.args.strides1);
    const Weight<T> weight2 = layer.weight(layer.args.weight2, layer.args.strides2);
    T* patches = panels + at.columns * at.width;
    std::memset(panels, 0, (at.columns * at.width + kPatchSize * at.width * at.growth) * sizeof(T));
#pragma omp parallel for num_threads(g.threads) schedule(static)
    for (int64_t o = 0; o < g.bottleneck; o++) {
      for (int64_t i = 0; i < layer.columns; i++) {
        panels[panel_index<T>(i, o, at.columns, at.width)] = norm2.scale[o] * weight1(o, i);
      }
      for (int64_t n = 0; n < g.growth; n++) {
        const auto window = [&](int r, int c) { return weight2(n, o, r, c); };
        for (int i = 0; i < kPatchSize; i++) {
          patches[i * at.width * at.growth + panel_index<T>(o, n, at.width, at.growth)] =
              winograd_weight(i, window);
        }
      }
    }
    T* norms = static_cast<T*>(arguments.norms) + at.norms;
    std::memset(norms, 0, (2 * at.columns + at.width) * sizeof(T));
    std::memcpy(norms, norm1.scale.data(), layer.columns * sizeof(T));
    std::memcpy(norms + at.columns, norm1.shift.data(), layer.columns * sizeof(T));
    std::memcpy(norms + 2 * at.columns, norm2.shift.data(), g.bottleneck * sizeof(T));
  }
}

// out = relu(scale * x + shift) of some rows; zeros from `columns` to `padded`.
template <class T>
inline void normalise_some(const T* x, int64_t ld, int64_t rows, int64_t columns, int64_t padded,
                           const T* scale, const T* shift, T* out, int64_t out_ld) {
  constexpr int kRows = 4;  // that share a scale and a shift
  for (int64_t r = 0; r < rows; r += kRows) {
    const int some = smaller<int64_t>(kRows, rows - r);
    for (int64_t c = 0; c < padded; c += kLanes<T>) {
      const Vec<T> s = load<T>(scale + c, kLanes<T>), t = load<T>(shift + c, kLanes<T>);
      const T* from = x + r * ld + c;
      T* to = out + r * out_ld + c;
      if (some == kRows && c + kLanes<T> <= columns) {
        for (int i = 0; i < kRows; i++) {
          store<T>(to + i * out_ld, relu(load<T>(from + i * ld, kLanes<T>) * s + t), kLanes<T>);
        }
        continue;
      }
      const int n = smaller<int64_t>(kLanes<T>, columns > c ? columns - c : 0);
      for (int i = 0; i < some; i++) {
        store<T>(to + i * out_ld, relu(load<T>(from + i * ld, n) * s + t), kLanes<T>);
      }
    }
  }
}

// Pixels whose 1x1 convolution is one piece of work: a multiple of all heights of a tile.
constexpr int64_t kRowsAtOnce = 60;

// Some images through a block.
template <class T>
struct Group {
  const InferenceArguments& arguments;
  const BlockArguments& g;
  Maps maps;
  const T* x;
  T *y, *h;  // h: the bottleneck, relu(norm2(conv1)) of one layer

  Group(const InferenceArguments& arguments, int64_t first, int64_t images, T* h)
      : arguments(arguments),
        g(arguments.block),
        maps{images, g.height, g.width},
        x(static_cast<T*>(g.x) + first * g.height * g.width * g.input_columns),
        y(static_cast<T*>(g.y) + first * g.height * g.width * g.columns()),
        h(h) {}

  int64_t row_blocks() const { return (maps.pixels() + kRowsAtOnce - 1) / kRowsAtOnce; }
  int64_t patch_blocks() const { return (maps.patches() + kPatchesAtOnce - 1) / kPatchesAtOnce; }

  void copy_input(Range pixels) const {
    for (int64_t p = pixels.begin; p < pixels.end; p++) {
      std::memcpy(y + p * g.columns(), x + p * g.input_columns, g.input_columns * sizeof(T));
    }
  }

  // The 1x1 convolution of some pixels, of the part-th of `parts` stretches of its columns.
  void conv1(int64_t layer, Range pixels, int part, int parts) const {
    const LayerLayout<T> at(g, layer);
    const int64_t columns = g.input_columns + layer * g.growth, ld = g.columns();
    const int64_t rows = pixels.end - pixels.begin, panels = (at.width + kPanel<T> - 1) / kPanel<T>;
    const Range mine = share(panels, part, parts);
    const int64_t first = mine.begin * kPanel<T>;
    const int64_t width = smaller(mine.end * kPanel<T>, at.width) - first;
    const T* weights = static_cast<T*>(arguments.weights) + at.weights + first * at.columns;
    const T* scale = static_cast<T*>(arguments.norms) + at.norms;
    const int64_t lda = kDepthAtOnce<T> + 64 / sizeof(T);  // no power of two: one set of the cache
    T* a = scratch<T>(0, kRowsAtOnce * lda);
    T* out = h + pixels.begin * at.width + first;
    for (int64_t k = 0; k < at.columns; k += kDepthAtOnce<T>) {
      const int64_t depth = smaller<int64_t>(kDepthAtOnce<T>, at.columns - k);
      normalise_some<T>(y + pixels.begin * ld + k, ld, rows, columns - k, depth, scale + k,
                        scale + at.columns + k, a, lda);
      const T* shift = k + depth == at.columns ? scale + 2 * at.columns + first : nullptr;
      for (int64_t n = 0; n < width; n += kPanel<T>) {
        const int64_t some = smaller<int64_t>(kPanel<T>, width - n);
        const T* panel = weights + n * at.columns + k * some;
        const bool last = n + some == width;
        const T* next = !last ? panel + some * at.columns : weights + (k + depth) * kPanel<T>;
        product<T>(rows, a, lda, depth, panel, some, out + n, at.width, k > 0,
                   shift ? shift + n : nullptr, next);
      }
    }
  }

  // The 3x3 convolution of some patches, into the layer's new channels of y.
  void conv2(int64_t layer, Range patches) const {
    const LayerLayout<T> at(g, layer);
    const T* weights = static_cast<T*>(arguments.weights) + at.weights + at.columns * at.width;
    convolve_patches<T>(maps, patches.begin, patches.end, h, at.width, weights, g.growth,
                        y + g.input_columns + layer * g.growth, g.columns());
  }

  // All of it by one thread: what the 1x1 convolution gives is used while it is in the cache.
  void alone() const {
    copy_input({0, maps.pixels()});
    for (int64_t l = 0; l < g.layers; l++) {
      int64_t rows = 0;
      for (int64_t i = 0; i < patch_blocks(); i++) {
        const Range patches = share(maps.patches(), i, patch_blocks());
        while (rows < row_blocks() && share(maps.pixels(), rows, row_blocks()).begin <
                                          pixels_read(maps, patches.end - 1)) {
          conv1(l, share(maps.pixels(), rows, row_blocks()), 0, 1);
          rows++;
        }
        conv2(l, patches);
      }
    }
  }

  static int64_t phases(int64_t layers) { return 1 + 2 * layers; }

  // Likewise by a team of threads, each of which calls this; the phases are number `first` on.
  void together(Phases& team, int64_t first, int threads) const {
    // Few rows: their columns are shared out too, so that no thread is left without work.
    const int parts = row_blocks() < 2 * threads ? 2 : 1;
    team.run(first++, row_blocks(), [&](int64_t i) {
      copy_input(share(maps.pixels(), i, row_blocks()));
    });
    for (int64_t l = 0; l < g.layers; l++) {
      team.run(first++, row_blocks() * parts, [&](int64_t i) {
        conv1(l, share(maps.pixels(), i / parts, row_blocks()), i % parts, parts);
      });
      team.run(first++, patch_blocks(), [&](int64_t i) {
        conv2(l, share(maps.patches(), i, patch_blocks()));
      });
    }
  }
};

// Images that go through the block together: with small maps several, so that a product has rows
// enough for the weights it reads, and no more than leave every thread its share.
inline int64_t images_at_once(const BlockArguments& g) {
  const int64_t wanted = 196 / (g.height * g.width), fair = g.pictures / g.threads;
  const int64_t images = smaller(wanted, fair);
  return images > 1 ? images : 1;
}

template <class T>
void run_layers(const InferenceArguments& arguments) {
  const BlockArguments& g = arguments.block;
  const int64_t at_once = images_at_once(g), groups = (g.pictures + at_once - 1) / at_once;
  const int64_t numbers = at_once * g.height * g.width * round_up(g.bottleneck, kLanes<T>);
  // Each group by a thread of its own where that keeps all threads busy.
  const bool alone = groups % g.threads == 0 || groups > 4 * g.threads;
  const int64_t phases = alone ? 1 : groups * Group<T>::phases(g.layers);
  Phases team(phases);
  T* shared = alone ? nullptr : scratch<T>(6, numbers);
#pragma omp parallel num_threads(g.threads)
  {
    const auto group = [&](int64_t i, T* h) {
      const int64_t first = i * at_once;
      return Group<T>(arguments, first, smaller(at_once, g.pictures - first), h);
    };
    if (alone) {
      T* own = scratch<T>(3, numbers);
      team.run(0, groups, [&](int64_t i) { group(i, own).alone(); });
    } else {
      for (int64_t i = 0; i < groups; i++) {
        group(i, shared).together(team, i * Group<T>::phases(g.layers), omp_get_num_threads());
      }
    }
  }
}

}  // namespace
