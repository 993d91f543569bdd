// Packing of a layer's weights, and a forward run that keeps nothing for a way back: see driver.hpp.
#include "recurrent/driver_run.hpp"

namespace pyrnn {

template <class T>
Layer<T>::Layer(const CellKernels<T>& c, Sizes s, const Weights<const T>& weights)
    : cell(c), size(s), Hp(round_up(s.H, c.lanes)), Pp(round_up(s.P, c.lanes)) {
  memory_ = laid_out([&](Carver& from) { packed = carve(from, cell, size, weights); });
  packed.options = weights.options;
  Team team(rows_of_packing * step_work(*this));
  in_parts(team, [&](int part, int parts) { cell.loop->pack(cell, weights, size, packed, part, parts); });
}

template <class T>
void Layer<T>::forward(const Rows& rows, const Inputs<T>& inputs, States<const T> in, Steps<T> y, States<T> out) const {
  Run<T> run;
  run.cell = &cell, run.rows = &rows, run.size = size, run.weights = packed;
  Team team(run_work(*this, rows));
  run.chunk = chunk_steps(rows), run.end = rows.steps;
  share(run, *this, team.size());
  const Places one = places(run, *this, 1), states = places(run, *this, 2), records = places(run, *this, run.chunk);
  run.one = &one, run.states = &states, run.records = &records;
  const Buffer<char> memory = laid_out([&](Carver& from) {
    for (int k = 0; k < cell.states; ++k) {
      run.before[k] = from.take<T>(one.count() * width(k));
      run.state[k] = from.take<T>(states.count() * width(k));
    }
    run.zeros = from.take<T>(std::max(Hp, Pp));
    run.record = from.take<T>(records.count() * record_row());
    run.record_row = record_row();
    if (cell.inner) run.inner = from.take<T>(one.count() * Hp);
    if (cell.projects) run.projected = from.take<T>(one.count() * Pp);
  });
  for (int k = 0; k < cell.states; ++k)
    gather_state(rows, one, in[k], size.of_state(k), width(k), const_cast<T*>(run.before[k]));
  std::fill_n(const_cast<T*>(run.zeros), std::max(Hp, Pp), T(0));
  run.y = y;
  const Buffer<T> table = take_inputs(run, inputs);
  fill_table(team, run, cell);
  Watch watch;
  on_threads(team, run, *this, watch, cell.loop->forward);
  watch.check();
  final_states(run, *this, out);
}

template class Layer<float>;
template class Layer<double>;

}  // namespace pyrnn
