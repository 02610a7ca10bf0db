// The image kernel under libFuzzer, with the address and undefined-behaviour sanitizers: `make
// fuzz-coverage` builds and runs it. Both instruction sets are in the program, one included here and
// one compiled with other names, so that every case also compares them.
//
// A case is a JPEG and, in its last 32 bytes, what is asked of it.

#include <cstdio>

#include "images.cpp"

extern "C" {
int other_jpeg_size(const uint8_t* data, int64_t size, int64_t* sides);
int other_image(const ImageArguments* g);
int other_affine(const uint8_t* image, int64_t height, int64_t width, const double* matrix,
                 const uint8_t* fill, uint8_t* out);
void other_sharpen(const uint8_t* image, int64_t height, int64_t width, float factor,
                   uint8_t* out);
uint32_t other_crc32c(const uint8_t* data, int64_t size);
}

namespace {

constexpr int64_t kMostPixels = 100'000, kAsked = 32;
using Bytes = std::vector<uint8_t>;

void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

// What is asked, read byte by byte.
struct Asked {
  const uint8_t* at;

  int64_t below(int64_t n) {  // 0 .. n - 1
    const int64_t value = at[0] << 8 | at[1];
    at += 2;
    return n > 0 ? value % n : 0;
  }
};

// `count` values, at least one, of 0 .. all - 1; or, to be refused, one that is beyond.
void choose_range(Asked& asked, int64_t all, int64_t* first, int64_t* count) {
  *first = asked.below(all);
  *count = 1 + asked.below(all - *first + 1);
}

// Also what is invalid; steps have factors of every size.
ImageArguments choose(Asked& asked, int64_t height, int64_t width) {
  ImageArguments g{};
  choose_range(asked, height, &g.crop[0], &g.crop[2]);
  choose_range(asked, width, &g.crop[1], &g.crop[3]);
  const int64_t sizes = asked.below(4);  // 0: as it is, 1: half, else any
  g.resized[0] = sizes == 0 ? g.crop[2] : sizes == 1 ? g.crop[2] / 2 : 1 + asked.below(300);
  g.resized[1] = sizes == 0 ? g.crop[3] : sizes == 1 ? g.crop[3] / 2 : 1 + asked.below(300);
  choose_range(asked, g.resized[0], &g.window[0], &g.window[2]);
  choose_range(asked, g.resized[1], &g.window[1], &g.window[3]);
  const int64_t odd = asked.below(256);
  g.flip = odd & 1, g.steps = (odd >> 1) % 4;
  for (int64_t i = 0; i < 3; i++) {
    g.step[i] = (odd >> 3) % 4 == 3 && i == 2 ? 3 : (i + odd) % 3;
    g.factor[i] = std::ldexp(static_cast<double>(asked.below(65536)) - 30000, i - 16);
  }
  return g;
}

// The image of `g` from both instruction sets, in memory of just its size.
int image(ImageArguments g, Bytes& out) {
  const bool has_size = g.window[2] > 0 && g.window[3] > 0;
  const int64_t bytes = has_size ? 3 * g.window[2] * g.window[3] : 0;
  out.assign(bytes, 7);
  Bytes other(bytes, 7);
  g.out = out.data();
  const int status = densenet121_image(&g);
  g.out = other.data();
  require(status == other_image(&g), "both instruction sets read the same images");
  require(out == other, "both instruction sets give the same pixels");
  require(status == kDone || out == Bytes(bytes, 7), "a refused image leaves the result alone");
  return status;
}

void check_affine(Asked& asked, const Bytes& pixels, int64_t height, int64_t width) {
  double matrix[6];
  for (int i = 0; i < 6; i++) matrix[i] = (static_cast<double>(asked.below(65536)) - 32768) / 4096;
  matrix[2] *= static_cast<double>(width), matrix[5] *= static_cast<double>(height);
  const uint8_t fill[3] = {1, 2, 3};
  Bytes one(pixels.size()), two(pixels.size());
  require(densenet121_affine(pixels.data(), height, width, matrix, fill, one.data()) == kDone &&
              other_affine(pixels.data(), height, width, matrix, fill, two.data()) == kDone,
          "an affine map is made");
  require(one == two, "both instruction sets resample alike");
  const auto factor = static_cast<float>(matrix[0]);
  densenet121_sharpen(pixels.data(), height, width, factor, one.data());
  other_sharpen(pixels.data(), height, width, factor, two.data());
  require(one == two, "both instruction sets sharpen alike");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t all) {
  if (all < kAsked) return -1;
  const int64_t size = static_cast<int64_t>(all) - kAsked;
  const Bytes jpeg(data, data + size);  // of just its size
  require(densenet121_crc32c(jpeg.data(), size) == other_crc32c(jpeg.data(), size),
          "both instruction sets have the same sum");
  int64_t sides[2] = {}, others[2] = {};
  const int status = densenet121_jpeg_size(jpeg.data(), size, sides);
  require(status == other_jpeg_size(jpeg.data(), size, others) && sides[0] == others[0] &&
              sides[1] == others[1],
          "both instruction sets read the same header");
  if (status != kDone || sides[0] * sides[1] > kMostPixels) return 0;

  const int64_t height = sides[0], width = sides[1];
  ImageArguments whole{};
  whole.data = jpeg.data(), whole.size = size;
  whole.crop[2] = whole.resized[0] = whole.window[2] = height;
  whole.crop[3] = whole.resized[1] = whole.window[3] = width;
  Bytes pixels, part, same;
  const int read = image(whole, pixels);

  Asked asked{data + size};
  ImageArguments g = choose(asked, height, width);
  g.data = jpeg.data(), g.size = size;
  const int got = image(g, part);
  if (read != kDone) {
    require(got != kDone, "damage anywhere in a JPEG is found in every crop");
    return 0;
  }
  g.data = nullptr, g.pixels = pixels.data(), g.row_bytes = 3 * width;
  g.sides[0] = height, g.sides[1] = width;
  require(got == image(g, same) && part == same, "a crop of a JPEG is a crop of its pixels");
  asked.at = data + size;
  check_affine(asked, pixels, height, width);
  return 0;
}
