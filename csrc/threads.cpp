// The pool behind threads.hpp: workers that sleep on an atomic of their own.
#include "threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace pyrnn {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::nanoseconds waking{200'000};  // in which a worker mostly wakes and finds a free CPU
constexpr std::int64_t work_to_wake = 32'000'000;    // multiply-adds that take one thread several times as long
// Calls less than this apart are in a row; idle workers look for as long.
constexpr std::chrono::nanoseconds row_gap{200'000};
constexpr int in_a_row = 4;  // so many of them, and as many are to be expected

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks for a while, some 200 microseconds, whether it is done, before the caller goes to sleep: who expects to be
// needed at once is there at once. It soon lets others have the CPU in between, above all the thread it is waiting for.
template <class Done> void look(Done done) {
  for (int i = 0; i < 400; ++i) {
    if (done()) return;
    pause();
  }
  for (int i = 0; i < 400; ++i) {
    sched_yield();
    for (int j = 0; j < 10; ++j) {
      if (done()) return;
      pause();
    }
  }
}

// The CPU this thread is on, -1 where the system does not say.
int this_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Leaves this CPU for another one the thread may use, if there is one. Two threads that look for each other's work
// never sleep, and then a system may leave them on one CPU for tens of milliseconds, taking turns.
void step_aside() {
#if defined(__linux__)
  cpu_set_t all, others;
  const int here = this_cpu();
  if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof all, &all) != 0) return;
  others = all;
  CPU_CLR(std::size_t(here), &others);
  if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof all, &all);
#endif
}

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

int default_threads() {
  if (const char* text = std::getenv("PYRNN_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end == text || *end != 0 || n < 1 || n > most_threads)
      throw std::invalid_argument("PYRNN_NUM_THREADS is '" + std::string(text) + "', expected an integer from 1 to " +
                                  std::to_string(most_threads));
    return int(n);
  }
  return std::min(usable_cpus(), most_threads);
}

// Should teams wait for workers whatever the work is: for tests, whose calls are small and seldom.
bool always_wake() {
  const char* text = std::getenv("PYRNN_WAKE");
  if (text && std::string(text) != "always")
    throw std::invalid_argument("PYRNN_WAKE is '" + std::string(text) + "', expected always");
  return text;
}

}  // namespace

struct Worker {
  alignas(64) std::atomic<int> order{0};     // counts the jobs given; changes when there is one more
  std::atomic<int> bell{0};                  // changes with each job and each call to wake
  std::atomic<bool> awake{false};            // looks for a job, or has one
  alignas(64) std::atomic<int> finished{0};  // the last job done
  void (*call)(void*, int) = nullptr;
  void* job = nullptr;
  int member = 0;
  std::atomic<int> caller_cpu{-1};  // where the thread was that rang last
  std::exception_ptr error;         // what the job threw

  void loop() {
    constexpr int patience = 32;  // jobs between two steps aside: where the other CPU is taken they are of no use
    for (int done = 0, aside = -patience;;) {
      awake.store(true, std::memory_order_release);
      look([&] { return order.load(std::memory_order_acquire) != done; });
      if (order.load(std::memory_order_acquire) == done) {
        awake.store(false, std::memory_order_relaxed);
        const int heard = bell.load(std::memory_order_acquire);
        if (order.load(std::memory_order_acquire) == done) bell.wait(heard, std::memory_order_acquire);
        if (beside_caller()) step_aside();
        continue;
      }
      ++done;
      try {
        call(job, member);
      } catch (...) {
        error = std::current_exception();
      }
      const bool in_the_way = done - aside >= patience && beside_caller();
      finished.store(done);  // in one order with the count of waiters, which notify_one reads
      finished.notify_one();
      if (in_the_way) step_aside(), aside = done;
    }
  }

  bool beside_caller() const {
    const int cpu = caller_cpu.load(std::memory_order_relaxed);
    return cpu >= 0 && this_cpu() == cpu;
  }

  void ring() {
    caller_cpu.store(this_cpu(), std::memory_order_relaxed);
    bell.fetch_add(1, std::memory_order_release);
    bell.notify_one();
  }

  void give(void (*c)(void*, int), void* j, int m) {
    call = c, job = j, member = m;
    order.fetch_add(1, std::memory_order_release);
    ring();
  }

  void join() {
    const int target = order.load(std::memory_order_relaxed);
    look([&] { return finished.load(std::memory_order_acquire) == target; });
    for (int now; (now = finished.load(std::memory_order_acquire)) != target;)
      finished.wait(now, std::memory_order_acquire);
  }
};

