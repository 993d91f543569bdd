// Where threads come from: how many there are, teams that run together, and what their members wait for each other
// with.
//
// A call borrows idle workers of one process-wide pool for its duration. It may get fewer than it asked for (several
// Python threads share the pool), which no result depends on. Idle workers sleep; a child of fork starts a new pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>

#include "base/costs.hpp"
#include "base/integers.hpp"
#include "base/interrupt.hpp"

namespace pyrnn {

// Counted where tests/test_teams.py compiles the sources; nothing elsewhere.
#ifndef PYRNN_COUNT
#define PYRNN_COUNT(what) ((void)0)
#endif

inline constexpr int most_threads = 256;
int get_num_threads();
void set_num_threads(int threads);  // 1 .. most_threads

// How many forks lie between the first process and this one: what a lock guarded before a fork may be held for good.
int fork_generation();

// The parts 0 .. parts - 1 of a job meet here, each of them a thread of its own at first. Who comes raises the part's
// flag and looks at those of the `fan` - 1 parts before it, which costs one way of a cache line while all are running.
// Where there are more parts, the flag is raised again, which now speaks for `fan` parts, and those of the parts fan,
// 2 fan, ... before it are looked at; and so on. So nobody looks at more than fan - 1 flags a level, and there are
// log(parts) / log(fan) levels: neither a line that all write, nor as many looks as parts times parts.
//
// Where other processes have the CPUs too, a thread may come milliseconds late to every meeting, and where a team has
// more threads than there are CPUs, some microseconds. The thread of part 0, once it has waited far longer than the
// work between meetings takes, at one of them or at all, and longer than sharing saves, therefore says at the next
// meeting that it does all parts from there on, and the other threads leave. The parts stay what they are, so no bit
// changes.
class Barrier {
 public:
  static constexpr int fan = 8;
  // work: multiply-adds of a part between two meetings.
  Barrier(int parts, i64 work) : flags_(new Flag[std::size_t(parts)]), parts_(parts), work_(work) {}

  // The caller has done parts [first, last); returns when all have come. True: from now on the thread of part 0 does
  // all parts, and nobody comes here any more.
  PYRNN_INLINE bool meet(int first, int last) {
    i64 raised = flags_[first].raised.load(std::memory_order_relaxed);
    if (first == 0 && late_) last_.store(raised + 1, std::memory_order_relaxed);
    const auto look = [&](int part) {
      PYRNN_COUNT(looks);
      if (flags_[part].raised.load(std::memory_order_acquire) < raised)
        if (wait_for(part, raised, first == 0)) late_ = true;
    };
    for (int step = 1; step < parts_; step *= fan) {
      ++raised;
      for (int part = first; part < last; ++part) flags_[part].raised.store(raised, std::memory_order_release);
      for (int part = first; part < last; ++part)
        for (int far = step; far < parts_ && far < fan * step; far += step) {
          const int other = part - far + (part < far ? parts_ : 0);
          if (other < first || other >= last) look(other);
        }
    }
    PYRNN_COUNT(meetings);
    return last_.load(std::memory_order_relaxed) <= raised;
  }

 private:
  struct alignas(64) Flag {
    std::atomic<i64> raised{0};
  };
  bool wait_for(int part, i64 raised, bool adds_up);

  const std::unique_ptr<Flag[]> flags_;
  const int parts_;
  const i64 work_;
  std::atomic<i64> last_{std::numeric_limits<i64>::max()};
  bool late_ = false;  // of the thread of part 0 alone, and so is what it has lost at meetings, in ticks
  i64 lost_ = 0;
};

// How far several runs have come, each counted up by one thread while others wait for it. Those of neighbours, which
// several threads count up at the same time, lie on different cache lines.
class Progress {
 public:
  explicit Progress(i64 runs)
      : lines_(std::max({std::min(runs, most_alone), ceil_div(runs, in_line), i64(1)})),
        counts_(new Line[std::size_t(lines_)]) {}

  PYRNN_INLINE void raise(i64 run, i64 count) { at(run).store(count, std::memory_order_release); }
  PYRNN_INLINE void wait(i64 run, i64 count) const {
    if (!has_come(run, count)) wait_for(run, count);
  }
  // For something that takes `work` multiply-adds and has been begun; true if it takes far longer.
  PYRNN_INLINE bool wait_or_late(i64 run, i64 count, i64 work) const {
    return !has_come(run, count) && late(run, count, work);
  }

