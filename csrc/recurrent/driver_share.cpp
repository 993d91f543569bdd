// The policy behind driver_share.hpp: what a step takes, by the numbers of base/costs.hpp.
#include "recurrent/driver_share.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

namespace pyrnn {

namespace {

// Multiply-adds of a run of a few rows: with fewer, a second thread that assists is not worth waking.
constexpr i64 work_to_assist = 2'000'000;
// What is more complicated must be better by this much.
constexpr double margin = 0.94;

// The most tasks of an assisted run, in either direction.
template <class T> i64 tasks_of(const Run<T>& run) {
  const i64 steps = run.end - run.begin;
  return std::max(steps / (run.chunk / Assistance::pieces) + 1, Assistance::parts * (steps / run.block + 2));
}

}  // namespace

template <class T> i64 step_work(const Layer<T>& l) {
  const auto of = [](const PackedMatrix<T>& matrix, i64 numbers) {
    return matrix.form ? numbers * matrix.form->bits / i64(8 * sizeof(T)) : numbers;
  };
  return of(l.packed.ih, l.Hp * l.size.I * l.cell.x_vectors) + of(l.packed.hh, l.Hp * l.size.P * l.cell.h_vectors) +
         of(l.packed.inner, l.cell.inner ? l.Pp * l.size.H : 0);
}

// The inputs of a chunk, the outputs or the inner vectors of a step; and the gates' gradients of all of these.
template <class T> i64 most_prepared(const Layer<T>& l, const Transposed<T>& back, i64 rows, i64 chunk) {
  const Packed<T>& weights = l.packed;
  return rows * std::max({chunk * prepared_size(weights.ih.form, l.size.I), prepared_size(weights.hh.form, l.size.P),
                          prepared_size(weights.inner.form, l.size.H),
                          chunk * prepared_size(back.ih.form, l.Hp * l.cell.x_vectors),
                          prepared_size(back.hh.form, l.Hp * l.cell.h_vectors), prepared_size(back.inner.form, l.Pp)});
}

i64 chunk_steps(const Rows& rows) { return std::max<i64>(1, 96 / std::max<i64>(rows.N, 1)); }

// The time that a step of so many rows takes, shared among groups of rows with a team each that shares the units, in
// multiply-adds. A team reads what its members have made of the step before, and meets.
template <class T> struct StepTime {
  explicit StepTime(const Layer<T>& l)
      : weights(step_work(l)),
        units(std::min(l.Hp, l.Pp) / l.cell.lanes),
        outputs(l.Pp),
        meetings(l.cell.h_vectors ? 1 + l.cell.inner + (l.cell.norms > 0) : 0) {}

  double operator()(double rows, int groups, int team) const {
    const double mine = std::ceil(rows / groups), own = double(weights * ceil_div(units, team)) / double(units);
    if (!meetings) return own * mine;
    const double work = own * work_per_weight(mine, i64(own * sizeof(T)));
    if (team == 1) return work;
    return work + double(meetings * work_of_meeting(team, Barrier::fan)) +
           mine * double(outputs) * (1 - 1.0 / team) * work_per_foreign_number;
  }
  const i64 weights, units, outputs, meetings;
};

// Threads split rows where each gets a few tiles of them and the weights of a step stay in its cache, or where the
// weights are so small that reading them for a handful of rows costs less than a meeting; units otherwise, meeting at
// every step; or both: whatever a step takes least time with. Too few rows, whose units are not worth meetings, are
// walked by one thread and assisted by another.
template <class T> void share(Run<T>& run, const Layer<T>& l, int threads) {
  const Rows& rows = *run.rows;
  run.groups = run.team = 1, run.assisted = false;
  run.row_block = std::max<i64>(rows.N, 1), run.row_step = 1;
  if (threads == 1 || rows.steps == 0) return;
  const StepTime<T> time(l);
  const double alive = double(rows.first[rows.steps]) / double(rows.steps);
  double best = time(alive, 1, 1);
  run.assisted = alive <= rows_to_assist && run.chunk >= Assistance::pieces &&
                 time.weights * rows.first[rows.steps] >= work_to_assist;
  if (run.assisted) best /= gain_of_assistance;
  for (int team = 1; team <= std::min<i64>(threads, time.units); ++team) {
    const int groups = int(std::min<i64>(threads / team, rows.N));
    if (const double shared = time(alive, groups, team); shared < margin * best)
      best = shared, run.groups = groups, run.team = team, run.assisted = false;
  }
  if (rows.is_ragged() && run.groups > 1)
    run.row_block = 1, run.row_step = run.groups;
  else
    run.row_block = ceil_div(rows.N, run.groups);
}

// Groups lie a page apart.
template <class T> Places places(const Run<T>& run, const Layer<T>& l, i64 slots) {
  const i64 row = std::min(l.Hp, l.Pp) * i64(sizeof(T));
  // Ragged rows lie in small runs, whatever the threads, so that memory follows the valid steps.
  const i64 rows_per_run = run.rows->is_ragged() ? l.cell.max_rows : run.row_block;
  return Places(*run.rows, run.groups, run.row_block, run.row_step, rows_per_run, slots, ceil_div(4096, row));
}

template <class T>
void on_threads(Team& team, Run<T>& run, const Layer<T>& layer, Watch& watch, void (*kernel)(const Run<T>&, int)) {
  const int threads = run.groups * run.team;
  const i64 step = step_work(layer) * std::max<i64>(run.rows->N, 1) / threads;
  Barrier all(threads, 3 * run.block * step);
  std::vector<std::unique_ptr<Barrier>> barriers;
  std::vector<Barrier*> pointers;
  for (int g = 0; g < run.groups; ++g) {
    barriers.push_back(std::make_unique<Barrier>(run.team, 2 * step * run.groups));
    pointers.push_back(barriers.back().get());
  }
  run.all_barrier = &all;
  run.team_barrier = pointers.data();
  std::optional<Assistance> assistance;
  run.assistance = run.assisted ? &assistance.emplace(tasks_of(run)) : nullptr;
  run.watch = &watch;
  run.prepared_size = most_prepared(layer, run.transposed, run.rows->N, run.chunk);
  const Buffer<T> prepared((threads + run.assisted) * run.prepared_size);
  run.prepared = prepared.get();
  auto job = [&](int member) {
    if (member < threads + run.assisted) kernel(run, member);
  };
  team.run(job);
}

template i64 step_work(const Layer<float>&);
template i64 step_work(const Layer<double>&);
template i64 most_prepared(const Layer<float>&, const Transposed<float>&, i64, i64);
template i64 most_prepared(const Layer<double>&, const Transposed<double>&, i64, i64);
template void share(Run<float>&, const Layer<float>&, int);
template void share(Run<double>&, const Layer<double>&, int);
template Places places(const Run<float>&, const Layer<float>&, i64);
template Places places(const Run<double>&, const Layer<double>&, i64);
template void on_threads(Team&, Run<float>&, const Layer<float>&, Watch&, void (*)(const Run<float>&, int));
template void on_threads(Team&, Run<double>&, const Layer<double>&, Watch&, void (*)(const Run<double>&, int));

}  // namespace pyrnn
