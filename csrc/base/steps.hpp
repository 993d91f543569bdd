// How sequences lie in a caller's memory.
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

// [T, N, features] with any distance between steps and rows; features lie side by side.
template <class T> struct Steps {
  T* data = nullptr;
  i64 step = 0, row = 0;
  PYRNN_INLINE T* at(i64 t, i64 n) const { return data + t * step + n * row; }
};

}  // namespace pyrnn
