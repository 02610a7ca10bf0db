// A dense block with fixed statistics and without gradients: norm2 is folded into the 1x1
// convolution, and all layers are computed for one image while it is in the cache.

#pragma once

#include "inference_layers.h"
#include "stem.h"

namespace {

// bf16 has special instructions for blocks of 32 x 32 (AMX, ARM); the code below is for these.
template <class T>
constexpr bool kPacksBlocks = !std::is_same_v<T, Real<T>> && kTogether<T> == 1;

// Start of a layer's part of `weights` and `norms`.
struct Packed {
  int64_t weights, norms;
};

inline Packed packed_before(const BlockArguments& g, int64_t layer) {
  const int64_t width = round_up(g.bottleneck, kBlock);
  Packed at{0, 0};
  for (int64_t l = 0; l < layer; l++) {
    const int64_t columns = round_up(g.input_columns + l * g.growth, kBlock);
    at.weights += columns * width + 9 * width * round_up(g.growth, kBlock);
    at.norms += 2 * columns + width;
  }
  return at;
}

// A hash of a few numbers of every tensor that inference_pack reads. torch counts versions of a
// tensor for its own operations, but not for writes through `.data`.
template <class T>
void inference_fingerprint(const InferenceArguments& arguments) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  const auto mix = [&](R value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(value));
    hash = (hash ^ bits) * 1099511628211u;
  };
  for (int64_t l = 0; l < g.layers; l++) {
    const Layer<T> layer(g, l);
    const LayerArguments& a = layer.args;
    const auto ends = [&](const void* data, int64_t n) {
      const R* numbers = static_cast<const R*>(data);
      mix(numbers[0]), mix(numbers[n / 2]), mix(numbers[n - 1]);
    };
    for (void* data : {a.gamma1, a.beta1, a.mean1, a.variance1}) ends(data, layer.columns);
    for (void* data : {a.gamma2, a.beta2, a.mean2, a.variance2}) ends(data, g.bottleneck);
    const Weight<R> weight1 = layer.weight(a.weight1, a.strides1);
    const Weight<R> weight2 = layer.weight(a.weight2, a.strides2);
    for (int64_t i = 0; i < 3; i++) {
      const int64_t inner = (g.bottleneck - 1) * i / 2;
      mix(weight1(inner, (layer.columns - 1) * i / 2));
      mix(weight2((g.growth - 1) * i / 2, inner, i, i));
    }
  }
  InferenceArguments& out = const_cast<InferenceArguments&>(arguments);
  out.fingerprint = hash;
  if constexpr (kPacksBlocks<T>) {
    const Packed end = packed_before(g, g.layers);
    out.weight_numbers = end.weights, out.norm_numbers = end.norms;
  } else {
    const LayerLayout<T> end(g, g.layers);
    out.weight_numbers = end.weights, out.norm_numbers = end.norms;
  }
}

template <class T>
void pack_blocks(const InferenceArguments& arguments) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  const int64_t width = g.bottleneck, padded = round_up(width, kBlock);
  for (int64_t l = 0; l < g.layers; l++) {
    const Layer<T> layer(g, l);
    const Packed at = packed_before(g, l);
    const Affine<R> norm1 = layer.norm1(), norm2 = layer.norm2();
    T* panel = static_cast<T*>(arguments.weights) + at.weights;
    const Weight<R> weight1 = layer.weight(layer.args.weight1, layer.args.strides1);
    pack_panel<T>(panel, layer.columns, width, g.threads, [&](int64_t i, int64_t o) {
      WeightBlock<R> block = weight1.forward(i, o, layer.columns, width);
      block.scale = norm2.scale.data() + o;
      return block;
    });
    const Weight<R> weight2 = layer.weight(layer.args.weight2, layer.args.strides2);
    pack_panel<T>(panel + round_up(layer.columns, kBlock) * padded, 9 * padded, g.growth, g.threads,
                  [&](int64_t k, int64_t o) {
                    const int64_t tap = k / padded;
                    return weight2.forward(k % padded, o, width, g.growth, tap / 3, tap % 3);
                  });
    R* norms = static_cast<R*>(arguments.norms) + at.norms;
    std::memcpy(norms, norm1.scale.data(), norm1.scale.size() * sizeof(R));
    std::memcpy(norms + norm1.scale.size(), norm1.shift.data(), norm1.scale.size() * sizeof(R));
    std::memcpy(norms + 2 * norm1.scale.size(), norm2.shift.data(), padded * sizeof(R));
  }
}

