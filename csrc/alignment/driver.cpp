// Rows are dealt out to threads. The gradients of a Crf's weights are added up in parts, of which there are as many
// whatever the number of threads.
#include "alignment/driver.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/threads.hpp"

namespace pyrnn {

namespace {

constexpr i64 most_parts = 16;

// f(work, task) for each task, with `bytes` of memory for each thread; `work` is in multiply-adds. A call that its user
// ends throws Interrupted.
template <class F> void in_tasks_with_memory(i64 work, i64 tasks, i64 bytes, F f) {
  Team team(work, int(std::min<i64>(threads_worth(work), std::max<i64>(tasks, 1))));
  std::vector<Buffer<char>> memory;
  for (int part = 0; part < team.size(); ++part) memory.emplace_back(bytes);
  Watch watch;
  in_tasks(team, tasks, [&](int part, i64 task) {
    if (part == 0) watch.poll();
    if (!watch.ended()) f(memory[std::size_t(part)].get(), task);
    return false;
  });
  watch.check();
}

i64 longest(const i64* lengths, i64 N) { return N ? *std::max_element(lengths, lengths + N) : 0; }

template <class T> i64 work_of(const Crf<T>& c) { return c.steps * c.N * (3 * c.V + 60) * c.V; }

}  // namespace

template <class T> struct HeldCrfWeights {
  HeldCrfWeights(const AlignmentKernels<T>& k, const Crf<T>& c, void (*fill)(const Crf<T>&, CrfWeights&))
      : width(round_up(c.V, k.lanes)), memory(bytes_of([&](Carver& carver) { CrfWeights(carver, c.V, width); })) {
    Carver carver(memory.get());
    values = std::make_unique<CrfWeights>(carver, c.V, width);
    fill(c, *values);
  }
  i64 width;
  Buffer<char> memory;
  std::unique_ptr<CrfWeights> values;
};

template <class T> void ctc(const AlignmentKernels<T>& k, const Ctc<T>& c, double* losses, const Steps<T>& dlogits) {
  const i64 ids = longest(c.target_lengths, c.N), steps = longest(c.lengths, c.N);
  in_tasks_with_memory(steps * c.N * (200 * (ids + 1) + 130 * c.V + 2000), c.N, k.ctc_bytes(steps, c.V, ids),
                       [&](char* memory, i64 n) { k.ctc(c, n, memory, losses + n, dlogits); });
}

template <class T>
void crf(const AlignmentKernels<T>& k, const Crf<T>& c, double* losses, const Steps<T>& dscores, T* dtransitions,
         T* dstart, T* dend) {
  const HeldCrfWeights<T> weights(k, c, k.crf_weights);
  const i64 parts = std::min(c.N, most_parts);
  std::vector<CrfGradients> gradients;
  const Buffer<char> sums = laid_out([&](Carver& carver) {
    gradients.clear();
    for (i64 part = 0; part < parts; ++part) gradients.emplace_back(carver, c.V, weights.width);
  });
  in_tasks_with_memory(work_of(c), parts, k.crf_bytes(longest(c.lengths, c.N), c.V), [&](char* memory, i64 part) {
    CrfGradients& own = gradients[std::size_t(part)];
    for (double* a : {own.products, own.others}) std::fill_n(a, c.V * weights.width, 0.0);
    for (double* a : {own.start, own.end}) std::fill_n(a, weights.width, 0.0);
    const Slice rows(c.N, part, parts);
    for (i64 n = rows.begin; n < rows.end; ++n) k.crf(c, *weights.values, n, memory, losses + n, dscores, &own);
  });
  k.crf_gradients(*weights.values, gradients.data(), parts, std::max<i64>(c.N, 1), dtransitions, dstart, dend);
}

template <class T>
void crf_marginals(const AlignmentKernels<T>& k, const Crf<T>& c, double* log_partitions, const Steps<T>& marginals) {
  const HeldCrfWeights<T> weights(k, c, k.crf_weights);
  in_tasks_with_memory(work_of(c), c.N, k.crf_bytes(longest(c.lengths, c.N), c.V), [&](char* memory, i64 n) {
    k.crf(c, *weights.values, n, memory, log_partitions + n, marginals, nullptr);
  });
}

template <class T>
void crf_decode(const AlignmentKernels<T>& k, const Crf<T>& c, double* best, const Steps<i64>& tags) {
  const HeldCrfWeights<T> weights(k, c, k.crf_logarithms);
  in_tasks_with_memory(c.steps * c.N * 2 * c.V * c.V, c.N, k.crf_decode_bytes(longest(c.lengths, c.N), c.V),
                       [&](char* memory, i64 n) { k.crf_decode(c, *weights.values, n, memory, tags, best + n); });
}

#define PYRNN_INSTANTIATE(T)                                                                          \
  template void ctc(const AlignmentKernels<T>&, const Ctc<T>&, double*, const Steps<T>&);             \
  template void crf(const AlignmentKernels<T>&, const Crf<T>&, double*, const Steps<T>&, T*, T*, T*); \
  template void crf_marginals(const AlignmentKernels<T>&, const Crf<T>&, double*, const Steps<T>&);   \
  template void crf_decode(const AlignmentKernels<T>&, const Crf<T>&, double*, const Steps<i64>&);
PYRNN_INSTANTIATE(float)
PYRNN_INSTANTIATE(double)
#undef PYRNN_INSTANTIATE

}  // namespace pyrnn
