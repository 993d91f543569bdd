// What a call of attention is: its sizes, arrays and masks, and how it is cut into tasks. The bindings fill it,
// driver.cpp deals the tasks to threads, and the kernel compiled for this CPU (kernel.hpp) does one.
//
// Letters: B batch (all axes before the heads), Hk key heads, G query heads per key head, S queries, K keys, E features
// of queries and keys, Ev of values. A "head" below is one of the B * Hk key heads, with the G * S rows (queries) that
// look at it; a block of rows is a run of queries of one query head, or all queries of several.
//
// Keys are counted in blocks of `key_block` and runs of `key_run`, both from key 0. A row's softmax runs over the
// blocks of a run with a running maximum, and runs are merged in ascending order, whoever worked on them. What a row
// may not see enters as an exact 0 or not at all, so a row's bits depend on nothing but the row and the keys it sees.
#pragma once

#include <cstdint>

#include "base/integers.hpp"

namespace pyrnn {

inline constexpr i64 key_block = 256, key_run = 1024, query_block = 144;

template <class T> struct Attention {
  i64 B = 1, Hk = 1, G = 1, S = 0, K = 0, E = 0, Ev = 0;
  // [B, heads, rows, features], features side by side; where the elements of a batch begin is in `places`.
  const T *query = nullptr, *key = nullptr, *value = nullptr;
  i64 query_head = 0, query_row = 0, key_head = 0, key_row = 0, value_head = 0, value_row = 0;
  // [B, Hq, S, K], at most one of the two; any strides. Nonzero: seen. Added to the scores, where -inf hides.
  const std::uint8_t* seen = nullptr;
  const T* bias = nullptr;
  i64 mask_head = 0, mask_row = 0, mask_key = 0;
  struct Place {
    i64 query, key, value, mask;  // offsets in elements
    i64 low, high;                // query i sees keys i + low .. i + high, both of which may lie far outside
  };
  const Place* places = nullptr;  // [B]
  const i64* lengths = nullptr;   // [B] keys from here on are padding; null: K
  i64 left = -1, right = -1;      // how far a query sees to either side of its own place; -1: no bound
  T scale = 1, softcap = 0;
};

// Queries [i0, i1) of the query heads [g0, g1) of a head: at most query_block rows.
struct QueryBlock {
  i64 g0, g1, i0, i1;
  PYRNN_INLINE i64 rows() const { return (g1 - g0) * (i1 - i0); }
};

// The gradients' call: `out` and `stats` as forward left them, all C-ordered.
template <class T> struct AttentionGrads {
  const T *dout, *out;  // [B, Hq, S, Ev]
  const T* stats;       // [B, Hq, S, 2]
  const T* delta;       // [B, Hq, S], dout . out
  T* dquery;            // [B, Hq, S, padded E], added to; to be multiplied by the scale at the end
  T *dkey, *dvalue;     // [B, Hk, K, E], [B, Hk, K, Ev], written
};

// Blocks of keys add to the gradients of the same block of queries in ascending order, on whatever threads they are:
// one waits until the block of keys before it has added its part, and says when it has added its own.
struct AccumulationOrder {
  virtual void wait(i64 query_block) const = 0;
  virtual void done(i64 query_block) const = 0;

