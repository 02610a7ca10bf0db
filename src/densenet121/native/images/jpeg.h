// Decodes a rectangle of a baseline JPEG (ITU-T T.81).
//
// Supports what nearly all files use: 8 bits, Huffman codes, one scan, grey or YCbCr in 4:4:4,
// 4:2:2 or 4:2:0. The whole code is read, so that damage anywhere is detected, but only the blocks
// that the rectangle needs are transformed. All other and all damaged files are left to libjpeg
// (kUnsupported), which decides about damaged files: nothing is repaired here.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "huffman.h"
#include "idct.h"

namespace {

struct Rectangle {
  int64_t top, left, height, width;
};

// Memory that is reused and only grows, one set per thread.
struct JpegMemory {
  std::vector<uint8_t> code;
  std::vector<int16_t> coefficients[3];
  std::vector<uint8_t> samples[3];
  HuffmanTable dc[4] = {HuffmanTable(false), HuffmanTable(false), HuffmanTable(false),
                        HuffmanTable(false)};
  HuffmanTable ac[4] = {HuffmanTable(true), HuffmanTable(true), HuffmanTable(true),
                        HuffmanTable(true)};
};

struct Component {
  int id, h, v, quantisation, dc, ac;
  int64_t width, height;  // in samples
  // The decoded part, in samples: the needed rectangle, extended to multiples of 8.
  Rectangle kept;
  const uint8_t* samples;

  // Row y; x counts from the left of the image.
  const uint8_t* row(int64_t y) const {
    return samples + (y - kept.top) * kept.width - kept.left;
  }
};

class Jpeg {
 public:
  int64_t width = 0, height = 0;
  int num_components = 0;
  Component component[3];
  int h_max = 1, v_max = 1;

  explicit Jpeg(JpegMemory& memory) : memory_(memory) {}

  // Reads everything before the scan; false if this decoder does not support it.
  bool read_header(const uint8_t* data, int64_t size) {
    at_ = data, end_ = data + size;
    if (size < 4 || at_[0] != 0xff || at_[1] != 0xd8) return false;
    at_ += 2;
    for (;;) {
      if (end_ - at_ < 4 || at_[0] != 0xff) return false;
      const int marker = at_[1];
      if (marker == 0xff) {  // a fill byte
        at_++;
        continue;
      }
      const int64_t length = at_[2] << 8 | at_[3];
      const uint8_t* p = at_ + 4;
      const int64_t n = length - 2;
      if (n < 0 || end_ - p < n) return false;
      at_ = p + n;
      bool good = true;
      if (marker == 0xc0 || marker == 0xc1)
        good = read_frame(p, n);
      else if (marker == 0xc4)
        good = read_huffman_tables(p, n);
      else if (marker == 0xdb)
        good = read_quantisation(p, n);
      else if (marker == 0xdd)
        good = n == 2, restart_interval_ = n == 2 ? p[0] << 8 | p[1] : 0;
      else if (marker == 0xe0)
        good = read_jfif(p, n);
      else if (marker == 0xee)
        good = read_adobe(p, n);
      else if (marker == 0xda)
        return read_scan_header(p, n);
      else
        good = (marker >= 0xe1 && marker <= 0xef) || marker == 0xfe;
      if (!good) return false;
    }
  }

  // Decodes the blocks that the pixels of `wanted` need; false if the code is damaged.
  bool decode(const Rectangle& wanted) {
    if (!copy_code()) return false;
    for (int c = 0; c < num_components; c++) keep(component[c], wanted);
    const int64_t across = mcus(width, 8 * h_max), down = mcus(height, 8 * v_max);
    const int64_t interval = restart_interval_ ? restart_interval_ : across * down;
    BitReader in(nullptr);
    int dc[3] = {};
    int64_t segment = -1, left = 0;
    for (int64_t y = 0; y < down; y++) {
      for (int c = 0; c < num_components; c++) clear_row(c, y);
      for (int64_t x = 0; x < across; x++) {
        if (left == 0) {
          if (segment >= 0 && !used_up(in, segment)) return false;
          if (++segment >= int64_t(segments_.size()) - 1) return false;
          in = BitReader(memory_.code.data() + segments_[segment]);
          left = interval;
          dc[0] = dc[1] = dc[2] = 0;
        }
        left--;
        for (int c = 0; c < num_components; c++)
          if (!read_blocks(in, c, x, y, &dc[c])) return false;
      }
      for (int c = 0; c < num_components; c++) transform_row(c, y);
    }
    return used_up(in, segment) && segment + 2 == int64_t(segments_.size());
  }

 private:
  JpegMemory& memory_;
  const uint8_t *at_ = nullptr, *end_ = nullptr;
  int restart_interval_ = 0;
  bool has_frame_ = false, has_jfif_ = false, has_adobe_ = false;
  bool has_quantisation_[4] = {}, has_dc_[4] = {}, has_ac_[4] = {};
  int16_t quantisation_[4][64];
  std::vector<int64_t> segments_;  // start of each in the copied code, and the end of the last

