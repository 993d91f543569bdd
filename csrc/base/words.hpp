// Panels in fewer bits (forms.hpp), and the micro-kernel that multiplies rows by them.
//
// A panel is one of panels.hpp whose rows are words of 32 bits: [word][V][lane], each with the elements of a few k side
// by side, and behind them what the form needs of each output. Of one form the elements of a word are unpacked in
// registers, of the other they are summed by one instruction; everything else is the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/forms.hpp"
#include "base/panels.hpp"

namespace pyrnn::PYRNN_ISA {

using Word = IntVec<float>;
PYRNN_INLINE Word load_word(const float* p) { return to_bits<float>(load(p)); }

// Two k in a word, the first one below. A word is unpacked in phases, and meets one number of each row in each of them.
struct Bfloat16 {
  using Sum = Vec<float>;
  using Number = Vec<float>;
  static constexpr i64 bits = 16, per_word = 2;
  static constexpr int phases = 2;
  static constexpr int extra = 0;  // vectors behind the words of a panel, for each v
  static constexpr bool prepares = false;

  static PYRNN_INLINE Number number(const float* row, i64 word, int phase) { return splat(row[2 * word + phase]); }
  static PYRNN_INLINE Sum begin(const float*, const float* start) { return load(start); }
  static PYRNN_INLINE Sum add(Sum sum, Word w, Number x, int phase) {
    return fma(x, from_bits<float>(phase ? upper_halves(w) : w << 16), sum);
  }
  static PYRNN_INLINE Vec<float> end(Sum sum, const float*, const float*, const float*) { return sum; }

  static i64 vector_size(i64) { return 0; }
  static std::uint32_t word(const void* row, i64 k, i64 n) {
    const std::uint16_t* from = static_cast<const std::uint16_t*>(row) + k;
    return std::uint32_t(from[0]) | (n > 1 ? std::uint32_t(from[1]) << 16 : 0);
  }
  static const void* row(const void* data, i64 r, i64 columns) {
    return static_cast<const std::uint16_t*>(data) + r * columns;
  }
  static void put_extra(const void*, i64, float, float*, i64) {}
};

// Four k in a word. A prepared vector is its scale, then its words. Behind a panel's words lie the scales of its rows
// and what a sum begins at where the numbers of the vector lie higher than they are.
struct Int8 {
  using Sum = Word;
  using Number = Word;
  static constexpr i64 bits = 8, per_word = 4;
  static constexpr int phases = Dot::words, extra = 2;
  static constexpr bool prepares = true;

  static PYRNN_INLINE Number number(const float* row, i64 word, int phase) {
    std::int32_t bits;
    std::memcpy(&bits, row + 1 + word * Dot::words + phase, sizeof bits);
    return bits - Word{};
  }
  static PYRNN_INLINE Sum begin(const float* behind, const float*) {
    return Dot::offset ? load_word(behind + lanes<float>) : Sum{};
  }
  static PYRNN_INLINE Sum add(Sum sum, Word w, Number x, int phase) { return Dot::add(sum, w, x, phase); }
  // start + sum * (scale of the row of weights * scale of the vector)
  static PYRNN_INLINE Vec<float> end(Sum sum, const float* behind, const float* row, const float* start) {
    return fma(__builtin_convertvector(sum, Vec<float>), load(behind) * splat(row[0]), load(start));
  }

  static i64 vector_size(i64 columns) {
    constexpr i64 L = lanes<float>;
    return round_up(1 + round_up(columns, L) / 4 * Dot::words, 16);
  }
  static std::uint32_t word(const void* row, i64 k, i64 n) {
    std::uint32_t word = 0;
    std::memcpy(&word, static_cast<const std::int8_t*>(row) + k, std::size_t(n));
    return word;
  }
  static const void* row(const void* data, i64 r, i64 columns) {
    return static_cast<const std::int8_t*>(data) + r * columns;
  }
  static void put_extra(const void* row, i64 columns, float scale, float* behind, i64 lane) {
    std::uint32_t sum = 0;
    for (i64 k = 0; k < columns; ++k) sum -= std::uint32_t(Dot::offset * static_cast<const std::int8_t*>(row)[k]);
    behind[lane] = scale;
    std::memcpy(behind + lanes<float> + lane, &sum, sizeof sum);
  }

