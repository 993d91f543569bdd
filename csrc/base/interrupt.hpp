// How a user stops a call that takes long. The thread that made the call looks now and then whether it is to end; then
// all its threads skip what is left of the work, keep their meetings, and the call throws Interrupted. What it has
// written by then is of no use; what it would have changed in place is unchanged.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>

#include "base/integers.hpp"

namespace pyrnn {

struct Interrupted final : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// One for each call.
class Watch {
 public:
  // For the thread that made the call: asks twenty times a second, not at the first look.
  void poll();
  PYRNN_INLINE bool ended() const { return ended_.load(std::memory_order_relaxed); }
  PYRNN_INLINE void check() const {
    if (ended()) throw Interrupted();
  }

  // Multiply-adds that may be done between two looks: some milliseconds.
  static constexpr i64 work_between = 4'000'000;

  // Is the call to end? Set by the bindings, which know Python's signals, before any call.
  static inline bool (*question)() = nullptr;

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point next_{};
  std::atomic<bool> ended_{false};
};

}  // namespace pyrnn
