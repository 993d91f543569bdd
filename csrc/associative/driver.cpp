// How threads share the units, rows and tiles of associative memories: see driver.hpp.
#include "associative/driver.hpp"

#include <algorithm>

#include "base/memory.hpp"
#include "base/threads.hpp"

namespace pyrnn {

namespace {

// f(begin, end) over `count` rows or units on as many threads as the work is worth.
template <class F> void over(i64 count, i64 work, F f) {
  Team team(work, int(std::min<i64>(threads_worth(work), std::max<i64>(count, 1))));
  Watch watch;
  in_watched_parts(team, work, count, watch, [&](int, i64 part, i64 parts) {
    const Slice mine(count, part, parts);
    f(mine.begin, mine.end);
  });
}

// A unit's patterns against N states: bits, many of which are worked on in the time of one multiply-add.
i64 pattern_work(const Patterns& p, i64 N) { return N * p.n * p.P / 4; }

}  // namespace

void hopfield_pack(const PatternKernels& k, const std::uint8_t* on, i64 P, i64 n, std::uint32_t* bits) {
  over(n, P * n / 8, [&](i64 begin, i64 end) { k.pack(on, P, n, bits, begin, end); });
}

template <class T> void hopfield_hebbian(const HopfieldKernels<T>& k, const Patterns& p, T* weights) {
  Nibbles nibbles(p, k.block);
  const i64 tile_size = i64(k.block) * k.block, work = p.n * p.n * (1 + p.P / 64);
  const Buffer<std::uint8_t> planes(nibbles.groups * nibbles.units);
  nibbles.data = planes.get();
  over(p.n, pattern_work(p, 1), [&](i64 begin, i64 end) { k.nibbles(p, nibbles, begin, end); });
  Team team(work);
  const Buffer<std::int32_t> tiles(tile_size * team.size());
  Watch watch;
  in_watched_parts(team, work, nibbles.tiles, watch, [&](int thread, i64 part, i64 parts) {
    k.hebbian(p, nibbles, tiles.get() + tile_size * thread, weights, int(part), int(parts));
  });
}

void hopfield_overlaps(const PatternKernels& k, const Patterns& p, i64 N, const std::int8_t* state,
                       std::int32_t* overlaps) {
  over(N, pattern_work(p, N), [&](i64 begin, i64 end) { k.overlaps(p, state, overlaps, begin, end); });
}

void hopfield_pattern_fields(const PatternKernels& k, const Patterns& p, i64 N, const std::int32_t* overlaps,
                             const std::int8_t* state, double* fields) {
  over(N, pattern_work(p, N), [&](i64 begin, i64 end) { k.pattern_fields(p, overlaps, state, fields, begin, end); });
}

void hopfield_pattern_sweep(const PatternKernels& k, const Patterns& p, const Sweep& s, i64 N, std::int32_t* overlaps,
                            std::int8_t* state, i64* flips) {
  over(N, pattern_work(p, N), [&](i64 begin, i64 end) { k.pattern_sweep(p, s, overlaps, state, flips, begin, end); });
}

void hopfield_dense_sweep(const PatternKernels& k, const Patterns& p, const Gap& gap, const Sweep& s, i64 N,
                          std::int32_t* overlaps, std::int8_t* state, i64* flips) {
  over(N, 8 * pattern_work(p, N),
       [&](i64 begin, i64 end) { k.dense_sweep(p, gap, s, overlaps, state, flips, begin, end); });
}

template <class T>
void hopfield_fields(const HopfieldKernels<T>& k, const T* weights, i64 n, i64 N, const std::int8_t* state,
                     double* fields) {
  const Buffer<double> states(N * n);
  std::copy_n(state, N * n, states.get());
  over(n, N * n * n, [&](i64 begin, i64 end) { k.fields(weights, n, states.get(), N, fields, begin, end); });
}

template <class T>
void hopfield_sweep(const HopfieldKernels<T>& k, const T* weights, const Sweep& s, i64 N, double* fields,
                    std::int8_t* state, i64* flips) {
  over(N, N * s.n * std::max<i64>(8, s.n / 20),
       [&](i64 begin, i64 end) { k.sweep(weights, s, fields, state, flips, begin, end); });
}

template void hopfield_hebbian(const HopfieldKernels<float>&, const Patterns&, float*);
template void hopfield_hebbian(const HopfieldKernels<double>&, const Patterns&, double*);
template void hopfield_fields(const HopfieldKernels<float>&, const float*, i64, i64, const std::int8_t*, double*);
template void hopfield_fields(const HopfieldKernels<double>&, const double*, i64, i64, const std::int8_t*, double*);
template void hopfield_sweep(const HopfieldKernels<float>&, const float*, const Sweep&, i64, double*, std::int8_t*,
                             i64*);
template void hopfield_sweep(const HopfieldKernels<double>&, const double*, const Sweep&, i64, double*, std::int8_t*,
                             i64*);

}  // namespace pyrnn
