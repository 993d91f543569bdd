// Products of floats that are rounded to bfloat16 first, both factors: a form (forms.hpp) of matrices of floats, with a
// way back.
//
// A number is rounded to nearest, of two as near to the even one; what is smaller than 2^-126 is 0. Panels hold two k
// in a word. CPUs that have an instruction for it multiply words by words: to each lane's sum the product of the upper
// halves is added, then that of the lower ones, each by a multiply-add that is rounded to nearest by itself, with
// numbers smaller than 2^-126 taken for 0, coming in and going out. So the first k of a word lies above, and a sum is
// the chain of floats that any product here is. Elsewhere it is this chain, of vectors of rounded floats and panels of
// words.
#pragma once

#include "base/words.hpp"

namespace pyrnn::PYRNN_ISA {

#if defined(__AVX512BF16__)

struct Rounded {
  using Sum = Vec<float>;
  using Number = Word;
  static constexpr i64 bits = 16, per_word = 2;
  static constexpr int phases = 1, extra = 0;
  static constexpr bool prepares = true;

  static PYRNN_INLINE Number number(const float* row, i64 word, int) {
    std::int32_t bits;
    std::memcpy(&bits, row + word, sizeof bits);
    return bits - Word{};
  }
  static PYRNN_INLINE Sum begin(const float*, const float* start) { return load(start); }
  static PYRNN_INLINE Sum add(Sum sum, Word w, Number x, int) {
    return _mm512_dpbf16_ps(sum, (__m512bh)(__m512i)w, (__m512bh)(__m512i)x);
  }
  static PYRNN_INLINE Vec<float> end(Sum sum, const float*, const float*, const float*) { return sum; }

  static constexpr int per_element = 2;  // numbers in an element of a prepared vector

  // Two registers, lane by lane in the halves of a word; of a word the one and the other.
  static PYRNN_INLINE Word pair(Vec<float> first, Vec<float> second) {
    constexpr auto order = []<int... i>(std::integer_sequence<int, i...>) {
      typedef std::int16_t Halves __attribute__((vector_size(64)));
      return Halves{std::int16_t(i / 2 + i % 2 * 16)...};
    };
    return (Word)_mm512_permutexvar_epi16((__m512i)order(std::make_integer_sequence<int, 32>{}),
                                          (__m512i)_mm512_cvtne2ps_pbh(first, second));
  }
  static PYRNN_INLINE Vec<float> first(Word w) { return from_bits<float>(upper_halves(w)); }
  static PYRNN_INLINE Vec<float> second(Word w) { return from_bits<float>(w << 16); }

  // Numbers side by side, at most two registers of them.
  static PYRNN_INLINE void put(const float* from, i64 n, float* to) {
    constexpr i64 L = lanes<float>;
    const Vec<float> low = load(from, n), high = n > L ? load(from + L, n - L) : Vec<float>{};
    const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    store(to, from_bits<float>((Word)_mm512_maskz_rol_epi32(__mmask16(-1), pairs, 16)), ceil_div(n, 2));
  }
  // The numbers of one lane of some registers are to lie side by side: one of them.
  template <class Row> static PYRNN_INLINE Vec<float> element(i64 k, Row row) {
    return from_bits<float>(pair(row(2 * k), row(2 * k + 1)));
  }
};

#else

struct Rounded : Bfloat16 {
  static constexpr int per_element = 1;

  static PYRNN_INLINE Word bits_of(Vec<float> v) {
    const Word bits = to_bits<float>(v), size = bits & 0x7fffffff, infinity = Word{} + 0x7f800000;
    const Word near = bits + ((size <= infinity) & (0x7fff + (bits >> 16 & 1)));
    const Word no_number = (size > infinity) & 0x00400000, sign = bits & std::int32_t(0x80000000);
    return size < 0x00800000 ? sign : upper_halves(near | no_number);
  }
  static PYRNN_INLINE Word pair(Vec<float> first, Vec<float> second) {
    return bits_of(second) | (bits_of(first) >> 16 & 0xffff);
  }
  static PYRNN_INLINE Vec<float> first(Word w) { return from_bits<float>(w << 16); }
  static PYRNN_INLINE Vec<float> second(Word w) { return from_bits<float>(upper_halves(w)); }