 protected:
  ~AccumulationOrder() = default;
};

template <class T> struct AttentionKernels {
  int lanes;
  // Packs block `block` of a head's keys, and copies its values where they lie badly.
  i64 (*packed_size)(const Attention<T>&);  // of a head
  void (*pack)(const Attention<T>&, i64 head, i64 block, T* packed);
  i64 (*scratch_size)(const Attention<T>&);  // of `attend`
  // One block of rows over the keys of the runs [run0, run1). packed: of this head, or null (then packed on the way).
  // Leaves for every row its sums [Ev padded], largest score and sum of exponentials in `partial`, [rows, Ev padded +
  // 2], or with partial null the results in out [B, Hq, S, Ev] and stats [B, Hq, S, 2].
  void (*attend)(const Attention<T>&, i64 head, QueryBlock, i64 run0, i64 run1, const T* packed, T* scratch, T* partial,
                 T* out, T* stats);
  // Merges the partial results of `runs` runs, `partials` [runs, rows, Ev padded + 2], into the first, and finishes.
  void (*merge)(const Attention<T>&, i64 head, QueryBlock, i64 runs, T* partials, T* out, T* stats);
  // delta[r] = dout[r] . out[r] for rows [begin, end) of features Ev, in the order in which dout . value is summed:
  // where a row sees a single key, the difference of the two is exactly 0.
  void (*delta)(const T* dout, const T* out, i64 Ev, i64 begin, i64 end, T* delta);
  i64 (*grads_scratch_size)(const Attention<T>&);
  // The gradients through one block of keys: of its keys and values, and what it adds to those of the queries. Before
  // it adds to block of queries r it calls order.wait(r), afterwards order.done(r).
  void (*grads)(const Attention<T>&, const AttentionGrads<T>&, i64 head, i64 block, const QueryBlock* query_blocks,
                i64 blocks, T* scratch, const AccumulationOrder& order);
};

// out [B, Hq, S, Ev], stats [B, Hq, S, 2]: each row's largest score times log2(e) and sum of exponentials, 0 and 0
// where it sees nothing.
template <class T> void attention_forward(const AttentionKernels<T>&, const Attention<T>&, T* out, T* stats);

// dquery [B, Hq, S, E], dkey [B, Hk, K, E], dvalue [B, Hk, K, Ev], written.
template <class T>
void attention_backward(const AttentionKernels<T>&, const Attention<T>&, const T* dout, const T* out, const T* stats,
                        T* dquery, T* dkey, T* dvalue);

// ---- additive attention: scores are score . tanh(query + key)

inline constexpr i64 additive_rows = 32;  // queries of a task at most

template <class T> struct AdditiveAttention {
  i64 N = 0, S = 0, K = 0, H = 0, Ev = 0;
  const T *query = nullptr, *key = nullptr, *value = nullptr;  // [N, S, H], [N, K, H], [N, K, Ev], C-ordered
  const T* score = nullptr;                                    // [H]
  const i64* lengths = nullptr;                                // [N] keys from here on are padding; null: K
  PYRNN_INLINE i64 length(i64 n) const { return lengths ? lengths[n] : K; }
};

template <class T> struct AdditiveGrads {
  const T *dout, *weights;    // [N, S, Ev], [N, S, K] as forward left them
  T* dscores;                 // [N, S, padded K], work memory
  T *dquery, *dkey, *dvalue;  // [N, S, H], [N, K, H], [N, K, Ev], written
  T* dscore;                  // [N, padded H], written; to be added up
};

template <class T> struct AdditiveKernels {
  int lanes;
  i64 value_columns;                                 // of one task of value_grads
  i64 (*scratch_size)(const AdditiveAttention<T>&);  // of every task
  // Weights and results of the queries [i0, i1) of n.
  void (*attend)(const AdditiveAttention<T>&, i64 n, i64 i0, i64 i1, T* scratch, T* out, T* weights);
  // dscores of the same queries; what the other two read.
  void (*score_grads)(const AdditiveAttention<T>&, const AdditiveGrads<T>&, i64 n, i64 i0, i64 i1, T* scratch);
  // dquery, dkey and dscore of a register of features.
  void (*feature_grads)(const AdditiveAttention<T>&, const AdditiveGrads<T>&, i64 n, i64 group, T* scratch);
  // dvalue of some columns.
  void (*value_grads)(const AdditiveAttention<T>&, const AdditiveGrads<T>&, i64 n, i64 part, T* scratch);
};

// out [N, S, Ev], weights [N, S, K], written.
template <class T>
void additive_attention_forward(const AdditiveKernels<T>&, const AdditiveAttention<T>&, T* out, T* weights);

// dquery, dkey and dvalue written, dscore [H] added to.
template <class T>
void additive_attention_backward(const AdditiveKernels<T>&, const AdditiveAttention<T>&, const T* dout,
                                 const T* weights, T* dquery, T* dkey, T* dvalue, T* dscore);

}  // namespace pyrnn
