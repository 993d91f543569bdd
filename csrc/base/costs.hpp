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

// A meeting is won back where threads that share the units have this much to do in between: one row of 60,000 weights
// on two threads. It is a level of the barrier: a line's way from core to core (0.3 us where they share a cache), and
// the lateness of who is late by a little. Further flags that are looked at are further lines to fetch, several at
// once.
inline constexpr i64 work_per_level = 70'000, work_per_look = 5'000;
inline i64 work_of_meeting(int threads, int fan) {
  i64 work = 0;
  for (int step = 1; step < threads; step *= fan)
    work += work_per_level + work_per_look * std::min(fan - 1, (threads - 1) / step);
  return work;
}
// A number that another core has written a moment ago: a cache line of them takes 10 ns.
inline constexpr double work_per_foreign_number = 60;

// To pack a weight takes as long as to multiply so many rows by it.
inline constexpr i64 rows_of_packing = 8;
// To read a weight takes as long as to multiply so many rows by it. A step reads weights again and again: so many bytes
// of them stay in a core's level 2 cache beside all else, and so many are foreseen where they lie in a shared level 3.
// What lies further away is waited for, the less the more rows there are to work on meanwhile.
inline constexpr i64 rows_of_reading = 3;
inline constexpr i64 own_weights = 400 << 10, foreseen_weights = 3 << 20;
inline constexpr double rows_of_own_reading = 2.5, rows_of_far_reading = 4, rows_that_hide_reading = 48;
inline double work_per_weight(double rows, i64 bytes) {
  if (bytes <= foreseen_weights)
    return std::max(rows, bytes <= own_weights ? rows_of_own_reading : rows_of_far_reading);
  return rows + rows_of_far_reading * std::max(0.0, 1 - rows / rows_that_hide_reading);
}

}  // namespace pyrnn
