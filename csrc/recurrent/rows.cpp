// Which rows are alive at which step, and where rows lie: see Rows and Places in contract.hpp.
#include <algorithm>
#include <numeric>

#include "recurrent/contract.hpp"

namespace pyrnn {

Rows::Rows(i64 T_, i64 N_, const i64* lengths, const std::uint8_t* reset, i64 reset_step, i64 reset_row, bool reverse_)
    : T(T_), N(N_), order(std::size_t(N_)), length(std::size_t(N_), T_), reverse(reverse_) {
  std::iota(order.begin(), order.end(), i64(0));
  if (lengths) {
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) { return lengths[a] > lengths[b]; });
    for (i64 j = 0; j < N; ++j) length[j] = lengths[order[j]];
  }
  steps = N ? length[0] : 0;
  alive.resize(std::size_t(steps));
  first.assign(std::size_t(steps) + 1, 0);
  for (i64 s = 0, n = N; s < steps; ++s) {
    while (length[n - 1] <= s) --n;
    alive[s] = n;
    first[s + 1] = first[s] + n;
  }
  if (!reset) return;
  fresh.resize(std::size_t(first[steps]));
  for (i64 s = 0; s < steps; ++s)
    for (i64 j = 0; j < alive[s]; ++j) {
      // In reverse a step comes from the one after it, so that one's mark is what cuts them.
      const i64 marked = reverse ? time(s, j) + 1 : s;
      const bool cut = reverse ? s > 0 && reset[marked * reset_step + order[j] * reset_row] != 0
                               : reset[marked * reset_step + order[j] * reset_row] != 0;
      fresh[first[s] + j] = cut;
    }
}

Places::Places(const Rows& rows, int groups, i64 row_block, i64 row_step, i64 rows_per_run, i64 slots, i64 gap)
    : rows_(std::size_t(rows.N)) {
  for (i64 group = 0; group < groups; ++group) {
    if (group) count_ += gap;
    const i64 begin = group * row_block, end = row_step == 1 ? std::min(begin + row_block, rows.N) : rows.N;
    for (i64 low = begin; low < end; low += rows_per_run * row_step) {
      const i64 n = std::min(rows_per_run, ceil_div(end - low, row_step));
      for (i64 j = 0; j < n; ++j) rows_[std::size_t(low + j * row_step)] = {count_ + j, n};
      count_ += n * std::clamp<i64>(rows.length[low], 1, slots);
    }
  }
}

}  // namespace pyrnn
