// What each thread of a way back works with: the driver counts its bytes, the kernels (gradients.hpp) take it.
#pragma once

#include "base/memory.hpp"

namespace pyrnn {

// For the weight gradients of a block of n rows.
template <class T> struct BlockScratch {
  // Of each row: where the vectors begin that its gradients are multiplied by, its place, its row of a table.
  struct Rows {
    const T **inputs, **hiddens, **inners;  // [n]
    i64 *places, *ids;                      // [n]
  };
  PYRNN_INLINE BlockScratch(Carver from, i64 n, i64 size)
      : panel(from.take<T>(n * size)),
        rows{from.take<const T*>(n), from.take<const T*>(n), from.take<const T*>(n), from.take<i64>(n),
             from.take<i64>(n)},
        bytes(from.bytes()) {}
  T* panel;  // [n,size] the gradients of some unit groups side by side
  Rows rows;
  i64 bytes;
};

// For the gradients of a table of n rows.
template <class T> struct TableScratch {
  PYRNN_INLINE TableScratch(Carver from, i64 n) : rows(from.take<const T*>(n)), bytes(from.bytes()) {}
  const T** rows;  // [n] where they begin
  i64 bytes;
};

}  // namespace pyrnn
