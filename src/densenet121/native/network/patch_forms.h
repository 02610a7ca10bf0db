// Winograd's transforms for a 3x3 convolution with stride 1, by patches of 2 x 2 or 4 x 4 pixels of its
// output: sections 4.1 and 4.3 of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
// Networks".
//
// With g the weights and d the window of pixels around a patch, the patch is
// y = A' [(G g G') * (B' d B)] A, elementwise in the brackets. The gradient of g is then
// G' [(A dy A') * (B' d B)] G, and that of d is the same convolution of dy with the weights turned by
// half a circle. It sums other numbers than a direct convolution, so its rounding differs: in float by
// a few units in the last place of a patch's largest number.
//
// A form has these transforms for one register of channels; R is a register's numbers as double:
//   weight           G g G'
//   transform        B' d B, of the pixels pixel(r, c)
//   sums             A' m A, of the numbers number(i)
//   gradient         A dy A', of the pixels pixel(r, c)
//   weight_gradient  G' s G, of the numbers number(i)

#pragma once

#include "simd.h"

namespace {

constexpr int kPatchesAtOnce = 24;  // their transforms, with 128 channels in float, need 196 kB

// The registers of a patch's numbers, `stride` apart.
template <class T>
inline auto numbers_at(const T* from, int64_t stride) {
  return [=](int i) __attribute__((always_inline)) { return load<T>(from + i * stride, kLanes<T>); };
}

// F(2x2, 3x3): 16 products for 4 pixels.
template <class T>
struct PatchesOfTwo {
  static constexpr int kPixels = 2, kWindow = 4, kNumbers = 16, kAtOnce = kPatchesAtOnce;
  // In training; in the backward those of 14 x 14 pixels, and not more than the cache holds.
  static constexpr int kInForward = kAtOnce, kInBackward = 50;
  static constexpr int64_t kFrameBytes = 256 << 10;  // of a strip (strip.h)

  template <class R, class Window>
  static void weight(Window g, R* out) {
    R rows[4][3];
    for (int c = 0; c < 3; c++) {
      const R outer = g(0, c) + g(2, c), middle = g(1, c);
      rows[0][c] = g(0, c);
      rows[1][c] = (outer + middle) * 0.5;
      rows[2][c] = (outer - middle) * 0.5;
      rows[3][c] = g(2, c);
    }
    for (int r = 0; r < 4; r++, out += 4) {
      const R outer = rows[r][0] + rows[r][2], middle = rows[r][1];
      out[0] = rows[r][0];
      out[1] = (outer + middle) * 0.5;
      out[2] = (outer - middle) * 0.5;
      out[3] = rows[r][2];
    }
  }

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    Vec<T> rows[4][4];
    for (int c = 0; c < 4; c++) {
      const Vec<T> d[4] = {pixel(0, c), pixel(1, c), pixel(2, c), pixel(3, c)};
      rows[0][c] = d[0] - d[2];
      rows[1][c] = d[1] + d[2];
      rows[2][c] = d[2] - d[1];
      rows[3][c] = d[1] - d[3];
    }
    for (int r = 0; r < 4; r++) {
      const Vec<T>* d = rows[r];
      write(4 * r, d[0] - d[2]);
      write(4 * r + 1, d[1] + d[2]);
      write(4 * r + 2, d[2] - d[1]);
      write(4 * r + 3, d[1] - d[3]);
    }
  }

  template <class Number>
  static void sums(Number number, Vec<T> (&out)[2][2]) {
    Vec<T> rows[2][4];
    for (int c = 0; c < 4; c++) {
      const Vec<T> m[4] = {number(c), number(4 + c), number(8 + c), number(12 + c)};
      rows[0][c] = m[0] + m[1] + m[2];
      rows[1][c] = m[1] - m[2] - m[3];
    }
    for (int r = 0; r < 2; r++) {
      const Vec<T>* m = rows[r];
      out[r][0] = m[0] + m[1] + m[2];
      out[r][1] = m[1] - m[2] - m[3];
    }
  }

