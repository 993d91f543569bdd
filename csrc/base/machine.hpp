// Loops that touch this CPU's limits, so that benchmarks can say what share of them they reach.
#pragma once

#include "base/panels.hpp"

namespace pyrnn::PYRNN_ISA {

// Independent multiply-adds in registers, as many at once as a tile uses; returns how many were done (one per lane).
// sink holds 256 elements.
template <class T> i64 fma_loop(i64 rounds, T* sink) {
  Vec<T> acc[max_accumulators];
  for (int j = 0; j < max_accumulators; ++j) acc[j] = load(sink + j);
  const Vec<T> x = load(sink), w = load(sink + lanes<T>);
  for (i64 i = 0; i < rounds; ++i) {
#pragma GCC unroll 32
    for (int j = 0; j < max_accumulators; ++j) acc[j] = fma(x, w, acc[j]);
  }
  for (int j = 0; j < max_accumulators; ++j) store(sink, load(sink) + acc[j]);
  return rounds * max_accumulators * lanes<T>;
}

// Reads n elements (a multiple of 8 registers), each once.
template <class T> void read_loop(const T* data, i64 n, T* sink) {
  Vec<T> total[8] = {};
  for (i64 i = 0; i < n; i += 8 * lanes<T>)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) total[j] += load(data + i + j * lanes<T>);
  for (int j = 0; j < 8; ++j) store(sink, load(sink) + total[j]);
}

}  // namespace pyrnn::PYRNN_ISA
