// One user at a time: what keeps threads, forks and signal handlers out of a stream that is in the middle of a step.
#pragma once

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "base/threads.hpp"
#include "bindings/arrays.hpp"

namespace pyrnn {

class Exclusive {
 public:
  explicit Exclusive(std::string call) : call_(std::move(call)) {}

  // f() by a caller who holds the GIL, without it.
  template <class F> void locked(F f) {
    check_fork();
    const WithoutGil released;
    hold(f);
  }

  // f() by a caller who does not hold the GIL.
  template <class F> void held(F f) {
    if (generation_ != fork_generation()) {
      const py::gil_scoped_acquire gil;
      check_fork();
    }
    hold(f);
  }

  // Cut short by a fork: what it guards may own its buffers twice, and is to be left alone.
  bool broken() { return generation_ != fork_generation() && !lock_.try_lock(); }

 private:
  // In a child of fork the lock may be held by a thread that is gone, in the middle of a step: such a stream is refused
  // from then on. Needs the GIL; where there is none, threads look one after the other, and a fork comes before or
  // after.
  void check_fork() {
    if (generation_ == fork_generation()) return;
    static std::mutex looking;
    const std::lock_guard<std::mutex> one(looking);
    if (generation_ == fork_generation()) return;
    if (!lock_.try_lock()) throw std::runtime_error(call_ + ": another thread was using this stream at the fork");
    lock_.unlock();
    generation_ = fork_generation();
  }

  // One thread at a time. A signal's handler may run in the middle of a call and call again.
  template <class F> void hold(F f) {
    const std::thread::id me = std::this_thread::get_id();
    if (user_ == me) throw std::runtime_error(call_ + ": a signal handler used the stream that it had interrupted");
    const std::lock_guard<std::mutex> hold(lock_);
    const struct User {
      explicit User(std::atomic<std::thread::id>& user) : user(user) { user = std::this_thread::get_id(); }
      ~User() { user = std::thread::id(); }
      std::atomic<std::thread::id>& user;
    } mine(user_);
    f();
  }

  const std::string call_;
  std::mutex lock_;
  std::atomic<std::thread::id> user_{};  // the thread that has the lock
  std::atomic<int> generation_ = fork_generation();
};

}  // namespace pyrnn
