// What it costs to share work: the numbers from which follows how many threads a call gets and what each of them does.
//
// All are in multiply-adds of one thread, of which the CPU they were measured on (Zen 5, AVX-512, float32) does 100 to
// 130 in a nanosecond. Where cores are slower, the time of a meeting weighs less, and sharing is begun later than it
// might be. `python -m bench.teams` prints what follows from them for teams of any size.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/integers.hpp"

namespace pyrnn {

// Below this much per thread, sharing work costs more than it saves: to give a worker a job takes some 15,000 one after
// the other, eight at each of the levels of a team (threads.cpp).
inline constexpr i64 work_per_thread = 200'000;
// Work that takes one thread several times as long as a sleeping worker takes to wake (200 us).
inline constexpr i64 work_to_wake = 32'000'000;

// A meeting: a line's way from core to core at each level of the barrier (0.2 us to a neighbour that shares a cache;
// more than eight lie further apart), and further lines of flags that are looked at, which are fetched several at once.
inline constexpr i64 work_per_level = 20'000, work_per_far_level = 60'000, work_per_look = 5'000;
inline i64 work_of_meeting(int threads, int fan) {
  i64 work = 0;
  for (int step = 1; step < threads; step *= fan)
    work += (step == 1 ? work_per_level : work_per_far_level) + work_per_look * std::min(fan - 1, (threads - 1) / step);
  return work;
}
// A number that another core has written a moment ago: a cache line of them takes 10 ns, several being on their way.
inline constexpr double work_per_foreign_number = 60;

// To pack a weight takes as long as to multiply so many rows by it.
inline constexpr i64 rows_of_packing = 8;
// To read a weight, from a level 3 cache that cores share, takes as long as to multiply so many rows by it.
inline constexpr i64 rows_of_reading = 3;
// In a step, which reads all weights again and again, so many bytes stay in a core's level 2 cache beside all else, and
// two rows wait for them; more rows go on meanwhile, but for a moment in each tile, and a tile of three rows is slower
// than others. Beyond so many bytes, which are not foreseen, any rows wait, the less the more there are.
inline constexpr i64 own_weights = 400 << 10, foreseen_weights = 3 << 20;
inline constexpr double rows_of_own_reading = 2, rows_of_tiles = 0.75, rows_of_three = 0.5, rows_that_hide_it = 48;
inline double work_per_weight(double rows, i64 bytes) {
  constexpr double far = rows_of_reading;
  if (bytes > foreseen_weights) return rows + far * std::max(0.0, 1 - rows / rows_that_hide_it);
  if (rows == 3) rows += rows_of_three;
  return std::max(rows, bytes > own_weights ? far : rows_of_own_reading) + rows_of_tiles;
}
// One thread with another that assists it, in so many rows at most, is so many times as fast as alone (1.4 to 1.7).
inline constexpr double gain_of_assistance = 1.46, rows_to_assist = 3;

}  // namespace pyrnn
