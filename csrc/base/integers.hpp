// The integer that counts everything here: elements, rows, steps, bytes; its roundings and shares. And what kernels of
// all instruction sets share.
#pragma once

#include <cstdint>

// For functions outside of the kernels' own namespaces that kernels call: of one that several object files hold the
// linker takes any, be it compiled for a larger instruction set than this CPU has.
#define PYRNN_INLINE inline __attribute__((always_inline))

namespace pyrnn {

using i64 = std::int64_t;

// n / by and n, rounded up to the next integer and to the next multiple.
PYRNN_INLINE constexpr i64 ceil_div(i64 n, i64 by) { return (n + by - 1) / by; }
PYRNN_INLINE constexpr i64 round_up(i64 n, i64 to) { return ceil_div(n, to) * to; }

// What one of `parts` gets of `count` things that lie side by side, all of them as evenly as may be.
struct Slice {
  PYRNN_INLINE Slice(i64 count, i64 part, i64 parts) : begin(count * part / parts), end(count * (part + 1) / parts) {}
  PYRNN_INLINE i64 size() const { return end - begin; }
  i64 begin, end;
};

}  // namespace pyrnn
