// The limits of this machine, measured: what the benchmarks compare with.
#include <algorithm>
#include <chrono>

#include "base/memory.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

using Clock = std::chrono::steady_clock;

// The best of several rounds: seconds that job(member) takes on all threads together.
constexpr i64 a_lot = i64(1) << 40;  // of work: all threads are wanted

template <class F> double best_seconds(Team& team, F job) {
  double best = 1e30;
  for (int round = 0; round < 10; ++round) {
    const auto start = Clock::now();
    team.run(job);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

template <class T> double fma_peak_of(int threads) {
  Team team(a_lot, threads);
  Buffer<T> sinks = Buffer<T>(256 * team.size()).zero();
  constexpr i64 rounds = 400'000;
  i64 done = 0;
  auto job = [&](int member) {
    const i64 n = kernels<T>().fma_loop(rounds, sinks.get() + 256 * member);
    if (member == 0) done = n;
  };
  const double seconds = best_seconds(team, job);
  return 2e-9 * double(done) * team.size() / seconds;
}

double fma_peak(const std::string& dtype, py::object threads_) {
  const int threads = int(to_integer("fma_peak", "threads", threads_, 1, most_threads));
  if (dtype != "float32" && dtype != "float64")
    wrong_value("fma_peak", "dtype is " + shown(py::str(dtype)) + ", expected 'float32' or 'float64'");
  const WithoutGil released;
  return dtype == "float32" ? fma_peak_of<float>(threads) : fma_peak_of<double>(threads);
}

double bandwidth(py::object bytes_, py::object threads_) {
  const int threads = int(to_integer("bandwidth", "threads", threads_, 1, most_threads));
  const i64 bytes = to_integer("bandwidth", "bytes", bytes_, 1 << 12, i64(1) << 36);
  const WithoutGil released;
  Team team(a_lot, threads);
  const i64 n = bytes / i64(sizeof(float)) / team.size() / 512 * 512, passes = std::max<i64>(1, (i64(1) << 28) / bytes);
  Buffer<float> data = Buffer<float>(n * team.size()).zero(), sinks = Buffer<float>(256 * team.size()).zero();
  auto job = [&](int member) {
    for (i64 i = 0; i < passes; ++i) kernels<float>().read_loop(data.get() + n * member, n, sinks.get() + 256 * member);
  };
  const double seconds = best_seconds(team, job);
  return 1e-9 * double(n * passes * team.size()) * sizeof(float) / seconds;
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("fma_peak", &fma_peak, py::arg("dtype"), py::arg("threads"),
        "GFLOP/s of multiply-adds in registers, measured for a few milliseconds.");
  m.def("bandwidth", &bandwidth, py::arg("bytes"), py::arg("threads"),
        "GB/s of reading a buffer of that many bytes again and again.");
}

}  // namespace pyrnn
