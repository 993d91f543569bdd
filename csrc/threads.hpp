// The only file that knows about threads: how many there are, teams that run together, and the barrier they meet at.
//
// A call borrows idle workers of one process-wide pool for its duration. It may get fewer than it asked for (several
// Python threads share the pool), which no result depends on. Idle workers sleep; a child of fork starts a new pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace pyrnn {

inline constexpr int most_threads = 256;
int get_num_threads();
void set_num_threads(int threads);  // 1 .. most_threads

// How many forks lie between the first process and this one: what a lock guarded before a fork may be held for good.
int fork_generation();

// Threads 0 .. members - 1 meet here. Each raises a flag of its own and looks at the others', which costs one way of a
// cache line while all are running; who waits long naps between looks, so nobody has to be woken.
class Barrier {
 public:
  explicit Barrier(int members) : flags_(new Flag[std::size_t(members)]), members_(members) {}

  void wait(int member) {
    if (members_ == 1) return;
    const int round = flags_[member].round.load(std::memory_order_relaxed) + 1;
    flags_[member].round.store(round, std::memory_order_release);
    for (int other = 0; other < members_; ++other)
      if (other != member && flags_[other].round.load(std::memory_order_acquire) < round) wait_for(other, round);
  }

 private:
  struct alignas(64) Flag {
    std::atomic<int> round{0};
  };
  void wait_for(int other, int round) const;

  const std::unique_ptr<Flag[]> flags_;
  const int members_;
};

// How far several runs have come, each counted up by one thread while others wait for it.
class Progress {
 public:
  explicit Progress(std::int64_t runs) : counts_(new std::atomic<std::int64_t>[std::size_t(runs)] {}) {}

  void raise(std::int64_t run, std::int64_t count) { counts_[run].store(count, std::memory_order_release); }
  void wait(std::int64_t run, std::int64_t count) const {
    if (counts_[run].load(std::memory_order_acquire) < count) wait_for(run, count);
  }

 private:
  void wait_for(std::int64_t run, std::int64_t count) const;

  const std::unique_ptr<std::atomic<std::int64_t>[]> counts_;
};

// Tasks of which each is done by whichever thread takes it first.
class Tasks {
 public:
  explicit Tasks(std::int64_t count) : taken_(new std::atomic<bool>[std::size_t(count)] {}) {}
  bool take(std::int64_t task) { return !taken_[task].exchange(true, std::memory_order_relaxed); }

 private:
  const std::unique_ptr<std::atomic<bool>[]> taken_;
};

struct Worker;

// Work is counted in multiply-adds; below this much per thread, sharing it costs more than it saves.
inline constexpr std::int64_t work_per_thread = 200'000;

inline int threads_worth(std::int64_t work) {
  return int(std::clamp<std::int64_t>(work / work_per_thread, 1, get_num_threads()));
}

// The calling thread and as many workers as `work` is worth, at most `most` threads in all, held until destruction.
// Workers that sleep are waited for where the work takes longer than they need to wake, or where calls follow one
// another at once, so that they are there for the next ones.
class Team {
 public:
  explicit Team(std::int64_t work) : Team(work, threads_worth(work)) {}
  Team(std::int64_t work, int most);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return 1 + workers_; }

  // Calls job(member) with member = 0 .. size() - 1, all at the same time, and returns when all have returned. What one
  // of them throws is thrown here; a job whose members wait for each other must not throw.
  template <class Job> void run(Job& job) {
    start([](void* j, int member) { (*static_cast<Job*>(j))(member); }, &job);
  }

 private:
  void start(void (*call)(void*, int), void* job);
  bool shared_ = false;  // was it worth several threads
  int workers_ = 0;
  Worker* borrowed_[most_threads - 1];
};

// f(part, parts) on every member of a team.
template <class F> void in_parts(Team& team, F f) {
  auto job = [&](int part) { f(part, team.size()); };
  team.run(job);
}

// f(part, task) for each task, which threads take in ascending order, one after the other. A task may wait for one
// before it: that has been taken by a thread that runs.
template <class F> void in_tasks(Team& team, std::int64_t tasks, F f) {
  std::atomic<std::int64_t> next{0};
  auto job = [&](int part) {
    for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) f(part, task);
  };
  team.run(job);
}

}  // namespace pyrnn
