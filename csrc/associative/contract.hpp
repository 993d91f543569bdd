// What the kernels of associative memories (kernel.hpp, compiled per instruction set) are given by the driver.
//
// A memory is n units and either a symmetric matrix of weights with a zero diagonal, or the stored patterns themselves:
// w_ij = sum_p sign_p x_pi x_pj follows from them, and so do the local fields, from the overlaps of state and patterns.
// States are bytes: 1 is on, `off` (-1 or 0) is off. All fields are exact where weights are integers.
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

inline constexpr i64 word_bits = 32;
inline constexpr i64 most_units = i64(1) << 25;  // the overlaps of a word of patterns, added up, fit 32 bits

// P bipolar patterns of n units as bits, unit by unit: 1 is +1, 0 is -1, and 0 beyond P.
struct Patterns {
  i64 n = 0, P = 0, words = 0;              // words = ceil(P / word_bits)
  const std::uint32_t* bits = nullptr;      // [n, words]
  const std::uint32_t* negative = nullptr;  // [words]: 1 where a pattern's sign is -1
  i64 signs = 0;                            // their sum
};

// The same four at a time, as hebbian reads them: the bits of a unit in the low half of a byte, unit by unit, and 0
// beyond n up to whole tiles of `block` units.
struct Nibbles {
  PYRNN_INLINE Nibbles(const Patterns& p, i64 block)
      : groups(ceil_div(p.P, 4)), units(round_up(p.n, block)), tiles(units / block) {}
  const i64 groups, units, tiles;  // tiles: in a row of weights
  std::uint8_t* data = nullptr;    // [groups, units]
};

// How a sweep goes and what it compares: unit i is on above its threshold, off below, and stays where equal.
struct Sweep {
  i64 n = 0;
  const i64* order = nullptr;         // [n], a permutation
  const double* threshold = nullptr;  // [n]
  const double* external = nullptr;   // [n] or [N, n], or null: what is added to the fields
  i64 external_row = 0;               // n, or 0 where all rows share it
  int off = -1;
};

// The energy of a dense memory by its difference: gap[k] = F(r + 1) - F(r - 1), r = k - n the overlap without the unit.
// With `relative`, r = k - 2n + the largest such overlap, and everything is divided by exp of that largest one.
struct Gap {
  const double* table = nullptr;  // [2 n + 1]
  bool relative = false;
};

// Rows [begin, end) of N states [N, n] and overlaps [N, words * word_bits] (0 beyond P) or fields [N, n].
template <class T> struct HopfieldKernels {
  int block;  // units of a tile of hebbian, which is square
  // on [P, n] -> bits [n, ceil(P / word_bits)]; units [begin, end).
  void (*pack)(const std::uint8_t* on, i64 P, i64 n, std::uint32_t* bits, i64 begin, i64 end);
  void (*nibbles)(const Patterns&, const Nibbles&, i64 begin, i64 end);  // written; units [begin, end)
  // Writes weights [n, n]. tile [block, block] is the thread's own.
  void (*hebbian)(const Patterns&, const Nibbles&, std::int32_t* tile, T* weights, int part, int parts);
  void (*overlaps)(const Patterns&, const std::int8_t* state, std::int32_t* overlaps, i64 begin, i64 end);
  void (*pattern_fields)(const Patterns&, const std::int32_t* overlaps, const std::int8_t* state, double* fields,
                         i64 begin, i64 end);
  void (*pattern_sweep)(const Patterns&, const Sweep&, std::int32_t* overlaps, std::int8_t* state, i64* flips,
                        i64 begin, i64 end);
  void (*dense_sweep)(const Patterns&, const Gap&, const Sweep&, std::int32_t* overlaps, std::int8_t* state, i64* flips,
                      i64 begin, i64 end);
  // fields[row][i] of all N rows and units [begin, end); states are [N, n] in double.
  void (*fields)(const T* weights, i64 n, const double* states, i64 N, double* fields, i64 begin, i64 end);
  void (*sweep)(const T* weights, const Sweep&, double* fields, std::int8_t* state, i64* flips, i64 begin, i64 end);
};

}  // namespace pyrnn
