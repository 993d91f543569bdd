// Associative memories: work memory and threads around the kernels. Arrays are those of contract.hpp; a call that its
// user ends throws Interrupted.
#pragma once

#include "associative/contract.hpp"

namespace pyrnn {

// Nothing of patterns depends on the dtype but the weights made of them.
using PatternKernels = HopfieldKernels<float>;

// on [P, n] -> bits [n, ceil(P / word_bits)]
void hopfield_pack(const PatternKernels&, const std::uint8_t* on, i64 P, i64 n, std::uint32_t* bits);

// weights [n, n], written
template <class T> void hopfield_hebbian(const HopfieldKernels<T>&, const Patterns&, T* weights);

// Of N rows: their overlaps, their local fields under the Hebbian weights, and one sweep of each.
void hopfield_overlaps(const PatternKernels&, const Patterns&, i64 N, const std::int8_t* state, std::int32_t* overlaps);
void hopfield_pattern_fields(const PatternKernels&, const Patterns&, i64 N, const std::int32_t* overlaps,
                             const std::int8_t* state, double* fields);
void hopfield_pattern_sweep(const PatternKernels&, const Patterns&, const Sweep&, i64 N, std::int32_t* overlaps,
                            std::int8_t* state, i64* flips);
void hopfield_dense_sweep(const PatternKernels&, const Patterns&, const Gap&, const Sweep&, i64 N,
                          std::int32_t* overlaps, std::int8_t* state, i64* flips);

// The same with weights.
template <class T>
void hopfield_fields(const HopfieldKernels<T>&, const T* weights, i64 n, i64 N, const std::int8_t* state,
                     double* fields);
template <class T>
void hopfield_sweep(const HopfieldKernels<T>&, const T* weights, const Sweep&, i64 N, double* fields,
                    std::int8_t* state, i64* flips);

}  // namespace pyrnn
