// What each thread of a way back works with: the driver counts its bytes, the kernels (gradients.hpp) take it.
#pragma once

#include "base/memory.hpp"
#include "recurrent/contract.hpp"

namespace pyrnn {

// The numbers that n rows take turned, of a matrix in a form; and their gates, `size` of each, as panels.
template <class T> i64 turned_size(const Form<T>* form, i64 n, i64 columns) {
  return form && form->turn ? columns * form->vector_size(n) : 0;
}
template <class T> i64 words_size(const Form<T>* form, i64 n, i64 size) {
  return form && form->turn ? ceil_div(n, 2) * size : 0;
}

// For the weight gradients of a block of n rows.
template <class T> struct BlockScratch {
  // Of each row: where the vectors begin that its gradients are multiplied by, its place, its row of a table.
  struct Rows {
    const T **inputs, **hiddens, **inners;  // [n]
    i64 *places, *ids;                      // [n]
  };
  struct Turned {
    T *inputs, *hiddens, *inners;
  };
  PYRNN_INLINE BlockScratch(Carver from, i64 n, i64 size, const Packed<T>& weights, const Sizes& sizes)
      : panel(from.take<T>(n * size)),
        rows{from.take<const T*>(n), from.take<const T*>(n), from.take<const T*>(n), from.take<i64>(n),
             from.take<i64>(n)},
        turned{from.take<T>(turned_size(weights.ih.form, n, sizes.I)),
               from.take<T>(turned_size(weights.hh.form, n, sizes.P)),
               from.take<T>(turned_size(weights.inner.form, n, sizes.H))},
        words(from.take<T>(words_size(weights.ih.form, n, size))),
        bytes(from.bytes()) {}
  T* panel;  // [n,size] the gradients of some unit groups side by side
  Rows rows;
  Turned turned;
  T* words;
  i64 bytes;
};

// For the gradients of a table of n rows: where they begin; and where products are of a form, these turned, a few rows'
// gates, the gates of a unit group as panels.
template <class T> struct TableScratch {
  PYRNN_INLINE TableScratch(Carver from, i64 n, const Form<T>* form, i64 columns, i64 gates, i64 size)
      : rows(from.take<const T*>(n)),
        turned(from.take<T>(turned_size(form, n, columns))),
        gates(from.take<T>(gates)),
        words(from.take<T>(words_size(form, n, size))),
        bytes(from.bytes()) {}
  const T** rows;  // [n]
  T *turned, *gates, *words;
  i64 bytes;
};

}  // namespace pyrnn
