// Deals the tasks of attention to threads: blocks of queries forward, blocks of keys backward. Of additive attention:
// blocks of queries forward, and backward columns of queries, keys and values, whose sums then run in one order.
#include <algorithm>
#include <cstring>
#include <vector>

#include "attention/contract.hpp"
#include "base/memory.hpp"
#include "base/threads.hpp"

namespace pyrnn {

namespace {

// The packed keys and values of a head: up to so many bytes stay in the own cache of the core that packed them.
constexpr i64 own_cache_bytes = i64(1) << 20;
// Up to so many bytes are packed again in less time than it takes to move them to another core.
constexpr i64 small_bytes = i64(64) << 10;
// So many bytes of packed heads lie in memory at a time, and one head whatever it takes.
constexpr i64 memory_bytes = i64(16) << 20;

// Smaller blocks of queries read keys and values too often, but the least are better than a thread without any.
constexpr i64 few_queries = 48, least_queries = 12;
// Of so many tasks for each thread the last ones leave little time in which threads wait.
constexpr i64 tasks_per_thread = 8;

i64 blocks_of(i64 n, i64 block) { return (n + block - 1) / block; }

// The rows of a head in blocks: of one query head, or of all queries of several where they are few. Alike in size, so
// that none is left with a handful of rows. Large blocks read keys and values less often; but every thread needs some
// of them, and where rows see different keys a block works on all that one of its rows sees.
template <class T> std::vector<QueryBlock> query_blocks_of(const Attention<T>& a, int threads) {
  std::vector<QueryBlock> blocks;
  if (a.S == 0) return blocks;
  const bool rows_see_the_same = a.left < 0 && a.right < 0;
  const i64 rows_per_thread = a.B * a.Hk * a.G * a.S / threads,
            least = std::clamp(rows_per_thread, least_queries, few_queries),
            largest = rows_see_the_same ? std::clamp(rows_per_thread / tasks_per_thread, least, query_block) : least;
  const i64 heads = std::clamp<i64>(largest / a.S, 1, std::max<i64>(a.G, 1)), cuts = blocks_of(a.S, largest);
  const i64 rows = std::min(largest, blocks_of(blocks_of(a.S, cuts), 6) * 6);  // whole tiles of rows
  for (i64 g = 0; g < a.G; g += heads)
    for (i64 i = 0; i < a.S; i += rows) blocks.push_back({g, std::min(g + heads, a.G), i, std::min(i + rows, a.S)});
  return blocks;
}

// Multiply-adds of products over `features`, for the pairs of queries and keys that bounds leave; reading a key takes
// as long as some of them.
template <class T> i64 work_of(const Attention<T>& a, i64 features) {
  const i64 seen = a.left < 0 || a.right < 0 ? a.K : std::min(a.K, a.left + a.right + 1);
  const double rows = double(a.G) * double(a.S), reading = rows > 0 ? 6 : 0;
  return i64(std::min(double(a.B) * double(a.Hk) * (rows + reading) * double(seen) * double(features), 1e18));
}

// f(part, task) for each task of a call that its user may stop.
template <class F> void in_watched_tasks(Team& team, i64 tasks, Watch& watch, F f) {
  in_tasks(team, tasks, [&](int part, i64 task) {
    if (part == 0) watch.poll();
    if (!watch.ended()) f(part, task);
    return false;
  });
  watch.check();
}

}  // namespace

template <class T> void attention_forward(const AttentionKernels<T>& k, const Attention<T>& a, T* out, T* stats) {
  const i64 heads = a.B * a.Hk, key_blocks = blocks_of(a.K, key_block), runs = blocks_of(a.K, key_run);
  Team team(work_of(a, a.E + a.Ev));
  const std::vector<QueryBlock> blocks = query_blocks_of(a, team.size());
  const i64 query_blocks = i64(blocks.size());
  const i64 scratch_size = k.scratch_size(a);
  const Buffer<T> scratch(scratch_size * team.size());
  Watch watch;

  // Few rows and many keys: threads share the runs of keys.
  if (team.size() > 1 && runs > 1 && heads * query_blocks < 2 * team.size()) {
    const i64 row_size = blocks_of(a.Ev, k.lanes) * k.lanes + 2;
    const Buffer<T> partials(heads * a.G * a.S * runs * row_size);
    const auto partials_of = [&](i64 head, const QueryBlock& block) {
      return partials.get() + ((head * a.G + block.g0) * a.S + block.i0) * runs * row_size;
    };
    in_watched_tasks(team, heads * query_blocks * runs, watch, [&](int part, i64 task) {
      const i64 head = task / runs / query_blocks, number = task % runs;
      const QueryBlock& block = blocks[std::size_t(task / runs % query_blocks)];
      k.attend(a, head, block, number, number + 1, nullptr, scratch.get() + part * scratch_size,
               partials_of(head, block) + number * block.rows() * row_size, out, stats);
    });
    const auto merge = [&](const Slice& mine) {
      for (i64 i = mine.begin; i < mine.end; ++i) {
        const QueryBlock& block = blocks[std::size_t(i % query_blocks)];
        k.merge(a, i / query_blocks, block, runs, partials_of(i / query_blocks, block), out, stats);
      }
    };
    if (partials.size() < work_per_thread)
      merge(Slice(heads * query_blocks, 0, 1));
    else
      in_slices(team, heads * query_blocks, merge);
    return;
  }

  // Keys that several blocks of rows look at are packed once. One thread does all of a head where heads are very small,
  // or small and so many for each thread that at most a sixteenth of the time is idle.
  const bool shared = query_blocks > 1 && key_blocks > 0,
             even = 16 * blocks_of(heads, team.size()) * team.size() <= 17 * heads;
  const i64 packed_size = shared ? k.packed_size(a) : 0, packed_bytes = packed_size * i64(sizeof(T));
  const i64 small = even ? own_cache_bytes : heads >= 2 * team.size() ? small_bytes : 0;
  if (shared && packed_bytes <= small) {
    const Buffer<T> packed(packed_size * team.size());
    in_watched_tasks(team, heads, watch, [&](int part, i64 head) {
      T* own = packed.get() + part * packed_size;
      for (i64 block = 0; block < key_blocks; ++block) k.pack(a, head, block, own);
      for (const QueryBlock& rows : blocks)
        k.attend(a, head, rows, 0, runs, own, scratch.get() + part * scratch_size, nullptr, out, stats);
    });
    return;
  }
  // Else all threads pack, for some heads at a time, and then share the blocks of rows.
  const i64 at_once =
      shared ? std::clamp<i64>(memory_bytes / std::max<i64>(packed_bytes, 1), 1, std::max<i64>(heads, 1)) : heads;
  const Buffer<T> packed(packed_size * at_once);
  for (i64 first = 0; first < heads; first += at_once) {
    const i64 count = std::min(at_once, heads - first);
    if (shared)
      in_watched_tasks(team, count * key_blocks, watch, [&](int, i64 task) {
        k.pack(a, first + task / key_blocks, task % key_blocks, packed.get() + task / key_blocks * packed_size);
      });
    in_watched_tasks(team, count * query_blocks, watch, [&](int part, i64 task) {
      // The last rows first: where attention is causal they see most.
      const i64 head = task / query_blocks, rows = query_blocks - 1 - task % query_blocks;
      k.attend(a, first + head, blocks[std::size_t(rows)], 0, runs,
               shared ? packed.get() + head * packed_size : nullptr, scratch.get() + part * scratch_size, nullptr, out,
               stats);
    });
  }
}

template <class T>
void attention_backward(const AttentionKernels<T>& k, const Attention<T>& a, const T* dout, const T* out,
                        const T* stats, T* dquery, T* dkey, T* dvalue) {
  const i64 heads = a.B * a.Hk, key_blocks = blocks_of(a.K, key_block), rows = heads * a.G * a.S;
  const i64 padded = blocks_of(a.E, k.lanes) * k.lanes;
  Team team(work_of(a, 3 * a.E + 2 * a.Ev));
  const std::vector<QueryBlock> blocks = query_blocks_of(a, team.size());
  const i64 scratch_size = k.grads_scratch_size(a);
  const Buffer<T> scratch(scratch_size * team.size());
  const Buffer<T> own(padded == a.E ? 0 : rows * padded);
  T* sums = padded == a.E ? dquery : own.get();
  const Buffer<T> delta(rows);
  in_parts(team, [&](int part, int parts) {
    const i64 begin = rows * part / parts, end = rows * (part + 1) / parts;
    k.delta(dout, out, a.Ev, begin, end, delta.get());
    if (begin < end && padded) std::memset(sums + begin * padded, 0, std::size_t((end - begin) * padded) * sizeof(T));
  });

  // The order within a head.
  struct HeadOrder final : AccumulationOrder {
    HeadOrder(Progress& progress, i64 key_block_of_all, bool first, i64 work)
        : progress(progress), own(key_block_of_all), work(work), first(first) {}
    void wait(i64 query_block) const override {
      if (!first && progress.wait_or_late(own - 1, query_block + 1, work)) late = true;
    }
    void done(i64 query_block) const override { progress.raise(own, query_block + 1); }
    Progress& progress;
    const i64 own, work;
    const bool first;
    mutable bool late = false;
  };
  const i64 tasks = heads * key_blocks, work = work_of(a, 3 * a.E + 2 * a.Ev) / std::max<i64>(tasks, 1);
  Progress progress(tasks);
  Watch watch;
  const AttentionGrads<T> grads{dout, out, stats, delta.get(), sums, dkey, dvalue};
  // Tasks are blocks of keys, those of one head one after the other; of as many heads by turns as there are threads, so
  // that few wait for each other.
  const i64 by_turns = team.size();
  in_tasks(team, tasks, [&](int part, i64 task) {
    if (part == 0) watch.poll();
    const i64 first = task / (by_turns * key_blocks) * by_turns, turns = std::min(by_turns, heads - first),
              in_turns = task - first * key_blocks, head = first + in_turns % turns, block = in_turns / turns;
    const HeadOrder order(progress, head * key_blocks + block, block == 0, work);
    if (watch.ended())
      order.done(i64(blocks.size()));
    else
      k.grads(a, grads, head, block, blocks.data(), i64(blocks.size()), scratch.get() + part * scratch_size, order);
    return order.late;
  });
  watch.check();
  in_parts(team, [&](int part, int parts) {
    for (i64 r = rows * part / parts; r < rows * (part + 1) / parts; ++r)
      for (i64 e = 0; e < a.E; ++e) dquery[r * a.E + e] = sums[r * padded + e] * a.scale;
  });
}

namespace {

// What additive attention does, in multiply-adds: a tanh takes as long as some of them.
template <class T> i64 work_of(const AdditiveAttention<T>& a) {
  constexpr i64 of_tanh = 20;
  return i64(std::min(double(a.N) * double(a.S) * double(a.K) * double(of_tanh * a.H + a.Ev), 1e18));
}

// f(scratch, n, i0, i1) for all queries, some at a time.
template <class T, class F>
void for_queries(Team& team, const AdditiveAttention<T>& a, const Buffer<T>& scratch, Watch& watch, F f) {
  const i64 rows = std::clamp<i64>(a.N * a.S / (tasks_per_thread * team.size()), 1, additive_rows),
            blocks = blocks_of(a.S, rows), size = scratch.size() / team.size();
  in_watched_tasks(team, a.N * blocks, watch, [&](int part, i64 task) {
    const i64 i0 = task % blocks * rows;
    f(scratch.get() + part * size, task / blocks, i0, std::min(i0 + rows, a.S));
  });
}

}  // namespace

template <class T>
void additive_attention_forward(const AdditiveKernels<T>& k, const AdditiveAttention<T>& a, T* out, T* weights) {
  Team team(work_of(a));
  const Buffer<T> scratch(k.scratch_size(a) * team.size());
  Watch watch;
  for_queries(team, a, scratch, watch,
              [&](T* own, i64 n, i64 i0, i64 i1) { k.attend(a, n, i0, i1, own, out, weights); });
}

template <class T>
void additive_attention_backward(const AdditiveKernels<T>& k, const AdditiveAttention<T>& a, const T* dout,
                                 const T* weights, T* dquery, T* dkey, T* dvalue, T* dscore) {
  const i64 Kp = blocks_of(a.K, k.lanes) * k.lanes, groups = blocks_of(a.H, k.lanes), Hp = groups * k.lanes;
  Team team(work_of(a));
  const Buffer<T> scratch(k.scratch_size(a) * team.size()), dscores(a.N * a.S * Kp), dscore_of(a.N * Hp);
  const AdditiveGrads<T> d{dout, weights, dscores.get(), dquery, dkey, dvalue, dscore_of.get()};
  Watch watch;
  for_queries(team, a, scratch, watch, [&](T* own, i64 n, i64 i0, i64 i1) { k.score_grads(a, d, n, i0, i1, own); });
  const i64 tasks = groups + blocks_of(a.Ev, k.value_columns), size = scratch.size() / team.size();
  in_watched_tasks(team, a.N * tasks, watch, [&](int part, i64 task) {
    const i64 n = task / tasks, column = task % tasks;
    T* const own = scratch.get() + part * size;
    if (column < groups)
      k.feature_grads(a, d, n, column, own);
    else
      k.value_grads(a, d, n, column - groups, own);
  });
  for (i64 n = 0; n < a.N; ++n)
    for (i64 h = 0; h < a.H; ++h) dscore[h] += dscore_of.get()[n * Hp + h];
}

#define PYRNN_INSTANTIATE(T)                                                                                          \
  template void attention_forward(const AttentionKernels<T>&, const Attention<T>&, T*, T*);                           \
  template void attention_backward(const AttentionKernels<T>&, const Attention<T>&, const T*, const T*, const T*, T*, \
                                   T*, T*);                                                                           \
  template void additive_attention_forward(const AdditiveKernels<T>&, const AdditiveAttention<T>&, T*, T*);           \
  template void additive_attention_backward(const AdditiveKernels<T>&, const AdditiveAttention<T>&, const T*,         \
                                            const T*, T*, T*, T*, T*);
PYRNN_INSTANTIATE(float)
PYRNN_INSTANTIATE(double)
#undef PYRNN_INSTANTIATE

}  // namespace pyrnn
