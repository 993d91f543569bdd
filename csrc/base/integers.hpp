// The integer that counts everything here: elements, rows, steps, bytes. And what kernels of all instruction sets
// share.
#pragma once

#include <cstdint>

// For functions outside of the kernels' own namespaces that kernels call: of one that several object files hold the
// linker takes any, be it compiled for a larger instruction set than this CPU has.
#define PYRNN_INLINE inline __attribute__((always_inline))

namespace pyrnn {

using i64 = std::int64_t;

}  // namespace pyrnn
