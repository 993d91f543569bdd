// The tasks of attention (contract.hpp), compiled per instruction set: rows.hpp says what a task's queries see,
// products.hpp has the products of blocks, forward.hpp and backward.hpp put them together.
//
// Forward, for a block of queries and each block of keys: scores = scale q K^T with the keys in panels, masks and the
// softmax's exponentials in place, acc += exponentials V with the values' rows as panels. Never more scores than
// query_block x key_block. Backward, for a block of keys and each block of queries: the same scores again, from them
// the weights and the scores' gradients, and the three products with those.
//
// Scores are kept times log2(e), a factor that queries take with their scale: their exponentials are powers of 2.
//
// Masked pairs: their score is -inf, hence their exponential 0. That is enough where all numbers of a block are finite.
// Where they are not (0 * NaN), the block is done pair by pair and without the masked ones ("guarded"), in the same
// order: rows that are finite get the same bits.
#pragma once

#include "attention/backward.hpp"
#include "attention/contract.hpp"
#include "attention/forward.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T>
inline constexpr AttentionKernels<T> attention_kernels{lanes<T>,
                                                       AttentionForward<T>::packed_size,
                                                       AttentionForward<T>::pack,
                                                       AttentionForward<T>::scratch_size,
                                                       AttentionForward<T>::attend,
                                                       AttentionForward<T>::merge,
                                                       AttentionBackward<T>::delta,
                                                       AttentionBackward<T>::scratch_size,
                                                       AttentionBackward<T>::grads};

}  // namespace pyrnn::PYRNN_ISA