  template <class Pixel, class Write>
  static void gradient(Pixel pixel, Write write) {
    Vec<T> rows[4][2];
    for (int c = 0; c < 2; c++) {
      const Vec<T> first = pixel(0, c), second = pixel(1, c);
      rows[0][c] = first;
      rows[1][c] = first + second;
      rows[2][c] = first - second;
      rows[3][c] = -second;
    }
    for (int r = 0; r < 4; r++) {
      write(4 * r, rows[r][0]);
      write(4 * r + 1, rows[r][0] + rows[r][1]);
      write(4 * r + 2, rows[r][0] - rows[r][1]);
      write(4 * r + 3, -rows[r][1]);
    }
  }

  template <class R, class Number, class Write>
  static void weight_gradient(Number number, Write write) {
    R rows[3][4];
    for (int c = 0; c < 4; c++) {
      const R first = number(4 + c), second = number(8 + c), both = (first + second) * 0.5;
      rows[0][c] = number(c) + both;
      rows[1][c] = (first - second) * 0.5;
      rows[2][c] = both + number(12 + c);
    }
    for (int r = 0; r < 3; r++) {
      const R both = (rows[r][1] + rows[r][2]) * 0.5;
      write(r, 0, rows[r][0] + both);
      write(r, 1, (rows[r][1] - rows[r][2]) * 0.5);
      write(r, 2, both + rows[r][3]);
    }
  }
};

// F(4x4, 3x3): 36 products for 16 pixels. A row or column is a polynomial's values at 0, a, -a, b, -b
// and infinity. With a = sqrt(2) and b = 1 / a the largest factor is 2.8, where the whole numbers of
// Lavin and Gray's section 4.3 (a = 1, b = 2) have 8: the sums are half as far from the exact ones.
template <class T>
struct PatchesOfFour {
  static constexpr int kPixels = 4, kWindow = 6, kNumbers = 36, kAtOnce = 12;
  static constexpr int kInForward = 14, kInBackward = 28;  // one and two rows of 56 x 56 pixels
  static constexpr int64_t kFrameBytes = 320 << 10;  // two rows of patches of 56 x 56 pixels
  static constexpr double kA = 1.4142135623730951, kB = 0.7071067811865476;

  template <class R, class Out>
  static void six_of_weights(R g0, R g1, R g2, Out out) {
    const R at_a = (g0 + g2 * 2.0) * (1.0 / 6), odd_a = g1 * (kA / 6);
    const R at_b = (g0 + g2 * 0.5) * (-1 / 1.5), odd_b = g1 * (-kB / 1.5);
    out(0, g0);
    out(1, at_a + odd_a);
    out(2, at_a - odd_a);
    out(3, at_b + odd_b);
    out(4, at_b - odd_b);
    out(5, g2);
  }

