// The entropy-coded part of a baseline JPEG (ITU-T T.81, annexes C and F).
//
// The code is read from a copy of the scan without its stuffed zero bytes, so that eight bytes can
// be read at once. The copy ends in kPadding zero bytes: in a damaged image a block may be read
// past its end, by at most 64 codes of 16 + 15 bits; this is checked after each block.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr int kPadding = 512;
constexpr int kLookBits = 10;

// Zigzag position -> position in an 8 x 8 block; a run past the end of a block stays inside it.
constexpr uint8_t kNatural[64 + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

inline int bits_to_value(int bits, int size) {  // figure F.12, EXTEND
  return size && bits < (1 << (size - 1)) ? bits - (1 << size) + 1 : bits;
}

struct BitReader {
  const uint8_t* next = nullptr;
  uint64_t buffer = 0;  // the next bits, from the highest down
  int bits = 0;         // number of valid bits

  explicit BitReader(const uint8_t* begin) : next(begin) {}

  // There are at least 56 bits afterwards.
  void refill() {
    uint64_t word;
    std::memcpy(&word, next, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    buffer |= word >> bits;
    next += (63 - bits) >> 3;
    bits |= 56;
  }
  uint32_t peek(int count) const { return static_cast<uint32_t>(buffer >> (64 - count)); }
  void consume(int count) {
    buffer <<= count;
    bits -= count;
  }
  int64_t bits_used(const uint8_t* begin) const { return (next - begin) * 8 - bits; }
};

// A Huffman table, with the meaning of the next kLookBits bits: often two coefficients with their
// extra bits, or several to skip.
struct HuffmanTable {
  static constexpr int kEndOfBlock = 128;  // an advance that no run of coefficients reaches
  static constexpr int kUnknown = 64;      // a run past the end of any block

  // One or two coefficients. A missing one is stored as 0 where the block is zero anyway.
  struct Coefficients {
    int16_t first, second;
    uint8_t run;         // zeros before the first; kUnknown: no complete code
    uint8_t second_run;  // zeros before the second
    uint8_t advance;     // coefficients in all, plus kEndOfBlock at the end of the block
    uint8_t length;      // bits of codes and extra bits
  };
  struct Skip {
    uint8_t before;   // coefficients before the last symbol's; kUnknown: no complete code
    uint8_t advance;  // in all, plus kEndOfBlock at the end of the block
    uint8_t length;
  };

  bool defined = false;
  bool for_ac;
  uint8_t counts[16] = {};
  uint8_t symbols[256] = {};
  int32_t first_code[17] = {};   // of each length
  int32_t first_index[17] = {};  // number of codes before it
  uint16_t short_symbol[1 << kLookBits];  // symbol << 8 | length; 0: longer, or invalid
  Coefficients coefficients[1 << kLookBits];
  Skip skip[1 << kLookBits];

  explicit HuffmanTable(bool ac) : for_ac(ac) {}

  // False if it is not a prefix code, or has a DC difference of more than 15 bits. Images of one
  // source have equal tables; defining an equal table again costs only a comparison.
  bool define(const uint8_t* new_counts, const uint8_t* new_symbols, int num_symbols) {
    if (defined && !std::memcmp(counts, new_counts, 16) &&
        !std::memcmp(symbols, new_symbols, num_symbols))
      return true;
    defined = false;
    std::memcpy(counts, new_counts, 16);
    std::memset(symbols, 0, 256);
    std::memcpy(symbols, new_symbols, num_symbols);
    std::memset(short_symbol, 0, sizeof short_symbol);
    int32_t code = 0, index = 0;
    for (int length = 1; length <= 16; length++) {
      first_code[length] = code;
      first_index[length] = index;
      for (int i = 0; i < counts[length - 1]; i++, code++, index++) {
        if (code >= (1 << length) || (!for_ac && symbols[index] > 15)) return false;
        if (length > kLookBits) continue;
        const int shift = kLookBits - length;
        for (int rest = 0; rest < (1 << shift); rest++)
          short_symbol[code << shift | rest] = static_cast<uint16_t>(symbols[index] << 8 | length);
      }
      code <<= 1;
    }
    for (int look = 0; for_ac && look < (1 << kLookBits); look++) look_up(look);
    return defined = true;
  }

  // The symbol of the next code, or -1. The reader must have at least 16 bits.
  int symbol(BitReader& in) const {
    const int found = short_symbol[in.peek(kLookBits)];
    if (found) {
      in.consume(found & 255);
      return found >> 8;
    }
    for (int length = kLookBits + 1; length <= 16; length++) {
      const int32_t offset = static_cast<int32_t>(in.peek(length)) - first_code[length];
      if (offset >= 0 && offset < counts[length - 1]) {
        in.consume(length);
        return symbols[first_index[length] + offset];
      }
    }
    return -1;
  }

 private:
  struct Symbol {
    int run, size, length;
    bool is_end() const { return size == 0 && run == 0; }
    int advance() const { return is_end() ? kEndOfBlock : run + 1; }
  };

  // The code at bit `from` of `look`; false if it is incomplete or not allowed.
  bool symbol_at(int look, int from, Symbol* s) const {
    const int found = short_symbol[look << from & ((1 << kLookBits) - 1)];
    *s = {found >> 12, found >> 8 & 15, found & 255};
    return found && from + s->length <= kLookBits && (s->size || s->run == 0 || s->run == 15);
  }

  static int value_at(int look, int from, int size) {
    return bits_to_value(look >> (kLookBits - from - size) & ((1 << size) - 1), size);
  }

  void look_up(int look) {
    Coefficients& c = coefficients[look] = {0, 0, kUnknown, 0, 0, 0};
    Skip& s = skip[look] = {kUnknown, 0, 0};
    Symbol one, two;
    if (!symbol_at(look, 0, &one)) return;
    int length = one.length + one.size, advance = one.advance(), before = 0;
    s = {0, uint8_t(advance), uint8_t(length)};
    if (length <= kLookBits) {
      c = {int16_t(value_at(look, one.length, one.size)), 0, uint8_t(one.run), 0,
           uint8_t(advance), uint8_t(length)};
      if (!one.is_end() && symbol_at(look, length, &two) &&
          length + two.length + two.size <= kLookBits) {
        c.second = int16_t(value_at(look, length + two.length, two.size));
        c.second_run = uint8_t(two.run);
        c.advance = uint8_t(advance + two.advance());
        c.length = uint8_t(length + two.length + two.size);
      }
    }
    while (advance < kUnknown && length < kLookBits && symbol_at(look, length, &two)) {
      before = advance;
      advance += two.advance();
      length += two.length + two.size;
      s = {uint8_t(before), uint8_t(advance), uint8_t(length)};
    }
  }
};

// The difference of a DC coefficient to the previous one. False: no valid code.
inline bool read_dc(BitReader& in, const HuffmanTable& table, int* difference) {
  in.refill();
  const int size = table.symbol(in);
  if (size < 0) return false;
  *difference = size ? bits_to_value(static_cast<int>(in.peek(size)), size) : 0;
  in.consume(size);
  return true;
}

// Reads the 63 AC coefficients into `block`, which is zero. False: the code is damaged.
inline bool read_ac(BitReader& in, const HuffmanTable& table, int16_t* block) {
  int k = 1;
  while (k < 64) {
    if (in.bits < 32) in.refill();
    const HuffmanTable::Coefficients& c = table.coefficients[in.peek(kLookBits)];
    const int at = k + c.run;
    // The first of two must not end the block, since the second would belong to the next block.
    if (at < 63) {
      in.consume(c.length);
      block[kNatural[at]] = c.first;
      block[kNatural[at + 1 + c.second_run]] = c.second;
      k += c.advance;
      continue;
    }
    const int symbol = table.symbol(in);
    const int run = symbol >> 4, size = symbol & 15;
    if (symbol == 0) return true;
    if (symbol < 0 || (size == 0 && run != 15)) return false;
    k += run;
    if (size) block[kNatural[k]] = int16_t(bits_to_value(static_cast<int>(in.peek(size)), size));
    in.consume(size);
    k++;
  }
  return k == 64 || k >= HuffmanTable::kEndOfBlock;
}

// Skips the 63 AC coefficients.
inline bool skip_ac(BitReader& in, const HuffmanTable& table) {
  int k = 1;
  while (k < 64) {
    if (in.bits < 32) in.refill();
    const HuffmanTable::Skip& s = table.skip[in.peek(kLookBits)];
    if (k + s.before < 64) {
      in.consume(s.length);
      k += s.advance;
      continue;
    }
    const int symbol = table.symbol(in);
    const int run = symbol >> 4, size = symbol & 15;
    if (symbol == 0) return true;
    if (symbol < 0 || (size == 0 && run != 15)) return false;
    in.consume(size);
    k += run + 1;
  }
  return k == 64 || k >= HuffmanTable::kEndOfBlock;
}

}  // namespace
