// system.hpp by the interface of Windows, which has neither fork nor signals to a process.
#if defined(_WIN32)

#include "base/system.hpp"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
// After windows.h, which it needs.
#include <malloc.h>

#include <bit>
#include <thread>

namespace pyrnn::system {

namespace {

// The CPUs of the process, those of its group: a bit each; 0 where the system does not say.
DWORD_PTR process_cpus() noexcept {
  DWORD_PTR ours = 0, all = 0;
  return GetProcessAffinityMask(GetCurrentProcess(), &ours, &all) ? ours : 0;
}

}  // namespace

void* take_aligned(std::size_t alignment, std::size_t bytes) noexcept { return _aligned_malloc(bytes, alignment); }
void free_aligned(void* memory) noexcept { _aligned_free(memory); }
void advise_huge_pages(void*, std::size_t) noexcept {}  // they need a privilege

int allowed_cpus() noexcept { return std::popcount(process_cpus()); }
int this_cpu() noexcept { return int(GetCurrentProcessorNumber()); }

void leave_this_cpu() noexcept {
  const DWORD_PTR all = process_cpus(), others = all & ~(DWORD_PTR(1) << this_cpu());
  if (!others) return;
  if (const DWORD_PTR before = SetThreadAffinityMask(GetCurrentThread(), others))
    SetThreadAffinityMask(GetCurrentThread(), before);
}

void start_thread(void (*call)(void*), void* argument) { std::thread(call, argument).detach(); }

bool may_be_main_thread() noexcept { return true; }

void at_fork_in_child(void (*)()) {}

bool has_dot_products() noexcept {
#if defined(_M_ARM64) || defined(__aarch64__)
  return IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE);
#else
  return false;
#endif
}

}  // namespace pyrnn::system

#endif
