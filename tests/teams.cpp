// Teams of any size, counted: the sources that share work and their kernels, with counters. Compiled by
// tests/test_teams.py, bench/teams.py and .ci/sanitize. Nobody is late here (PYRNN_WAKE=patient), however many threads
// a CPU has. Prints a line of JSON for each case and size of a team.
#include <atomic>

namespace counted {
inline std::atomic<long> looks{0}, meetings{0}, orders{0};
}
#define PYRNN_COUNT(what) (counted::what.fetch_add(1, std::memory_order_relaxed))
#define PYRNN_ISA here

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "attention/driver.cpp"
#include "attention/kernel.hpp"
#include "base/cpus.cpp"
#include "base/memory.cpp"
#include "base/system_posix.cpp"
#include "base/threads.cpp"
#include "linear/driver.cpp"
#include "linear/kernel.hpp"
#include "recurrent/cells/lstm.hpp"
#include "recurrent/driver_layer.cpp"
#include "recurrent/driver_recording.cpp"
#include "recurrent/driver_share.cpp"
#include "recurrent/equations.hpp"
#include "recurrent/rows.cpp"

using namespace pyrnn;

namespace {

constexpr int L = here::lanes<float>;

// ---- what each thread has done

struct Share {
  long work = 0, bytes = 0, packed = 0;  // multiply-adds; read by them; packed
};
std::mutex lock;
std::map<std::thread::id, Share> shares;

void note(i64 work, i64 bytes, i64 packed = 0) {
  const std::lock_guard<std::mutex> hold(lock);
  Share& mine = shares[std::this_thread::get_id()];
  mine.work += work, mine.bytes += bytes, mine.packed += packed;
}

void begin(int threads) {
  set_num_threads(threads);
  shares.clear();
  counted::looks = counted::meetings = counted::orders = 0;
}

// Of all bits of some results.
std::size_t hash_of(std::initializer_list<std::vector<float>> results) {
  std::string bytes;
  for (const std::vector<float>& numbers : results)
    bytes.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float));
  return std::hash<std::string>()(bytes);
}

std::vector<float> some(i64 count, float scale = 1) {
  std::vector<float> numbers(std::size_t(count), 0.f);
  for (i64 i = 0; i < count; ++i) numbers[std::size_t(i)] = scale * float(i * 7919 % 1009 - 504) / 504;
  return numbers;
}

void end(const std::string& name, int threads, std::size_t hash, const std::string& more = "") {
  long most = 0, least = 1L << 60, work = 0, bytes = 0, packed = 0, packs = 0, busy = 0;
  for (const auto& [id, share] : shares) {
    work += share.work, bytes = std::max(bytes, share.bytes), packs += share.packed;
    packed = std::max(packed, share.packed), most = std::max(most, share.work);
    if (share.work) least = std::min(least, share.work), ++busy;
  }
  std::printf(
      "{\"case\": \"%s\", \"threads\": %d, \"busy\": %ld, \"work\": %ld, \"most\": %ld, \"least\": %ld, \"bytes\": "
      "%ld, \"packs\": %ld, \"most_packed\": %ld, \"meetings\": %ld, \"looks\": %ld, \"orders\": %ld, \"hash\": "
      "\"%zx\"%s}\n",
      name.c_str(), threads, busy, work, most, least, bytes, packs, packed, counted::meetings.load(),
      counted::looks.load(), counted::orders.load(), hash, more.c_str());
}

// ---- recurrent layers: an LSTM's time loop

const TimeLoopKernels<float>& loop = here::TimeLoop<float>::kernels;

// What a thread is to do in each step.
template <bool back> void walk(const Run<float>& run, int thread) {
  const here::Part<float> part(run, thread);
  const i64 weights = part.units.size() * L * 4 * (part.I + part.P);
  i64 rows = 0;
  for (i64 s = run.begin; s < run.end; ++s) rows += part.alive(s);
  if (thread < part.threads) note(rows * weights * (1 + back), (run.end - run.begin) * weights * 4);
  (back ? loop.backward : loop.forward)(run, thread);
}

void pack(const CellKernels<float>& c, const Weights<const float>& w, const Sizes& size, const Packed<float>& to,
          int part, int parts) {
  note(0, 0, Slice(here::groups_of<float>(size.H), part, parts).size() * L * 4 * (size.I + size.P) * 4);
  loop.pack(c, w, size, to, part, parts);
}