  template <class R, class Window>
  static void weight(Window g, R* out) {
    R rows[6][3];
    for (int c = 0; c < 3; c++) {
      six_of_weights<R>(g(0, c), g(1, c), g(2, c), [&](int r, R v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 6; r++) {
      six_of_weights<R>(rows[r][0], rows[r][1], rows[r][2],
                        [&](int c, R v) { out[6 * r + c] = v; });
    }
  }

  // Two of the six values of a row or column, d(0) .. d(5): those at 0 and infinity, at a and -a, or at b
  // and -b.
  template <int kPair, class Number>
  static void two_of_six(Number d, Vec<T>& first, Vec<T>& second) {
    const T a = kA, b = kB, half = 0.5, two = 2, middle = 2.5;
    if constexpr (kPair == 0) {
      first = (d(0) + d(4)) - d(2) * middle;
      second = (d(1) + d(5)) - d(3) * middle;
    } else {
      const T inner = kPair == 1 ? half : two, factor = kPair == 1 ? a : b;
      const Vec<T> even = d(4) - d(2) * inner, odd = d(3) - d(1) * inner;
      first = even + odd * factor;
      second = even - odd * factor;
    }
  }

  // Two rows of the result, which the registers can hold: all six would go through memory.
  template <int kPair, class Pixel, class Write>
  static void two_rows(Pixel pixel, Write write) {
    constexpr int kPlaces[3][2] = {{0, 5}, {1, 2}, {3, 4}};
    Vec<T> rows[2][6];
#pragma GCC unroll 6
    for (int c = 0; c < 6; c++) {
      two_of_six<kPair>([&](int r) __attribute__((always_inline)) { return pixel(r, c); }, rows[0][c],
                        rows[1][c]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const auto number = [&](int c) __attribute__((always_inline)) { return rows[i][c]; };
      const int row = 6 * kPlaces[kPair][i];
      Vec<T> first, second;
      two_of_six<0>(number, first, second);
      write(row, first), write(row + 5, second);
      two_of_six<1>(number, first, second);
      write(row + 1, first), write(row + 2, second);
      two_of_six<2>(number, first, second);
      write(row + 3, first), write(row + 4, second);
    }
  }

  template <class Pixel, class Write>
  static void transform(Pixel pixel, Write write) {
    two_rows<0>(pixel, write);
    two_rows<1>(pixel, write);
    two_rows<2>(pixel, write);
  }

  template <class Out>
  static void four(const Vec<T> (&m)[6], Out out) {
    const T a = kA, b = kB, half = 0.5, two = 2;
    const Vec<T> even_a = m[1] + m[2], odd_a = (m[1] - m[2]) * a;
    const Vec<T> even_b = m[3] + m[4], odd_b = (m[3] - m[4]) * b;
    out(0, m[0] + (even_a + even_b));
    out(1, odd_a + odd_b);
    out(2, even_a * two + even_b * half);
    out(3, (odd_a * two + odd_b * half) + m[5]);
  }

  template <class Number>
  static void sums(Number number, Vec<T> (&out)[4][4]) {
    Vec<T> rows[4][6];
    for (int c = 0; c < 6; c++) {
      Vec<T> m[6];
      for (int r = 0; r < 6; r++) m[r] = number(6 * r + c);
      four(m, [&](int r, Vec<T> v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 4; r++) four(rows[r], [&](int c, Vec<T> v) { out[r][c] = v; });
  }

  // The transpose of `four`.
  template <class Out>
  static void six_of_gradients(Vec<T> y0, Vec<T> y1, Vec<T> y2, Vec<T> y3, Out out) {
    const T a = kA, b = kB, half = 0.5, two = 2;
    const Vec<T> even_a = y0 + y2 * two, odd_a = (y1 + y3 * two) * a;
    const Vec<T> even_b = y0 + y2 * half, odd_b = (y1 + y3 * half) * b;
    out(0, y0);
    out(1, even_a + odd_a);
    out(2, even_a - odd_a);
    out(3, even_b + odd_b);
    out(4, even_b - odd_b);
    out(5, y3);
  }

  template <class Pixel, class Write>
  static void gradient(Pixel pixel, Write write) {
    Vec<T> rows[6][4];
    for (int c = 0; c < 4; c++) {
      six_of_gradients(pixel(0, c), pixel(1, c), pixel(2, c), pixel(3, c),
                       [&](int r, Vec<T> v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 6; r++) {
      six_of_gradients(rows[r][0], rows[r][1], rows[r][2], rows[r][3],
                       [&](int c, Vec<T> v) { write(6 * r + c, v); });
    }
  }

  // The transpose of `six_of_weights`.
  template <class R, class Out>
  static void three(const R (&s)[6], Out out) {
    const R even_a = (s[1] + s[2]) * (1.0 / 6), even_b = (s[3] + s[4]) * (-1 / 1.5);
    out(0, s[0] + even_a + even_b);
    out(1, (s[1] - s[2]) * (kA / 6) - (s[3] - s[4]) * (kB / 1.5));
    out(2, even_a * 2.0 + even_b * 0.5 + s[5]);
  }

  template <class R, class Number, class Write>
  static void weight_gradient(Number number, Write write) {
    R rows[3][6];
    for (int c = 0; c < 6; c++) {
      const R s[6] = {number(c),      number(6 + c),  number(12 + c),
                      number(18 + c), number(24 + c), number(30 + c)};
      three(s, [&](int r, R v) { rows[r][c] = v; });
    }
    for (int r = 0; r < 3; r++) three(rows[r], [&](int c, R v) { write(r, c, v); });
  }
};

}  // namespace