  static int64_t mcus(int64_t pixels, int64_t size) { return (pixels + size - 1) / size; }

  bool read_frame(const uint8_t* p, int64_t n) {
    if (has_frame_ || n < 6 || p[0] != 8) return false;
    has_frame_ = true;
    height = p[1] << 8 | p[2], width = p[3] << 8 | p[4];
    num_components = p[5];
    if ((num_components != 1 && num_components != 3) || n != 6 + 3 * num_components) return false;
    if (height == 0 || width == 0) return false;
    for (int c = 0; c < num_components; c++) {
      const uint8_t* q = p + 6 + 3 * c;
      component[c] = {q[0], q[1] >> 4, q[1] & 15, q[2], 0, 0, 0, 0, {}, nullptr};
      if (q[2] > 3) return false;
    }
    Component& first = component[0];
    h_max = first.h, v_max = first.v;
    if (h_max < 1 || h_max > 2 || v_max < 1 || v_max > h_max) return false;
    if (num_components == 1 && (h_max != 1 || v_max != 1)) return false;
    for (int c = 1; c < num_components; c++)
      if (component[c].h != 1 || component[c].v != 1) return false;
    for (int c = 0; c < num_components; c++) {
      component[c].width = mcus(width * component[c].h, h_max);
      component[c].height = mcus(height * component[c].v, v_max);
    }
    // libjpeg does not smooth chroma of one or two columns.
    return h_max == 1 || component[1].width > 2;
  }

  bool read_quantisation(const uint8_t* p, int64_t n) {
    for (; n >= 65; p += 65, n -= 65) {
      if (p[0] > 3) return false;  // includes 16-bit tables
      for (int k = 0; k < 64; k++) quantisation_[p[0]][kNatural[k]] = p[1 + k];
      has_quantisation_[p[0]] = true;
    }
    return n == 0;
  }

  bool read_huffman_tables(const uint8_t* p, int64_t n) {
    while (n >= 17) {
      const int which = p[0] & 15, is_ac = p[0] >> 4;
      int num_symbols = 0;
      for (int i = 0; i < 16; i++) num_symbols += p[1 + i];
      if (which > 3 || is_ac > 1 || num_symbols > 256 || n < 17 + num_symbols) return false;
      HuffmanTable& table = (is_ac ? memory_.ac : memory_.dc)[which];
      if (!table.define(p + 1, p + 17, num_symbols)) return false;
      (is_ac ? has_ac_ : has_dc_)[which] = true;
      p += 17 + num_symbols, n -= 17 + num_symbols;
    }
    return n == 0;
  }

  bool read_jfif(const uint8_t* p, int64_t n) {
    if (n < 14 || std::memcmp(p, "JFIF", 5) != 0) return true;
    has_jfif_ = true;
    return p[5] == 1;  // libjpeg warns about other major versions
  }

  bool read_adobe(const uint8_t* p, int64_t n) {
    if (n < 12 || std::memcmp(p, "Adobe", 5) != 0) return true;
    has_adobe_ = true;
    return p[11] == 1 || num_components == 1;  // YCbCr
  }

  bool read_scan_header(const uint8_t* p, int64_t n) {
    if (!has_frame_ || n != 4 + 2 * num_components || p[0] != num_components) return false;
    for (int c = 0; c < num_components; c++) {
      Component& own = component[c];
      own.dc = p[2 + 2 * c] >> 4, own.ac = p[2 + 2 * c] & 15;
      if (p[1 + 2 * c] != own.id || own.dc > 3 || own.ac > 3) return false;
      if (!has_dc_[own.dc] || !has_ac_[own.ac] || !has_quantisation_[own.quantisation]) return false;
    }
    const uint8_t* rest = p + 1 + 2 * num_components;
    if (rest[0] != 0 || rest[1] != 63 || rest[2] != 0) return false;
    // Without either marker libjpeg guesses from the component ids.
    return num_components == 1 || has_jfif_ || has_adobe_ ||
           (component[0].id == 1 && component[1].id == 2 && component[2].id == 3);
  }