  // Whole numbers round(v / scale), of two as near the even one, for scale = max |v| / 127. Of a vector with a NaN or
  // infinity the scale is NaN, and with it all that it meets. A scale so small that it is rounded to 0 makes zeros.
  static void prepare(const float* vector, i64 columns, float* to) {
    constexpr int L = lanes<float>;
    Word most{};  // as bits, whose order is that of the numbers, with NaN above
    for (i64 k = 0; k < columns; k += L) {
      const Word bits = to_bits<float>(abs<float>(load(vector + k, columns - k)));
      most = bits > most ? bits : most;
    }
    std::int32_t top = 0;
    for (int i = 0; i < L; ++i) top = std::max(top, std::int32_t(most[i]));
    float largest;
    std::memcpy(&largest, &top, sizeof top);
    const float scale = largest / 127.f;
    const bool finite = std::isfinite(largest);
    to[0] = finite ? scale : std::numeric_limits<float>::quiet_NaN();
    std::int32_t* words = reinterpret_cast<std::int32_t*>(to + 1);
    const Vec<float> by = splat(scale);
    for (i64 k = 0; k < columns; k += L, words += L / 4 * Dot::words) {
      const Vec<float> v = load(vector + k, columns - k);
      Dot::put(finite && scale > 0 ? __builtin_convertvector(max(min(round(v / by), 127.f), -127.f), Word) : Word{},
               words);
    }
  }
};

template <class F> PYRNN_INLINE i64 words_of(i64 columns) { return ceil_div(columns, F::per_word); }

// As `tiles` in panels.hpp. Where the registers hold the numbers of all phases beside the sums, a word is loaded once;
// else it is for each phase.
template <class F, int R, int U, int V>
__attribute__((noinline)) i64 word_tiles(const float* const* a, i64 columns, const float* panels,
                                         const float* const* start, float* const* c, i64 c_group, i64 g, i64 groups) {
  constexpr int L = lanes<float>;
  constexpr bool at_once = F::phases == 1 || R * F::phases + R * U * V + 3 <= registers;
  const i64 words = words_of<F>(columns), group = (words + F::extra) * V * L;
  for (; g + U <= groups; g += U) {
    const i64 from = g * c_group;
    const float* panel = panels + g * group;
    const float* const behind = panel + words * V * L;
    typename F::Sum acc[R][U][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
          acc[r][u][v] = F::begin(behind + u * group + v * F::extra * L, start[r] + from + u * c_group + v * L);
    // Phases [first, first + count) of a word of all vectors.
    const auto add = [&]<int first, int count>(i64 word) __attribute__((always_inline)) {
      typename F::Number x[R][count];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int i = 0; i < count; ++i) x[r][i] = F::number(a[r], word, first + i);
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const Word w = load_word(panel + u * group + v * L);
#pragma GCC unroll 2
          for (int i = 0; i < count; ++i)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) acc[r][u][v] = F::add(acc[r][u][v], w, x[r][i], first + i);
        }
    };
    const i64 whole = F::prepares ? words : columns / F::per_word;
    i64 word = 0;
#pragma GCC unroll 1
    for (; word < whole; ++word, panel += V * L)
      if constexpr (at_once) {
        add.template operator()<0, F::phases>(word);
      } else {
        add.template operator()<0, 1>(word);
        asm("" : "+r"(panel));  // or the compiler keeps the words, for which there are no registers
        add.template operator()<1, 1>(word);
      }
    if (word < words) add.template operator()<0, 1>(word);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const i64 place = from + u * c_group + v * L;
          store(c[r] + place, F::end(acc[r][u][v], behind + u * group + v * F::extra * L, a[r], start[r] + place));
        }
  }
  return g;
}

template <class F> struct WordForm {
  static constexpr int L = lanes<float>;

  static i64 panel_size(i64 vectors, i64 columns) { return (words_of<F>(columns) + F::extra) * vectors * L; }

  static void pack(const Matrix<const float>& weight, std::span<const int> gate, i64 units, i64 columns, i64 g0, i64 g1,
                   float* panels) {
    const i64 V = i64(gate.size()), words = words_of<F>(columns);
    for (i64 g = g0; g < g1; ++g) {
      float* const panel = panels + g * panel_size(V, columns);
      std::fill_n(panel, panel_size(V, columns), 0.f);
      for (i64 v = 0; v < V; ++v)
        for (i64 lane = 0; lane < std::min<i64>(L, units - g * L); ++lane) {
          const i64 r = gate[std::size_t(v)] * units + g * L + lane;
          const void* const row = F::row(weight.data, r, columns);
          for (i64 k = 0; k < words; ++k) {
            const std::uint32_t word = F::word(row, k * F::per_word, std::min(F::per_word, columns - k * F::per_word));
            std::memcpy(panel + (k * V + v) * L + lane, &word, sizeof word);
          }
          F::put_extra(row, columns, weight.scale ? weight.scale[r] : 1.f, panel + words * V * L + v * F::extra * L,
                       lane);
        }
    }
  }

  template <int R, int V>
  static void rows_of(const float* const* a, i64 columns, const float* panels, const float* const* start,
                      float* const* c, i64 c_group, i64 groups) {
    i64 g = 0;
    auto run = [&]<int U>() {
      if constexpr (R * U * V <= max_accumulators || U == 1)
        if (g + U <= groups) g = word_tiles<F, R, U, V>(a, columns, panels, start, c, c_group, g, groups);
    };
    run.template operator()<4>();
    run.template operator()<2>();
    run.template operator()<1>();
  }

  static void accumulate(int vectors, int rows, const float* const* a, i64 columns, const float* panels,
                         const float* const* start, float* const* c, i64 c_group, i64 groups) {
    static_assert(most_vectors == 4);
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (
          [&] {
            if (rows == i / 4 + 1 && vectors == i % 4 + 1)
              rows_of<i / 4 + 1, i % 4 + 1>(a, columns, panels, start, c, c_group, groups);
          }(),
          ...);
    }(std::make_integer_sequence<int, 4 * max_rows>{});
  }

  static constexpr Form<float> form = [] {
    Form<float> form{F::bits, panel_size, pack, F::vector_size, nullptr, accumulate};
    if constexpr (F::prepares) form.prepare = F::prepare;
    return form;
  }();
};

}  // namespace pyrnn::PYRNN_ISA