void lstm(int threads, i64 T, i64 N, i64 size) {
  TimeLoopKernels<float> noted = loop;
  noted.forward = walk<false>, noted.backward = walk<true>, noted.pack = pack;
  here::Compiled<float> cell = here::Equations<float, here::Lstm<false, false>>::compiled;
  cell.loop = &noted;
  const std::vector<float> weights = some(8 * size * size, 0.1f), x = some(T * N * size);
  std::vector<float> y(x), dx(x);
  Weights<const float> w;
  w.ih = weights.data(), w.hh = weights.data() + 4 * size * size;
  const auto rows = std::make_shared<const Rows>(T, N, nullptr, nullptr, 0, 0, false);
  const Inputs<float> inputs{{x.data(), N * size, size}, {}, 0};
  const std::string name = "lstm " + std::to_string(T) + "," + std::to_string(N) + "," + std::to_string(size);
  begin(threads);
  Layer<float> layer(cell, {size, size, size}, w);
  layer.forward(*rows, inputs, {}, {y.data(), N * size, size}, {});
  Run<float> run;
  run.cell = &cell, run.rows = rows.get(), run.size = layer.size, run.weights = layer.packed;
  run.chunk = chunk_steps(*rows), run.end = T;
  share(run, layer, std::min(threads, threads_worth(run_work(layer, *rows))));
  char more[200];
  const StepTime<float> time(layer);
  const double alone = time(double(N), 1, 1), shared = time(double(N), run.groups, run.team);
  std::snprintf(more, sizeof more, ", \"groups\": %d, \"team\": %d, \"assisted\": %d, \"gain\": %.2f", run.groups,
                run.team, int(run.assisted), run.assisted ? gain_of_assistance : alone / shared);
  end(name, threads, hash_of({y}), more);
  begin(threads);
  std::vector<float> grads(weights.size());
  Weights<float> g;
  g.ih = grads.data(), g.hh = grads.data() + 4 * size * size;
  Recording<float> recording(std::move(layer), rows, inputs, 0, false);
  recording.forward({}, {y.data(), N * size, size}, {});
  recording.backward({y.data(), N * size, size}, {}, {dx.data(), N * size, size}, {}, std::span(&g, 1));
  end(name + " both", threads, hash_of({y, dx, grads}));
}

// What the cost model says of a layer's call: how many times as fast as on one thread. The weights are packed first,
// and each worker is given each job.
void predict(int threads, i64 T, i64 N, i64 I, i64 H) {
  constexpr i64 work_of_order = 15'000;
  const here::Compiled<float>& cell = here::Equations<float, here::Lstm<false, false>>::compiled;
  const std::vector<float> weights(std::size_t(4 * H * std::max(I, H)), 0.f);
  Weights<const float> w;
  w.ih = weights.data(), w.hh = weights.data();
  set_num_threads(1);
  const Layer<float> layer(cell, {I, H, H}, w);
  const Rows rows(T, N, nullptr, nullptr, 0, 0, false);
  set_num_threads(threads);
  const i64 packing = rows_of_packing * step_work(layer);
  const auto packers = std::min<i64>(threads_worth(packing), layer.Hp / L);
  Run<float> run;
  run.cell = &cell, run.rows = &rows, run.size = layer.size, run.weights = layer.packed, run.chunk = chunk_steps(rows);
  const int team = threads_worth(run_work(layer, rows));
  share(run, layer, team);
  const StepTime<float> time(layer);
  i64 orders = 0;
  for (i64 given = 1; given < team; given *= Order::fan) orders += std::min<i64>(Order::fan, team - given);
  const double alone = time(double(N), 1, 1) * double(T), serial = double(packing) / double(packers);
  const double walked = run.assisted ? alone / gain_of_assistance : time(double(N), run.groups, run.team) * double(T);
  const double sum = walked + serial + double(orders * work_of_order);
  std::printf(
      "{\"case\": \"%ld,%ld,%ld,%ld\", \"threads\": %d, \"groups\": %d, \"team\": %d, \"assisted\": %d, \"gain\": "
      "%.3f, "
      "\"serial\": %.4f}\n",
      T, N, I, H, threads, run.groups, run.team, int(run.assisted), (alone + double(packing)) / sum,
      (sum - walked) / sum);
}

// ---- linear maps

