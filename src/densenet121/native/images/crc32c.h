// CRC-32C (RFC 3720), the sum of TFRecord files. The processor's own instruction where the build has
// it, else eight bytes at a time by tables (Intel's slicing by 8).

#ifndef DENSENET121_CRC32C_H
#define DENSENET121_CRC32C_H

#include <array>
#include <cstdint>
#include <cstring>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#endif

namespace {

#if defined(__SSE4_2__)

inline uint32_t crc32c(const uint8_t* data, int64_t size) {
  uint64_t sum = 0xFFFFFFFFu;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t eight;
    std::memcpy(&eight, data, 8);
    sum = _mm_crc32_u64(sum, eight);
  }
  uint32_t rest = uint32_t(sum);
  for (; size > 0; --size) rest = _mm_crc32_u8(rest, *data++);
  return ~rest;
}

#else

using Crc32cTables = std::array<std::array<uint32_t, 256>, 8>;

// tables[n][b]: what the byte b becomes after n bytes of zeros.
constexpr Crc32cTables crc32c_tables() {
  Crc32cTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? 0x82F63B78u : 0u);
    tables[0][byte] = sum;
  }
  for (int zeros = 1; zeros < 8; ++zeros)
    for (int byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[zeros - 1][byte];
      tables[zeros][byte] = tables[0][before & 255] ^ before >> 8;
    }
  return tables;
}

inline uint32_t crc32c(const uint8_t* data, int64_t size) {
  static constexpr Crc32cTables t = crc32c_tables();
  uint32_t sum = 0xFFFFFFFFu;
  for (; size >= 8; size -= 8, data += 8) {
    sum ^= uint32_t(data[0]) | uint32_t(data[1]) << 8 | uint32_t(data[2]) << 16 |
           uint32_t(data[3]) << 24;
    sum = t[7][sum & 255] ^ t[6][sum >> 8 & 255] ^ t[5][sum >> 16 & 255] ^ t[4][sum >> 24] ^
          t[3][data[4]] ^ t[2][data[5]] ^ t[1][data[6]] ^ t[0][data[7]];
  }
  for (; size > 0; --size) sum = t[0][(sum ^ *data++) & 255] ^ sum >> 8;
  return ~sum;
}

#endif

}  // namespace

#endif