  static PYRNN_INLINE void put(const float* from, i64 n, float* to) {
    store(to, from_bits<float>(bits_of(load(from, n))), n);
  }
  template <class Row> static PYRNN_INLINE Vec<float> element(i64 k, Row row) {
    return from_bits<float>(bits_of(row(k)));
  }
};

#endif

struct RoundedForm {
  using F = std::conditional_t<Rounded::prepares, Rounded, Bfloat16>;  // whose products are made already
  static constexpr i64 L = lanes<float>, per_element = Rounded::per_element;

  static void store_word(float* to, Word w) { store(to, from_bits<float>(w)); }

  static i64 panel_size(i64 vectors, i64 columns) { return words_of<F>(columns) * vectors * L; }
  static i64 vector_size(i64 columns) { return round_up(ceil_div(columns, per_element), 16); }

  static void pack(const Matrix<const float>& weight, std::span<const int> gate, i64 units, i64 columns, i64 g0, i64 g1,
                   float* panels) {
    const i64 V = i64(gate.size());
    for (i64 g = g0; g < g1; ++g) {
      float* const panel = panels + g * panel_size(V, columns);
      const i64 valid = std::min(units - g * L, L);
      for (i64 v = 0; v < V; ++v) {
        const float* source = weight.data + (gate[std::size_t(v)] * units + g * L) * columns;
        for (i64 k = 0; k < columns; k += L, source += L) {
          Vec<float> block[L];
          prefetch_rows(source, columns, 4 * L);
          load_turned(source, columns, valid, std::min(columns - k, L), block);
          for (i64 i = 0; i < std::min(columns - k, L); i += 2)
            store_word(panel + ((k + i) / 2 * V + v) * L, Rounded::pair(block[i], block[i + 1]));
        }
      }
    }
  }

  static void prepare(const float* vector, i64 columns, float* to) {
    constexpr i64 step = L * per_element;
    for (i64 k = 0; k < columns; k += step) Rounded::put(vector + k, std::min(columns - k, step), to + k / per_element);
  }

  static void gather(const float* from, i64 count, i64 length, i64 stride, float* to) {
    for (i64 i = 0; i < count; ++i, from += stride, to += length / per_element) prepare(from, length, to);
  }

  static void transpose(int vectors, const float* panels, i64 units, i64 columns, i64 g0, i64 g1, float* to) {
    const i64 size = panel_size(vectors, columns);
    for (i64 g = g0; g < g1; ++g) {
      float* out = to + g * panel_size(1, padded<float>(units) * vectors);
      const i64 width = std::min(columns - g * L, L);
      for (i64 ug = 0; ug < groups_of<float>(units); ++ug)
        for (int v = 0; v < vectors; ++v) {
          const float* const from = panels + ug * size + (g * L / 2 * vectors + v) * L;
          Vec<float> block[L];
          for (i64 i = 0; i < L; i += 2) {
            const Word w = i < width ? load_word(from + i / 2 * vectors * L) : Word{};
            block[i] = Rounded::first(w), block[i + 1] = Rounded::second(w);
          }
          PYRNN_ISA::transpose<float>(block);
          for (i64 i = 0; i < L; i += 2, out += L) store_word(out, Rounded::pair(block[i], block[i + 1]));
        }
    }
  }

  static void turn(const float* const* rows, i64 n, i64 columns, float* to) {
    const i64 size = vector_size(n);
    for (i64 k = 0; k < n; k += L * per_element)
      for (i64 c = 0; c < columns; c += L) {
        Vec<float> block[L];
        for (i64 i = 0; i < L; ++i)
          block[i] = Rounded::element(
              i, [&](i64 row) { return k + row < n ? load(rows[k + row] + c, columns - c) : Vec<float>{}; });
        PYRNN_ISA::transpose<float>(block);
        for (i64 i = 0; i < std::min(columns - c, L); ++i) store(to + (c + i) * size + k / per_element, block[i]);
      }
  }

  static void pack_rows(const float* from, i64 step, i64 n, i64 width, i64 vectors, float* panel) {
    for (i64 k = 0; k < n; k += 2)
      for (i64 v = 0; v < vectors; ++v, panel += L) {
        const auto row = [&](i64 i) {
          return i < n && width > v * L ? load(from + i * step + v * L, width - v * L) : Vec<float>{};
        };
        store_word(panel, Rounded::pair(row(k), row(k + 1)));
      }
  }

  static constexpr Form<float> form{F::bits, panel_size, pack,      vector_size, prepare, WordForm<F>::accumulate,
                                    gather,  transpose,  pack_rows, turn};
};

}  // namespace pyrnn::PYRNN_ISA
