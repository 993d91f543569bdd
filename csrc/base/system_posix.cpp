// system.hpp by POSIX, and what Linux, macOS and arm64 have besides.
#if !defined(_WIN32)

#include <pthread.h>
#include <signal.h>

#include <cstdlib>
#include <thread>

#include "base/system.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace pyrnn::system {

void* take_aligned(std::size_t alignment, std::size_t bytes) noexcept { return std::aligned_alloc(alignment, bytes); }
void free_aligned(void* memory) noexcept { std::free(memory); }

void start_thread(void (*call)(void*), void* argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(call, argument).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void at_fork_in_child(void (*call)()) { pthread_atfork(nullptr, nullptr, call); }

#if defined(__linux__)

void advise_huge_pages(void* memory, std::size_t bytes) noexcept { madvise(memory, bytes, MADV_HUGEPAGE); }

int allowed_cpus() noexcept {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

int this_cpu() noexcept { return sched_getcpu(); }

void leave_this_cpu() noexcept {
  cpu_set_t all, others;
  const int here = this_cpu();
  if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof all, &all) != 0) return;
  others = all;
  CPU_CLR(std::size_t(here), &others);
  if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof all, &all);
}

bool may_be_main_thread() noexcept { return syscall(SYS_gettid) == getpid(); }

#else

void advise_huge_pages(void*, std::size_t) noexcept {}
int allowed_cpus() noexcept { return 0; }
int this_cpu() noexcept { return -1; }
void leave_this_cpu() noexcept {}

#if defined(__APPLE__)
bool may_be_main_thread() noexcept { return pthread_main_np() != 0; }
#else
bool may_be_main_thread() noexcept { return true; }
#endif

#endif

bool has_dot_products() noexcept {
#if defined(__aarch64__) && defined(__APPLE__)
  return true;  // every Mac of arm64
#elif defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return false;
#endif
}

}  // namespace pyrnn::system

#endif
