// The only file that knows about threads: how many there are, teams that run together, and the barrier they meet at.
//
// A call borrows idle workers of one process-wide pool for its duration. It may get fewer than it asked for (several
// Python threads share the pool), which no result depends on. Idle workers sleep; a child of fork starts a new pool.
#pragma once

#include <atomic>
#include <memory>

namespace pyrnn {

inline constexpr int most_threads = 256;
int get_num_threads();
void set_num_threads(int threads);  // 1 .. most_threads

// Threads meet here. A meeting costs a fraction of a microsecond while all are running; who waits longer sleeps.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait() {
    if (members_ == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_seq_cst);
      if (sleepers_.load(std::memory_order_seq_cst)) wake();
    } else {
      wait_for_change(round);
    }
  }

 private:
  void wait_for_change(int round);
  void wake();
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
  std::atomic<int> sleepers_{0};
};

struct Worker;

// The calling thread and up to `wanted - 1` workers, held until destruction.
class Team {
 public:
  explicit Team(int wanted);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return 1 + workers_; }

  // Calls job(member) with member = 0 .. size() - 1, all at the same time, and returns when all have returned.
  template <class Job> void run(Job& job) {
    start([](void* j, int member) { (*static_cast<Job*>(j))(member); }, &job);
  }

 private:
  void start(void (*call)(void*, int), void* job);
  int workers_ = 0;
  Worker* borrowed_[most_threads - 1];
};

}  // namespace pyrnn
