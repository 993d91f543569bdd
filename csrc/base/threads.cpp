// The pool behind threads.hpp: workers that sleep on an atomic of their own, and what is done where they come late.
// Also the one function of interrupt.hpp.
#include "base/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/cpus.hpp"
#include "base/system.hpp"

namespace pyrnn {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::nanoseconds waking{200'000};  // in which a worker mostly wakes and finds a free CPU
// Calls less than this apart follow one another, and idle workers spin for as long. Who has made several such calls is
// expected to go on.
constexpr std::chrono::nanoseconds row_gap{200'000};
constexpr int calls_in_a_row = 4;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for a moment, or for some 200 microseconds, until it is done: who expects to be needed at once is there at
// once. The longer one soon lets others have the CPU in between, above all the thread that is waited for.
template <class Done> bool spin_briefly(Done done) {
  for (int i = 0; i < 400; ++i) {
    if (done()) return true;
    pause();
  }
  return false;
}

template <class Done> bool spin(Done done) {
  if (spin_briefly(done)) return true;
  for (int i = 0; i < 400; ++i) {
    std::this_thread::yield();
    for (int j = 0; j < 10; ++j) {
      if (done()) return true;
      pause();
    }
  }
  return false;
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

// How teams are had, from the environment. For tests, whose calls are small and seldom. PYRNN_WAKE=always: whatever the
// work is, and however late somebody came before; =late: and everybody who has to be waited for comes late; =patient:
// and nobody does.
struct Wakefulness {
  bool always = false, late = false, patient = false;
};

Wakefulness wakefulness() {
  const char* text = std::getenv("PYRNN_WAKE");
  if (!text) return {};
  const std::string asked(text);
  if (asked != "always" && asked != "late" && asked != "patient")
    throw std::invalid_argument("PYRNN_WAKE is '" + asked + "', expected always, late or patient");
  return {true, asked == "late", asked == "patient"};
}

// Set before the first team is made, by whoever asks first for the number of threads.
std::atomic<bool> waking_always{false}, all_are_late{false}, nobody_is_late{false};

// How long to wait for work before it is late: five times what it should take, and a moment for the caches and the
// clock.
std::chrono::nanoseconds time_limit(i64 work) {
  return std::chrono::nanoseconds(all_are_late ? 0 : 100'000 + work / 10);
}

bool is_too_late(Clock::duration lost);

// Waits until done(), in the end by rest(), again and again; how long, if not for a moment only.
template <class Done, class Rest> Clock::duration wait(Done done, Rest rest) {
  if (spin_briefly(done)) return Clock::duration(all_are_late ? 1 : 0);
  const Clock::time_point start = Clock::now();
  if (!spin(done))
    while (!done()) rest();
  return Clock::now() - start;
}

// True if that took longer than `limit`, and more than sharing the work has saved lately.
template <class Done, class Rest> bool came_late(std::chrono::nanoseconds limit, Done done, Rest rest) {
  const Clock::duration lost = wait(done, rest);
  return lost > limit && is_too_late(lost);
}

void nap() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

}  // namespace

// A job for the workers of a team, of whom the first few are given it by the caller, and all others by one of those
// before them: it takes a while to bring each worker its cache line, and many would come late one after the other.
struct Order {
  static constexpr int fan = 8;
  void (*call)(void*, int) = nullptr;
  void* job = nullptr;
  Worker* const* workers = nullptr;
  int count = 0;
  int index = -1;  // of the worker among them; -1: the caller

  void pass_on() const;
};

struct Worker {
  // What others write, and what the worker itself does, lie on different cache lines.
  alignas(64) std::atomic<int> ordered{0};  // counts the jobs given; changes when there is one more
  std::atomic<int> bell{0};                 // changes with each job and each call to wake
  std::atomic<bool> awaited{false};         // somebody waits for it to be awake: it does not fall asleep again
  std::atomic<int> caller_cpu{-1};          // where the thread was that rang last
  Order order;
  alignas(64) std::atomic<int> finished{0};  // the last job done
  std::atomic<bool> awake{false};            // spins for a job, or has one
  std::exception_ptr error;                  // what the job threw

  void loop() {
    constexpr int jobs_between = 32;  // two migrations: where the other CPU is taken they are of no use
    for (int done = 0, migrated = -jobs_between;;) {
      if (!awake.load(std::memory_order_relaxed)) awake.store(true, std::memory_order_release);
      const auto has_order = [&] { return ordered.load(std::memory_order_acquire) != done; };
      while (!spin(has_order) && awaited.load(std::memory_order_relaxed)) {
      }
      if (!has_order()) {
        // Who awaits it looks afterwards whether it is awake, and rings if not: it hears that, or sees that it is
        // awaited.
        const int heard = bell.load(std::memory_order_acquire);
        awake.store(false);
        if (has_order() || awaited.load()) continue;
        bell.wait(heard, std::memory_order_acquire);
        if (beside_caller()) system::leave_this_cpu();
        continue;
      }
      ++done;
      order.pass_on();
      try {
        order.call(order.job, order.index + 1);
      } catch (...) {
        error = std::current_exception();
      }
      const bool in_the_way = done - migrated >= jobs_between && beside_caller();
      finished.store(done);  // in one order with the count of waiters, which notify_one reads
      finished.notify_one();
      if (in_the_way) system::leave_this_cpu(), migrated = done;
    }
  }

  // Two threads that spin for each other's work never sleep, and then a system may leave them on one CPU for tens of
  // milliseconds, taking turns.
  bool beside_caller() const {
    const int cpu = caller_cpu.load(std::memory_order_relaxed);
    return cpu >= 0 && system::this_cpu() == cpu;
  }

  void ring() {
    caller_cpu.store(system::this_cpu(), std::memory_order_relaxed);
    bell.fetch_add(1, std::memory_order_release);
    bell.notify_one();
  }

  void give(const Order& o) {
    PYRNN_COUNT(orders);
    order = o;
    ordered.fetch_add(1, std::memory_order_release);
    ring();
  }

  void join(std::chrono::nanoseconds limit) {
    const int target = ordered.load(std::memory_order_relaxed);
    came_late(
        limit, [&] { return finished.load(std::memory_order_acquire) == target; },
        [&] {
          const int now = finished.load(std::memory_order_acquire);
          if (now != target) finished.wait(now, std::memory_order_acquire);
        });
  }
};

void Order::pass_on() const {
  const int first = fan * (index + 1);
  for (int i = first; i < std::min(first + fan, count); ++i) workers[i]->give({call, job, workers, count, i});
}

namespace {

constexpr Clock::rep most_credit = Clock::duration(std::chrono::milliseconds(100)).count();
constexpr Clock::rep longest_rest = Clock::duration(std::chrono::seconds(1)).count();
constexpr int price = 4;  // of lateness, in time of work without any

struct Pool {
  std::mutex lock;
  std::vector<Worker*> idle;
  int workers = 0;
  std::atomic<Clock::rep> last_use{};  // when a team was last given back
  int row = 0;                         // teams less than row_gap after the one before
  Clock::rep team_since = 0;           // when the latest team was made
  Clock::rep credit = 0;               // what lateness is paid from, see is_too_late
  Clock::rep told = 0;                 // when somebody last came late
  bool too_late = false;               // what was said of it
  // No teams are given before this time, which is `rest` after somebody last came too late.
  std::atomic<Clock::rep> resting_until{};
  Clock::rep rest = 0;

  void earn(Clock::rep time) {
    credit = std::min(most_credit, credit + time);
    if (credit == most_credit) rest = 0;
  }
};

// Never destroyed: detached workers may outlive static destructors. After fork the child has no workers, and the lock
// may have been held by a thread that is gone, so it starts with a new pool.
std::atomic<Pool*> pool{nullptr};
std::atomic<int> num_threads{0};  // 0: the environment has not been asked

std::atomic<int> generation{0};

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    system::at_fork_in_child([] {
      pool = new Pool;
      ++generation;
    });
  });
}

Pool& the_pool() {
  watch_forks();
  return *pool;
}

// Work in teams earns credit, up to most_credit, and lateness costs `price` times what was lost: where others take the
// CPU for a moment now and then, sharing goes on. Who cannot pay comes too late: all credit is gone, and the pool rests
// for a few times what was lost, or for twice the last rest where the credit has not been full since.
bool is_too_late(Clock::duration lost) {
  if (waking_always) return !nobody_is_late;
  Pool& p = the_pool();
  const std::lock_guard<std::mutex> hold(p.lock);
  const Clock::rep now = Clock::now().time_since_epoch().count();
  if (now - lost.count() < p.told || now < p.resting_until) return p.too_late;  // somebody else has told of it
  if (p.told < p.team_since) p.earn(now - p.team_since);
  p.told = now;
  p.credit -= price * lost.count();
  p.too_late = p.credit < 0;
  if (p.too_late) {
    p.credit = 0;
    p.rest = std::min(longest_rest, std::max(4 * lost.count(), 2 * p.rest));
    p.resting_until = now + p.rest;
  }
  return p.too_late;
}

}  // namespace

int get_num_threads() {
  int n = num_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    const Wakefulness asked = wakefulness();
    waking_always = asked.always, all_are_late = asked.late, nobody_is_late = asked.patient;
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

Team::Team(i64 work, int most) : work_(work), shared_(std::min(most, get_num_threads()) > 1) {
  if (!shared_) return;
  most = std::min(most, get_num_threads());
  const Clock::time_point now = Clock::now();
  since_ = now.time_since_epoch().count();
  Pool& p = the_pool();
  if (since_ < p.resting_until.load(std::memory_order_relaxed)) {
    shared_ = false;
    return;
  }
  bool wake = work >= work_to_wake || waking_always;
  int asleep = 0;
  {
    const std::lock_guard<std::mutex> hold(p.lock);
    p.team_since = since_;
    p.row = since_ - p.last_use < Clock::duration(row_gap).count() ? p.row + 1 : 0;
    if (p.row >= calls_in_a_row) wake = true, p.row = 0;
    for (std::size_t i = p.idle.size(); i-- > 0 && workers_ < most - 1;) {
      Worker* const worker = p.idle[i];
      if (wake) worker->awaited.store(true);
      if (!worker->awake.load()) {
        if (!wake) continue;
        worker->ring(), ++asleep;
      }
      borrowed_[workers_++] = worker;
      p.idle.erase(p.idle.begin() + std::ptrdiff_t(i));
    }
    for (; wake && workers_ < most - 1 && p.workers < get_num_threads() - 1; ++asleep) {
      auto worker = std::make_unique<Worker>();
      worker->awaited.store(true, std::memory_order_relaxed);
      try {
        p.idle.reserve(std::size_t(p.workers) + 1);  // so that giving it back cannot fail
        system::start_thread([](void* w) { static_cast<Worker*>(w)->loop(); }, worker.get());
      } catch (...) {  // no more threads to be had: the call runs with those it has
        break;
      }
      ++p.workers;
      borrowed_[workers_++] = worker.release();
    }
  }
  const auto is_awake = [](Worker* w) { return w->awake.load(std::memory_order_acquire); };
  const auto all_awake = [&] { return std::all_of(borrowed_, borrowed_ + workers_, is_awake); };
  const auto enough = now + waking * (waking_always ? 10'000 : std::clamp<i64>(work / work_to_wake, 1, 1000));
  for (int i = 0; i < 30 && asleep && !all_awake(); ++i) {
    for (int j = 0; j < 20; ++j) pause();
    std::this_thread::yield();
  }
  // One that is still asleep may be waiting for this very CPU.
  while (asleep && !all_awake() && Clock::now() < enough) std::this_thread::sleep_for(std::chrono::microseconds(10));
  for (int i = 0; wake && i < workers_; ++i) borrowed_[i]->awaited.store(false, std::memory_order_relaxed);
  if (!asleep) return;
  Worker** const first_asleep = std::stable_partition(borrowed_, borrowed_ + workers_, is_awake);
  if (first_asleep == borrowed_ + workers_) return;
  {
    const std::lock_guard<std::mutex> hold(p.lock);
    p.idle.insert(p.idle.end(), first_asleep, borrowed_ + workers_);
  }
  workers_ = int(first_asleep - borrowed_);
  is_too_late(Clock::now() - now);
}

Team::~Team() {
  if (!shared_) return;
  Pool& p = *pool;
  const Clock::rep now = Clock::now().time_since_epoch().count();
  p.last_use = now;
  if (!workers_) return;
  const std::lock_guard<std::mutex> hold(p.lock);
  if (p.told < since_) p.earn(now - since_);
  p.idle.insert(p.idle.end(), borrowed_, borrowed_ + workers_);
}

void Team::start(void (*call)(void*, int), void* job) {
  Order{call, job, borrowed_, workers_}.pass_on();
  const Clock::time_point start = workers_ ? Clock::now() : Clock::time_point();
  std::exception_ptr error;
  try {
    call(job, 0);
  } catch (...) {
    error = std::current_exception();
  }
  // Parts are mostly even: nobody should take twice as long as the caller.
  const auto limit = time_limit(work_) + (workers_ && !all_are_late ? Clock::now() - start : Clock::duration());
  for (int i = 0; i < workers_; ++i) {  // each of them has been given the job by one that has finished
    borrowed_[i]->join(limit);
    if (!borrowed_[i]->error) continue;
    if (!error) error = borrowed_[i]->error;
    borrowed_[i]->error = nullptr;
  }
  if (error) std::rethrow_exception(error);
}

void Watch::poll() {
  const Clock::time_point now = Clock::now();
  if (now < next_ || ended()) return;
  if (next_ != Clock::time_point() && question && question()) ended_.store(true, std::memory_order_relaxed);
  next_ = Clock::now() + std::chrono::milliseconds(50);
}

bool Barrier::wait_for(int part, i64 raised, bool adds_up) {
  const std::atomic<i64>& flag = flags_[part].raised;
  const auto has_come = [&] { return flag.load(std::memory_order_acquire) >= raised; };
  if (!adds_up) {
    came_late(time_limit(work_), has_come, nap);
    return false;
  }
  const Clock::duration beyond_work = wait(has_come, nap) - (time_limit(work_) - time_limit(0));
  lost_ += std::max(beyond_work, Clock::duration(0)).count();
  const Clock::duration lost(lost_);
  if (lost <= time_limit(0)) return false;
  lost_ = 0;
  return is_too_late(lost);
}

void Progress::wait_for(i64 run, i64 count) const {
  const auto done = [&] { return has_come(run, count); };
  if (!spin(done))
    while (!done()) nap();
}

bool Progress::late(i64 run, i64 count, i64 work) const {
  return came_late(time_limit(work), [&] { return has_come(run, count); }, nap);
}

}  // namespace pyrnn