  // Copies the code up to the end marker, without stuffed zeros and restart markers. False: there
  // is no end marker, or another marker before it.
  bool copy_code() {
    std::vector<uint8_t>& code = memory_.code;
    if (int64_t(code.size()) < end_ - at_ + kPadding) code.resize(end_ - at_ + kPadding);
    segments_.assign(1, 0);
    uint8_t* out = code.data();
    for (int restarts = 0;;) {
      const auto* mark = static_cast<const uint8_t*>(std::memchr(at_, 0xff, end_ - at_));
      if (!mark) return false;
      std::memcpy(out, at_, mark - at_);
      out += mark - at_;
      at_ = mark + 1;
      while (at_ < end_ && *at_ == 0xff) at_++;
      if (at_ == end_) return false;
      const int second = *at_++;
      if (second == 0) {
        if (at_[-2] != 0xff || at_ - 2 != mark) return false;  // fill bytes before a stuffed zero
        *out++ = 0xff;
      } else if (second == 0xd0 + restarts && restart_interval_) {
        restarts = (restarts + 1) & 7;
        segments_.push_back(out - code.data());
      } else if (second == 0xd9) {
        break;
      } else {
        return false;
      }
    }
    segments_.push_back(out - code.data());
    std::memset(out, 0, kPadding);
    return true;
  }

  // Whether exactly the whole code of a segment has been read.
  bool used_up(const BitReader& in, int64_t segment) const {
    const uint8_t* begin = memory_.code.data() + segments_[segment];
    return (in.bits_used(begin) + 7) / 8 == segments_[segment + 1] - segments_[segment];
  }

  // Smoothing of chroma needs one more sample on each side.
  void keep(Component& c, const Rectangle& wanted) {
    const int64_t by_x = h_max / c.h, by_y = v_max / c.v;
    const int64_t more_x = by_x > 1, more_y = by_y > 1;
    const int64_t top = std::max<int64_t>(0, wanted.top / by_y - more_y) & ~int64_t(7);
    const int64_t left = std::max<int64_t>(0, wanted.left / by_x - more_x) & ~int64_t(7);
    const int64_t bottom =
        std::min(c.height, (wanted.top + wanted.height - 1) / by_y + 1 + more_y);
    const int64_t right = std::min(c.width, (wanted.left + wanted.width - 1) / by_x + 1 + more_x);
    c.kept = {top, left, (bottom - top + 7) & ~int64_t(7), (right - left + 7) & ~int64_t(7)};
    const int which = static_cast<int>(&c - component);
    std::vector<uint8_t>& samples = memory_.samples[which];
    const size_t count = c.kept.height * c.kept.width;
    if (samples.size() < count) samples.resize(count);
    c.samples = samples.data();
    std::vector<int16_t>& coefficients = memory_.coefficients[which];
    if (coefficients.size() < size_t(c.kept.width * 8 * c.v)) {
      coefficients.resize(c.kept.width * 8 * c.v);
    }
  }

  static bool has(const Component& c, int64_t block_y) {
    return block_y * 8 >= c.kept.top && block_y * 8 < c.kept.top + c.kept.height;
  }

  void clear_row(int which, int64_t y) {
    const Component& c = component[which];
    if (has(c, y * c.v) || has(c, y * c.v + c.v - 1))
      std::memset(memory_.coefficients[which].data(), 0, c.kept.width * 8 * c.v * sizeof(int16_t));
  }

  bool read_blocks(BitReader& in, int which, int64_t x, int64_t y, int* dc) {
    const Component& c = component[which];
    const HuffmanTable &dc_table = memory_.dc[c.dc], &ac_table = memory_.ac[c.ac];
    const uint8_t* end = memory_.code.data() + memory_.code.size() - kPadding / 2;
    for (int v = 0; v < c.v; v++) {
      for (int h = 0; h < c.h; h++) {
        int difference;
        if (!read_dc(in, dc_table, &difference)) return false;
        *dc += difference;
        // In an undamaged image it is at most 1024 plus rounding. Beyond 8192 the vector versions
        // of libjpeg wrap in one place, which is not reproduced here.
        if (std::abs(*dc * int64_t(quantisation_[c.quantisation][0])) > 8191) return false;
        const int64_t column = (x * c.h + h) * 8 - c.kept.left;
        if (has(c, y * c.v + v) && column >= 0 && column < c.kept.width) {
          int16_t* block = memory_.coefficients[which].data() + (v * c.kept.width + column) * 8;
          block[0] = static_cast<int16_t>(*dc);
          if (!read_ac(in, ac_table, block)) return false;
        } else if (!skip_ac(in, ac_table)) {
          return false;
        }
        if (in.next > end) return false;
      }
    }
    return true;
  }

  void transform_row(int which, int64_t y) {
    const Component& c = component[which];
    for (int v = 0; v < c.v; v++) {
      if (!has(c, y * c.v + v)) continue;
      const int16_t* blocks = memory_.coefficients[which].data() + v * c.kept.width * 8;
      uint8_t* out =
          memory_.samples[which].data() + ((y * c.v + v) * 8 - c.kept.top) * c.kept.width;
      for (int64_t x = 0; x < c.kept.width; x += 16) {
        const int64_t other = x + 8 < c.kept.width ? x + 8 : x;  // a single last one is done twice
        inverse_cosine(blocks + x * 8, blocks + other * 8, quantisation_[c.quantisation], out + x,
                       out + other, c.kept.width);
      }
    }
  }
};

}  // namespace