namespace {

// With all signals blocked, so that they reach the threads of the user's program.
void start(Worker* worker) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(&Worker::loop, worker).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

struct Pool {
  std::mutex lock;
  std::vector<Worker*> idle;
  int workers = 0;
  std::atomic<Clock::rep> last_use{};  // when a team was last given back
  int row = 0;                         // teams less than row_gap after the one before
};

// Never destroyed: detached workers may outlive static destructors. After fork the child has no workers, and the lock
// may have been held by a thread that is gone, so it starts with a new pool.
std::atomic<Pool*> pool{nullptr};
std::atomic<int> num_threads{0};  // 0: the environment has not been asked
std::atomic<bool> waking_always{false};

std::atomic<int> generation{0};

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] {
      pool = new Pool;
      ++generation;
    });
  });
}

Pool& the_pool() {
  watch_forks();
  return *pool;
}

}  // namespace

int get_num_threads() {
  int n = num_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    waking_always = always_wake();
    int unset = 0;
    if (!num_threads.compare_exchange_strong(unset, n)) n = unset;
  }
  return n;
}

int fork_generation() {
  watch_forks();
  return generation;
}

void set_num_threads(int threads) { num_threads = threads; }

Team::Team(std::int64_t work, int most) : shared_(std::min(most, get_num_threads()) > 1) {
  if (!shared_) return;
  most = std::min(most, get_num_threads());
  const Clock::time_point now = Clock::now();
  bool wake = work >= work_to_wake || waking_always;
  Pool& p = the_pool();
  int asleep = 0;
  {
    const std::lock_guard<std::mutex> hold(p.lock);
    p.row = now.time_since_epoch().count() - p.last_use < Clock::duration(row_gap).count() ? p.row + 1 : 0;
    if (p.row >= in_a_row) wake = true, p.row = 0;
    for (std::size_t i = p.idle.size(); i-- > 0 && workers_ < most - 1;) {
      Worker* const worker = p.idle[i];
      if (!worker->awake.load(std::memory_order_acquire)) {
        if (!wake) continue;
        worker->ring(), ++asleep;
      }
      borrowed_[workers_++] = worker;
      p.idle.erase(p.idle.begin() + std::ptrdiff_t(i));
    }
    for (; wake && workers_ < most - 1 && p.workers < get_num_threads() - 1; ++asleep) {
      auto worker = std::make_unique<Worker>();
      try {
        p.idle.reserve(std::size_t(p.workers) + 1);  // so that giving it back cannot fail
        pyrnn::start(worker.get());
      } catch (...) {  // no more threads to be had: the call runs with those it has
        break;
      }
      ++p.workers;
      borrowed_[workers_++] = worker.release();
    }
  }
  if (!asleep) return;
  const auto is_awake = [](Worker* w) { return w->awake.load(std::memory_order_acquire); };
  const auto all_awake = [&] { return std::all_of(borrowed_, borrowed_ + workers_, is_awake); };
  const auto enough = now + waking * (waking_always ? 10'000 : std::clamp<std::int64_t>(work / work_to_wake, 1, 1000));
  for (int i = 0; i < 30 && !all_awake(); ++i) {
    for (int j = 0; j < 20; ++j) pause();
    sched_yield();
  }
  // One that is still asleep may be waiting for this very CPU.
  while (!all_awake() && Clock::now() < enough) std::this_thread::sleep_for(std::chrono::microseconds(10));
  Worker** const first_asleep = std::stable_partition(borrowed_, borrowed_ + workers_, is_awake);
  if (first_asleep == borrowed_ + workers_) return;
  const std::lock_guard<std::mutex> hold(p.lock);
  p.idle.insert(p.idle.end(), first_asleep, borrowed_ + workers_);
  workers_ = int(first_asleep - borrowed_);
}

Team::~Team() {
  if (!shared_) return;
  Pool& p = *pool;
  p.last_use = Clock::now().time_since_epoch().count();
  if (!workers_) return;
  const std::lock_guard<std::mutex> hold(p.lock);
  p.idle.insert(p.idle.end(), borrowed_, borrowed_ + workers_);
}

void Team::start(void (*call)(void*, int), void* job) {
  for (int i = 0; i < workers_; ++i) borrowed_[i]->give(call, job, i + 1);
  std::exception_ptr error;
  try {
    call(job, 0);
  } catch (...) {
    error = std::current_exception();
  }
  for (int i = 0; i < workers_; ++i) {
    borrowed_[i]->join();
    if (!error) error = borrowed_[i]->error;
    borrowed_[i]->error = nullptr;
  }
  if (error) std::rethrow_exception(error);
}

void Barrier::wait_for(int other, int round) const {
  const std::atomic<int>& flag = flags_[other].round;
  const auto arrived = [&] { return flag.load(std::memory_order_acquire) >= round; };
  look(arrived);
  while (!arrived()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

void Progress::wait_for(std::int64_t run, std::int64_t count) const {
  const auto arrived = [&] { return counts_[run].load(std::memory_order_acquire) >= count; };
  look(arrived);
  while (!arrived()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace pyrnn