 private:
  static constexpr i64 in_line = 8, most_alone = 2 * most_threads;  // counts in a line; that have one each
  struct alignas(64) Line {
    std::atomic<i64> count[in_line] = {};
  };
  PYRNN_INLINE std::atomic<i64>& at(i64 run) const { return counts_[run % lines_].count[run / lines_]; }
  PYRNN_INLINE bool has_come(i64 run, i64 count) const { return at(run).load(std::memory_order_acquire) >= count; }
  void wait_for(i64 run, i64 count) const;
  bool late(i64 run, i64 count, i64 work) const;

  const i64 lines_;
  const std::unique_ptr<Line[]> counts_;
};

// Tasks of which each is done by whichever thread takes it first.
class Tasks {
 public:
  explicit Tasks(i64 count) : taken_(new std::atomic<bool>[std::size_t(count)] {}) {}
  PYRNN_INLINE bool take(i64 task) { return !taken_[task].exchange(true, std::memory_order_relaxed); }

 private:
  const std::unique_ptr<std::atomic<bool>[]> taken_;
};

struct Worker;

// Work is counted in multiply-adds.
inline int threads_worth(i64 work) { return int(std::clamp<i64>(work / work_per_thread, 1, get_num_threads())); }

// The calling thread and as many workers as `work` is worth, at most `most` threads in all, held until destruction.
// Workers that sleep are waited for where the work takes longer than they need to wake, or where calls follow one
// another at once, so that they are there for the next ones.
//
// Where workers or parts come so late, or so often, that sharing costs more than it saves, other processes have the
// CPUs: for a while nobody gets workers. That while is a few times what was lost, and doubles where they are late
// again, up to a second.
class Team {
 public:
  explicit Team(i64 work) : Team(work, threads_worth(work)) {}
  Team(i64 work, int most);
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
  const i64 work_;
  bool shared_ = false;  // is it worth several threads, and are they to be had
  int workers_ = 0;
  i64 since_ = 0;  // when it was made, in ticks of the steady clock
  Worker* borrowed_[most_threads - 1];
};

// f(part, parts) on every member of a team.
template <class F> void in_parts(Team& team, F f) {
  auto job = [&](int part) { f(part, team.size()); };
  team.run(job);
}

// f(slice) on every member of a team: its slice of `count` things.
template <class F> void in_slices(Team& team, i64 count, F f) {
  in_parts(team, [&](int part, int parts) { f(Slice(count, part, parts)); });
}

// f(thread, part, parts) for parts of a call's `work` that its user may stop: as many for each thread, at most `most`
// of them, as leave little to wait for, one after the other.
template <class F> void in_watched_parts(Team& team, i64 work, i64 most, Watch& watch, F f) {
  const i64 each =
      std::clamp<i64>(work / team.size() / (8 * Watch::work_between), 1, std::max<i64>(most / team.size(), 1));
  in_parts(team, [&](int thread, int threads) {
    for (i64 i = 0; i < each && !watch.ended(); ++i) {
      if (thread == 0 && each > 1) watch.poll();
      f(thread, thread * each + i, threads * each);
    }
  });
  watch.check();
}

// f(part, task) for each task, which threads take in ascending order, one after the other. A task may wait for one
// before it: that has been taken by a thread that runs. Where f is true for part 0, it has waited for one that came
// late, and goes on alone.
template <class F> void in_tasks(Team& team, i64 tasks, F f) {
  std::atomic<i64> next{0};
  std::atomic<bool> alone{false};
  auto job = [&](int part) {
    while (part == 0 || !alone.load(std::memory_order_relaxed)) {
      const i64 task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      if (f(part, task) && part == 0) alone.store(true, std::memory_order_relaxed);
    }
  };
  team.run(job);
}

// f(model) for each of several models, which threads take one after the other: all of a model is done where its weights
// are in the cache. One is done as if alone, with threads of its own. What f throws ends the call; models that nobody
// has taken by then are left out.
template <class F> void each_model(i64 work, i64 models, F f) {
  if (models == 1) return f(i64(0));
  Team team(work, int(std::min<i64>(models, threads_worth(work))));
  std::atomic<i64> next{0};
  Watch watch;
  in_parts(team, [&](int part, int) {
    try {
      for (i64 model; (model = next.fetch_add(1, std::memory_order_relaxed)) < models;) {
        if (part == 0) watch.poll(), watch.check();
        f(model);
      }
    } catch (...) {
      next = models;
      throw;
    }
  });
}

}  // namespace pyrnn