void linear(int threads, i64 M, i64 I, i64 O) {
  static const LinearKernels<float>& real = here::LinearLoop<float>::kernels;
  LinearKernels<float> k = real;
  k.pack = [](const Linear<float>& m, float* panels, int part, int parts) {
    note(0, 0, Slice(here::groups_of<float>(m.O), part, parts).size() * L * m.I * 4);
    real.pack(m, panels, part, parts);
  };
  k.pack_transposed = [](const Linear<float>& m, float* panels, int part, int parts) {
    note(0, 0, Slice(here::groups_of<float>(m.I), part, parts).size() * L * m.O * 4);
    real.pack_transposed(m, panels, part, parts);
  };
  k.forward = [](const Linear<float>& m, const float* panels, float* prepared, float* y, i64 y_row) {
    note(m.M * m.O * m.I, (m.O * m.I + m.M * m.I) * 4);
    real.forward(m, panels, prepared, y, y_row);
  };
  k.input_grads = [](const Linear<float>& m, const float* panels, float* prepared, float* dx, i64 dx_row) {
    note(m.M * m.O * m.I, (m.O * m.I + m.M * m.O) * 4);
    real.input_grads(m, panels, prepared, dx, dx_row);
  };
  k.weight_grads = [](const Linear<float>& m, float* dweight, float* dbias, const LinearScratch<float>& own,
                      const Slice& groups) {
    note(m.M * m.O * groups.size() * L, m.M * (m.O + groups.size() * L) * 4);
    real.weight_grads(m, dweight, dbias, own, groups);
  };
  std::vector<float> x = some(M * I), w = some(O * I), y = some(M * O), dw(w), db = some(O), dx(x);
  Linear<float> m;
  m.M = M, m.I = I, m.O = O, m.weight = w.data(), m.x = x.data(), m.x_row = I, m.dy_row = O;
  const std::string name = "linear " + std::to_string(M) + "," + std::to_string(I) + "," + std::to_string(O);
  begin(threads);
  linear_forward(k, m, y.data());
  end(name, threads, hash_of({y}));
  begin(threads);
  m.dy = y.data();
  linear_backward(k, m, dx.data(), dw.data(), db.data());
  end(name + " back", threads, hash_of({dx, dw, db}));
}

// ---- attention

void attention(int threads, i64 heads, i64 S, i64 E) {
  using A = Attention<float>;
  static const AttentionKernels<float>& real = here::attention_kernels<float>;
  AttentionKernels<float> k = real;
  k.pack = [](const A& a, i64 head, i64 block, float* packed) {
    note(0, 0, std::min(a.K - block * key_block, key_block) * a.E * 4);
    real.pack(a, head, block, packed);
  };
  k.attend = [](const A& a, i64 head, QueryBlock rows, i64 run0, i64 run1, const float* packed, float* scratch,
                float* partial, float* out, float* stats) {
    note(rows.rows() * a.K * 2 * a.E, 2 * a.K * a.E * 4);
    real.attend(a, head, rows, run0, run1, packed, scratch, partial, out, stats);
  };
  k.grads = [](const A& a, const AttentionGrads<float>& d, i64 head, i64 block, const QueryBlock* rows, i64 blocks,
               float* scratch, const AccumulationOrder& order) {
    const i64 keys = std::min(a.K - block * key_block, key_block);
    note(a.S * keys * 5 * a.E, 2 * keys * a.E * 4);
    real.grads(a, d, head, block, rows, blocks, scratch, order);
  };
  const std::vector<float> q = some(heads * S * E), v = some(heads * S * E, 0.5f);
  std::vector<float> out(q), stats(std::size_t(heads * S * 2)), dq(q), dk(q), dv(q);
  A a;
  const A::Place place{0, 0, 0, 0, -S, S};
  a.Hk = heads, a.S = a.K = S, a.E = a.Ev = E, a.places = &place, a.scale = 0.1f;
  a.query = a.key = q.data(), a.value = v.data();
  a.query_head = a.key_head = a.value_head = S * E, a.query_row = a.key_row = a.value_row = E;
  const std::string name = "attention " + std::to_string(heads) + "," + std::to_string(S) + "," + std::to_string(E);
  begin(threads);
  attention_forward(k, a, out.data(), stats.data());
  end(name, threads, hash_of({out, stats}));
  begin(threads);
  attention_backward(k, a, v.data(), out.data(), stats.data(), dq.data(), dk.data(), dv.data());
  end(name + " back", threads, hash_of({dq, dk, dv}));
}

}  // namespace

int main(int count, char** arguments) {
  get_num_threads();  // which reads PYRNN_WAKE
  for (int i = 1; i < count; ++i) {
    const std::string of = arguments[i++];
    i64 n[4] = {};
    int threads = 0;
    std::sscanf(arguments[i], "%d:%ld,%ld,%ld,%ld", &threads, &n[0], &n[1], &n[2], &n[3]);
    if (of == "predict")
      predict(threads, n[0], n[1], n[2], n[3]);
    else
      (of == "lstm" ? lstm : of == "linear" ? linear : attention)(threads, n[0], n[1], n[2]);
  }
}
