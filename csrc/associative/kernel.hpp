// Associative memories: Hebbian weights of bipolar patterns, local fields, and asynchronous sweeps.
//
// Patterns are bits. Hebbian weights add up four patterns at a time: the four bits of unit j are an index into the 16
// sums that the four bits of unit i can make with them, so one byte shuffle does register_bytes * 4 multiply-adds.
// A field is a sum of overlaps, each added or subtracted as a bit says. Both are integers: exact in any order.
//
// With weights, a sweep keeps the fields and changes them when a unit flips: O(n) per flip and O(1) per unit that
// stays. With patterns it keeps the overlaps: O(P) bits per unit visited. Sums over weights are chains of double in one
// order per unit, whatever the number of rows.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "associative/contract.hpp"
#include "base/panels.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct HopfieldLoop {
  using i8 = std::int8_t;
  using i32 = std::int32_t;
  using u32 = std::uint32_t;
  using Ints = IntVec<float>;
  static constexpr int L = lanes<float>;  // of 32-bit integers
  static constexpr int most_rows = 8;     // rows that go through the patterns side by side
  static constexpr int tile_vectors = 4;  // of bytes, in a tile of hebbian
  static constexpr int tile_rows = registers == 32 ? 4 : 2;
  static constexpr int block = tile_vectors * register_bytes;
  static constexpr i64 most_nibbles = 31;  // whose sums, each within -4..4, fit a byte

  // ---- patterns as bits

  // on [P, n] -> bits [n, ceil(P / word_bits)], units [begin, end).
  static void pack(const std::uint8_t* on, i64 P, i64 n, u32* bits, i64 begin, i64 end) {
    const i64 words = ceil_div(P, word_bits);
    constexpr i64 many = 256;
    for (i64 i = begin; i < end; i += many)
      for (i64 w = 0; w < words; ++w) {
        u32 word[many] = {};
        const i64 count = std::min(many, end - i);
        for (i64 k = 0; k < std::min(word_bits, P - w * word_bits); ++k) {
          const std::uint8_t* from = on + (w * word_bits + k) * n + i;
          for (i64 j = 0; j < count; ++j) word[j] |= u32(from[j] != 0) << k;
        }
        for (i64 j = 0; j < count; ++j) bits[(i + j) * words + w] = word[j];
      }
  }

  // ---- Hebbian weights

  static void nibbles(const Patterns& p, const Nibbles& out, i64 begin, i64 end) {
    for (i64 g = 0; g < out.groups; ++g) {
      std::uint8_t* const to = out.data + g * out.units;
      for (i64 i = begin; i < end; ++i) to[i] = std::uint8_t(p.bits[i * p.words + g / 8] >> (g % 8 * 4) & 15);
      if (end == p.n) std::fill(to + end, to + out.units, std::uint8_t(0));
    }
  }

  // sums[a][b] = the number of equal bits less the number of different ones.
  static constexpr std::array<std::array<i8, 16>, 16> sums = [] {
    std::array<std::array<i8, 16>, 16> s{};
    for (unsigned a = 0; a < 16; ++a)
      for (unsigned b = 0; b < 16; ++b) s[a][b] = i8(4 - 2 * std::popcount(a ^ b));
    return s;
  }();

  // Tiles of the upper triangle are dealt out to the parts; each is written twice, the second time transposed.
  static void hebbian(const Patterns& p, const Nibbles& nibbles, i32* tile, T* weights, int part, int parts) {
    i64 number = 0;
    for (i64 ib = 0; ib < nibbles.tiles; ++ib)
      for (i64 jb = ib; jb < nibbles.tiles; ++jb)
        if (number++ % parts == part) {
          std::fill_n(tile, block * block, i32(p.P - 4 * nibbles.groups));  // what lies beyond P counts as equal
          for (i64 i = 0; i < block; i += tile_rows)
            rows_of_tile(p, nibbles, ib * block + i, jb * block, tile + i * block);
          write_tile(tile, p.n, ib * block, jb * block, weights);
        }
  }

  // sums_of[r][j] += what units i0 + r and j0 + j have in common.
  static void rows_of_tile(const Patterns& p, const Nibbles& nibbles, i64 i0, i64 j0, i32* sums_of) {
    for (i64 first = 0; first < nibbles.groups; first += most_nibbles) {
      Bytes acc[tile_rows][tile_vectors] = {};
      for (i64 g = first; g < std::min(first + most_nibbles, nibbles.groups); ++g) {
        const std::uint8_t* plane = nibbles.data + g * nibbles.units;
        const unsigned negative = p.negative[g / 8] >> (g % 8 * 4) & 15;
        Bytes index[tile_vectors];
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) index[v] = load_bytes(plane + j0 + v * register_bytes);
#pragma GCC unroll 4
        for (int r = 0; r < tile_rows; ++r) {
          const Bytes table = repeat16(sums[plane[i0 + r] ^ negative].data());
#pragma GCC unroll 4
          for (int v = 0; v < tile_vectors; ++v) acc[r][v] += lookup(table, index[v]);
        }
      }
      for (int r = 0; r < tile_rows; ++r) {
        alignas(64) i8 bytes[block];
        std::memcpy(bytes, acc[r], sizeof bytes);
        for (int j = 0; j < block; ++j) sums_of[r * block + j] += bytes[j];
      }
    }
  }

  static void write_tile(const i32* tile, i64 n, i64 i0, i64 j0, T* weights) {
    constexpr int W = lanes<T>;
    typedef i32 Whole __attribute__((vector_size(W * sizeof(i32))));
    const i64 height = std::min<i64>(block, n - i0), width = std::min<i64>(block, n - j0);
    for (i64 i = 0; i < height; i += W)
      for (i64 j = 0; j < width; j += W) {
        Vec<T> square[W];
        for (int k = 0; k < W; ++k) {
          Whole row;
          std::memcpy(&row, tile + (i + k) * block + j, sizeof row);
          square[k] = __builtin_convertvector(row, Vec<T>);
          if (i0 + i + k >= j0 + j && i0 + i + k < j0 + j + W) square[k][i0 + i + k - j0 - j] = 0;
        }
        for (i64 k = 0; k < std::min<i64>(W, height - i); ++k)
          store(weights + (i0 + i + k) * n + j0 + j, square[k], width - j);
        if (i0 == j0) continue;
        transpose<T>(square);
        for (i64 k = 0; k < std::min<i64>(W, width - j); ++k)
          store(weights + (j0 + j + k) * n + i0 + i, square[k], height - i);
      }
  }

  // ---- patterns: overlaps

  static PYRNN_INLINE Ints load_ints(const i32* p) {
    Ints v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }

  static PYRNN_INLINE Ints splat_int(i32 x) { return x - Ints{}; }

  // Lane k of vector v is bit v * L + k of a word.
  static PYRNN_INLINE Ints lane_bits(int v) {
    Ints bits;
    for (int k = 0; k < L; ++k) bits[k] = i32(u32(1) << (v * L + k));
    return bits;
  }

  template <class V> static PYRNN_INLINE i32 total(V v) {
    constexpr int n = int(sizeof(V) / sizeof(i32));
    if constexpr (n == 2) {
      return i32(u32(v[0]) + u32(v[1]));
    } else {
      return [&]<int... i>(std::integer_sequence<int, i...>) {
        return total(__builtin_shufflevector(v, v, i...) + __builtin_shufflevector(v, v, (i + n / 2)...));
      }(std::make_integer_sequence<int, n / 2>{});
    }
  }

  // overlap_p += change * x_p for the patterns of a unit, negative ones the other way round.
  static void add_unit(const Patterns& p, const u32* bits, const u32* negative, i32 change, i32* overlaps) {
    const Ints plus = splat_int(change), minus = splat_int(-change);
    for (i64 w = 0; w < p.words; ++w) {
      const Ints word = splat_int(i32(bits[w] ^ negative[w]));
#pragma GCC unroll 8
      for (int v = 0; v < word_bits / L; ++v) {
        i32* at = overlaps + w * word_bits + v * L;
        const Ints sum = load_ints(at) + ((word & lane_bits(v)) != 0 ? plus : minus);
        std::memcpy(at, &sum, sizeof sum);
      }
    }
  }

  static void clear_padding(const Patterns& p, i32* overlaps) {
    std::fill(overlaps + p.P, overlaps + p.words * word_bits, i32(0));
  }

  // f.template operator()<R>(row) for all rows, as many side by side as there are, `most` at most.
  template <int most, class F> static void side_by_side(i64 begin, i64 end, F f) {
    for (; begin + most <= end; begin += most) f.template operator()<most>(begin);
    if constexpr (most > 1) side_by_side<most / 2>(begin, end, f);
  }

  // Units in blocks whose bits stay in the cache; a word's overlaps stay in registers while a block goes by.
  static void overlaps(const Patterns& p, const i8* state, i32* overlaps, i64 begin, i64 end) {
    constexpr int vectors = word_bits / L, most = std::max(1, registers / 2 / vectors);
    constexpr i64 units = 256;
    const i64 width = p.words * word_bits;
    side_by_side<most>(begin, end, [&]<int R>(i64 row) {
      const i8* s = state + row * p.n;
      i32* out = overlaps + row * width;
      std::fill_n(out, R * width, i32(0));
      for (i64 first = 0; first < p.n; first += units)
        for (i64 w = 0; w < p.words; ++w) {
          Ints acc[R][vectors] = {};
          for (i64 i = first; i < std::min(first + units, p.n); ++i) {
            const Ints word = splat_int(i32(p.bits[i * p.words + w]));
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
              const Ints value = splat_int(s[r * p.n + i]);
#pragma GCC unroll 8
              for (int v = 0; v < vectors; ++v) acc[r][v] += value & ((word & lane_bits(v)) != 0);
            }
          }
          for (int r = 0; r < R; ++r)
            for (int v = 0; v < vectors; ++v)
              for (int k = 0; k < L; ++k) out[r * width + w * word_bits + v * L + k] += acc[r][v][k];
        }
      for (int r = 0; r < R; ++r) {  // what is set, less what is not
        i32 all = 0;
        for (i64 i = 0; i < p.n; ++i) all += s[r * p.n + i];
        for (i64 k = 0; k < p.P; ++k) {
          const i32 m = 2 * out[r * width + k] - all;
          out[r * width + k] = p.negative[k / word_bits] >> (k % word_bits) & 1 ? -m : m;
        }
        clear_padding(p, out + r * width);
      }
    });
  }

  // ---- patterns: fields

  // The overlaps of R rows where the unit's bits are set, added up. A chunk of words fits 32 bits.
  template <int R>
  static PYRNN_INLINE void set_sums(const Patterns& p, const u32* bits, const i32* overlaps, i64 row, i64* out) {
    const i64 chunk = std::max<i64>(1, (i64(1) << 30) / word_bits / p.n);
    for (int r = 0; r < R; ++r) out[r] = 0;
    for (i64 first = 0; first < p.words; first += chunk) {
      Ints acc[R] = {};
      for (i64 w = first; w < std::min(first + chunk, p.words); ++w) {
        const Ints word = splat_int(i32(bits[w]));
#pragma GCC unroll 8
        for (int v = 0; v < word_bits / L; ++v) {
          const Ints set = (word & lane_bits(v)) != 0;
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) acc[r] += load_ints(overlaps + r * row + w * word_bits + v * L) & set;
        }
      }
      for (int r = 0; r < R; ++r) out[r] += total(acc[r]);
    }
  }

  static i64 sum_of(const Patterns& p, const i32* overlaps) {
    i64 sum = 0;
    for (i64 k = 0; k < p.P; ++k) sum += overlaps[k];
    return sum;
  }

  // sum_p sign_p x_p over the patterns of a unit.
  static i64 sum_of_unit(const Patterns& p, const u32* bits) {
    i64 count = 0;
    for (i64 w = 0; w < p.words; ++w) count += std::popcount(bits[w] ^ p.negative[w]);
    return 2 * count - p.P;
  }

  static void pattern_fields(const Patterns& p, const i32* overlaps, const i8* state, double* fields, i64 begin,
                             i64 end) {
    const i64 width = p.words * word_bits;
    side_by_side<most_rows>(begin, end, [&]<int R>(i64 row) {
      i64 all[R], set[R];
      for (int r = 0; r < R; ++r) all[r] = sum_of(p, overlaps + (row + r) * width);
      for (i64 i = 0; i < p.n; ++i) {
        set_sums<R>(p, p.bits + i * p.words, overlaps + row * width, width, set);
        for (int r = 0; r < R; ++r)
          fields[(row + r) * p.n + i] = double(2 * set[r] - all[r] - p.signs * state[(row + r) * p.n + i]);
      }
    });
  }

  // The new value of a unit.
  static PYRNN_INLINE int decide(const Sweep& s, i64 row, i64 i, double field, int now) {
    const double input = s.external ? s.external[row * s.external_row + i] + field : field;
    return input > s.threshold[i] ? 1 : input < s.threshold[i] ? s.off : now;
  }

  static void pattern_sweep(const Patterns& p, const Sweep& s, i32* overlaps, i8* state, i64* flips, i64 begin,
                            i64 end) {
    const i64 width = p.words * word_bits;
    side_by_side<most_rows>(begin, end, [&]<int R>(i64 row) {
      i64 all[R], set[R];
      for (int r = 0; r < R; ++r) {
        all[r] = sum_of(p, overlaps + (row + r) * width);
        flips[row + r] = 0;
      }
      for (i64 k = 0; k < p.n; ++k) {
        const i64 i = s.order[k];
        const u32* bits = p.bits + i * p.words;
        if (k + 4 < p.n) __builtin_prefetch(p.bits + s.order[k + 4] * p.words);
        set_sums<R>(p, bits, overlaps + row * width, width, set);
        for (int r = 0; r < R; ++r) {
          i8& unit = state[(row + r) * p.n + i];
          const int next = decide(s, row + r, i, double(2 * set[r] - all[r] - p.signs * unit), unit);
          if (next == unit) continue;
          add_unit(p, bits, p.negative, next - unit, overlaps + (row + r) * width);
          all[r] += (next - unit) * sum_of_unit(p, bits);
          unit = i8(next);
          ++flips[row + r];
        }
      }
      for (int r = 0; r < R; ++r) clear_padding(p, overlaps + (row + r) * width);
    });
  }

  // Krotov and Hopfield 2016: a unit takes the value of lower energy, given all others.
  static void dense_sweep(const Patterns& p, const Gap& gap, const Sweep& s, i32* overlaps, i8* state, i64* flips,
                          i64 begin, i64 end) {
    const i64 width = p.words * word_bits, last = 2 * p.n;
    for (i64 row = begin; row < end; ++row) {
      i32* m = overlaps + row * width;
      flips[row] = 0;
      for (i64 k = 0; k < p.n; ++k) {
        const i64 i = s.order[k];
        const u32* bits = p.bits + i * p.words;
        i8& unit = state[row * p.n + i];
        auto sign = [&](i64 q) {
          return (bits[q / word_bits] ^ p.negative[q / word_bits]) >> (q % word_bits) & 1 ? 1 : -1;
        };
        i64 shift = p.n;
        if (gap.relative) {
          i64 most = -last;
          for (i64 q = 0; q < p.P; ++q) most = std::max<i64>(most, i64(m[q]) - sign(q) * unit);
          shift = last - most;
        }
        double field = 0;
        for (i64 q = 0; q < p.P; ++q) {
          const double g = gap.table[std::clamp<i64>(i64(m[q]) - sign(q) * unit + shift, 0, last)];
          field += sign(q) > 0 ? g : -g;
        }
        double external = s.external ? 2 * s.external[row * s.external_row + i] : 0.0;
        if (gap.relative && external != 0) external *= std::exp(double(shift - last));
        const double input = external + field;
        const int next = input > 0 ? 1 : input < 0 ? s.off : unit;
        if (next == unit) continue;
        add_unit(p, bits, p.negative, next - unit, m);
        unit = i8(next);
        ++flips[row];
      }
      clear_padding(p, m);
    }
  }

  // ---- weights

  // Four chains of double per unit and row.
  template <int R> static void fields_of_unit(const T* weights, i64 n, const double* states, double* fields, i64 i) {
    constexpr int D = lanes<double>, chains = 4;
    typedef T Part __attribute__((vector_size(D * sizeof(T))));
    Vec<double> acc[R][chains] = {};
    const T* row = weights + i * n;
    i64 j = 0;
    for (; j + chains * D <= n; j += chains * D)
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) {
        Part part;
        std::memcpy(&part, row + j + c * D, sizeof part);
        const Vec<double> w = __builtin_convertvector(part, Vec<double>);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r][c] = fma(w, load(states + r * n + j + c * D), acc[r][c]);
      }
    for (int r = 0; r < R; ++r) {
      double sum = PYRNN_ISA::sum<double>((acc[r][0] + acc[r][1]) + (acc[r][2] + acc[r][3]));
      for (i64 k = j; k < n; ++k) sum += double(row[k]) * states[r * n + k];
      fields[r * n + i] = sum;
    }
  }

  static void fields(const T* weights, i64 n, const double* states, i64 N, double* fields, i64 begin, i64 end) {
    constexpr int rows_at_once = registers == 32 ? 4 : 2;
    for (i64 i = begin; i < end; ++i) {
      i64 row = 0;
      for (; row + rows_at_once <= N; row += rows_at_once)
        fields_of_unit<rows_at_once>(weights, n, states + row * n, fields + row * n, i);
      for (; row < N; ++row) fields_of_unit<1>(weights, n, states + row * n, fields + row * n, i);
    }
  }

  static void sweep(const T* weights, const Sweep& s, double* fields, i8* state, i64* flips, i64 begin, i64 end) {
    for (i64 row = begin; row < end; ++row) {
      double* field = fields + row * s.n;
      flips[row] = 0;
      for (i64 k = 0; k < s.n; ++k) {
        const i64 i = s.order[k];
        i8& unit = state[row * s.n + i];
        const int next = decide(s, row, i, field[i], unit);
        if (next == unit) continue;
        const double change = next - unit;
        const T* w = weights + i * s.n;
        for (i64 j = 0; j < s.n; ++j) field[j] += change * double(w[j]);
        unit = i8(next);
        ++flips[row];
      }
    }
  }

  static constexpr HopfieldKernels<T> kernels{block,          pack,          nibbles,     hebbian, overlaps,
                                              pattern_fields, pattern_sweep, dense_sweep, fields,  sweep};
};

}  // namespace pyrnn::PYRNN_ISA