// h = relu(W1 relu(norm1(y)) + shift) of up to 32 pixels, in the frame of the 3x3 convolution.
template <class T>
inline void conv1_into_frame(const Band& frame, const T* y, int64_t ld, int64_t pixel, int rows,
                             int64_t columns, const Affine<Real<T>>& norm1, const T* panel,
                             const Real<T>* shift, int64_t padded, T* h, Claim& claim) {
  using R = Real<T>;
  const int64_t depth = round_up(columns, kBlock), lda = skewed<T>(depth);
  T* a = scratch<T>(0, kBlock * lda);
  R* c = scratch<R>(1, padded / kBlock * kStep);
  normalise_rows<T>(y + pixel * ld, ld, rows, columns, norm1, a, lda);
  multiply_panel<T>(a, lda, nullptr, depth / kBlock, panel, padded, columns, c);
  if (!claim()) return;
  int64_t row = pixel / frame.width, column = pixel % frame.width;
  for (int r = 0; r < rows; r++, column++) {
    if (column == frame.width) column = 0, row++;
    T* out = h + (frame.origin() + row * frame.pitch() + column) * padded;
    for (int64_t j = 0; j < padded; j += kLanes<T>) {
      const R* sums = c + j / kBlock * kStep + r * kBlock + j % kBlock;
      store<T>(out + j, relu(load<R>(sums, kLanes<T>) + load<R>(shift + j, kLanes<T>)), kLanes<T>);
    }
  }
}

inline int64_t image_phases(const BlockArguments& g) { return 1 + 2 * g.layers; }

// Computes the block for one image.
template <class T>
void infer_image(const InferenceArguments& arguments, int64_t image, T* h,
                 const std::vector<Affine<Real<T>>>& norms, Worker& worker) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  const int64_t pixels = g.height * g.width, ld = g.columns();
  const int64_t padded = round_up(g.bottleneck, kBlock);
  const Band frame{g.height, g.width, 0, g.height};
  const T* x = static_cast<T*>(g.x) + image * pixels * g.input_columns;
  T* y = static_cast<T*>(g.y) + image * pixels * ld;
  worker.run(g.height, [&](int64_t row, Claim& claim) {
    if (!claim()) return;
    for (int64_t p = row * g.width; p < (row + 1) * g.width; p++) {
      std::memcpy(y + p * ld, x + p * g.input_columns, g.input_columns * sizeof(T));
    }
  });
  for (int64_t l = 0; l < g.layers; l++) {
    const int64_t columns = g.input_columns + l * g.growth;
    const Packed at = packed_before(g, l);
    const T* panel = static_cast<T*>(arguments.weights) + at.weights;
    const R* shift = static_cast<R*>(arguments.norms) + at.norms + 2 * norms[l].scale.size();
    worker.run((pixels + kBlock - 1) / kBlock, [&](int64_t block, Claim& claim) {
      const int64_t pixel = block * kBlock;
      conv1_into_frame<T>(frame, y, ld, pixel, smaller<int64_t>(kBlock, pixels - pixel), columns,
                          norms[l], panel, shift, padded, h, claim);
    });
    const int64_t pieces = worker.team ? frame.steps() : 1;
    worker.run(pieces, [&](int64_t i, Claim& claim) {
      conv2_band<T>(frame, share(frame.steps(), i, pieces), h, padded,
                    panel + round_up(columns, kBlock) * padded, g.growth, y + columns, ld, claim);
    });
  }
}

template <class T>
void run_blocks(const InferenceArguments& arguments) {
  using R = Real<T>;
  const BlockArguments& g = arguments.block;
  const int64_t padded = round_up(g.bottleneck, kBlock);
  const Band frame{g.height, g.width, 0, g.height};
  std::vector<Affine<R>> norms;
  for (int64_t l = 0; l < g.layers; l++) {
    const R* numbers = static_cast<R*>(arguments.norms) + packed_before(g, l).norms;
    const int64_t columns = round_up(g.input_columns + l * g.growth, kBlock);
    norms.emplace_back(numbers, numbers + columns, columns);
  }
  // One image per thread, or each image by all threads.
  const bool together = g.images < g.threads;
  T* shared = together ? scratch<T>(6, frame.framed() * padded) : nullptr;
  if (together) std::memset(shared, 0, frame.framed() * padded * sizeof(T));
  Phases team(together ? g.images * image_phases(g) : 0, g.threads);
#pragma omp parallel num_threads(g.threads)
  {
    Tiles tiles;
    // There may be fewer threads than requested.
    Worker worker{together ? &team : nullptr, omp_get_num_threads(), omp_get_thread_num()};
    try {
      T* h = together ? shared : scratch<T>(3, frame.framed() * padded);
      if (!together) std::memset(h, 0, frame.framed() * padded * sizeof(T));
      const Range all{0, g.images};
      const Range mine = together ? all : share(g.images, worker.member, worker.threads);
      for (int64_t i = mine.begin; i < mine.end; i++) {
        infer_image<T>(arguments, i, h, norms, worker);
      }
    } catch (...) {
      team.failure.note();
    }
  }
  team.failure.check();
}

template <class T>
void inference_pack(const InferenceArguments& arguments) {
  if constexpr (kPacksBlocks<T>) {
    pack_blocks<T>(arguments);
  } else {
    pack_layers<T>(arguments);
  }
}

template <class T>
void inference_run(const InferenceArguments& arguments) {
  if constexpr (kPacksBlocks<T>) {
    run_blocks<T>(arguments);
  } else {
    run_layers<T>(arguments);
  }
}

}  // namespace
