// The limits of this machine, measured: what the benchmarks compare with.
#include <algorithm>
#include <chrono>

#include "../memory.hpp"
#include "recurrent.hpp"

namespace pyrnn {

namespace {

using Clock = std::chrono::steady_clock;

int checked_threads(const std::string& call, int threads) {
  if (threads < 1 || threads > most_threads)
    wrong_value(call, "threads is " + std::to_string(threads) + ", expected 1 to " + std::to_string(most_threads));
  return threads;
}

// The best of several rounds: seconds that job(member) takes on all threads together.
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
  Team team(threads);
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

double fma_peak(const std::string& dtype, int threads) {
  checked_threads("fma_peak", threads);
  if (dtype != "float32" && dtype != "float64")
    wrong_value("fma_peak", "dtype is '" + dtype + "', expected 'float32' or 'float64'");
  py::gil_scoped_release release;
  return dtype == "float32" ? fma_peak_of<float>(threads) : fma_peak_of<double>(threads);
}

double bandwidth(i64 bytes, int threads) {
  checked_threads("bandwidth", threads);
  if (bytes < 1 << 12 || bytes > i64(1) << 36)
    wrong_value("bandwidth", "bytes is " + std::to_string(bytes) + ", expected 4096 to 2**36");
  py::gil_scoped_release release;
  Team team(threads);
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
