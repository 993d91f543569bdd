// What the operating system is asked for: system_posix.cpp asks Linux, macOS and their like, system_windows.cpp
// Windows. All else is C++ alone.
#pragma once

#include <cstddef>

namespace pyrnn::system {

// `bytes` at a multiple of `alignment`, uninitialised, for free_aligned; null where there are not so many. They are a
// multiple of it themselves.
void* take_aligned(std::size_t alignment, std::size_t bytes) noexcept;
void free_aligned(void* memory) noexcept;
// Large pages would be of use there: only advice.
void advise_huge_pages(void* memory, std::size_t bytes) noexcept;

// How many CPUs this process may run on, 0 where the system does not say.
int allowed_cpus() noexcept;
// The CPU this thread is on, -1 where the system does not say.
int this_cpu() noexcept;
// Moves this thread to another CPU it may use, if there is one.
void leave_this_cpu() noexcept;

// call(argument) in a thread of its own, which no signal to the process reaches: those are for the threads of the
// user's program. Throws std::system_error where there are no more threads.
void start_thread(void (*call)(void*), void* argument);

// May this be the thread that the process began with? No is certain.
bool may_be_main_thread() noexcept;

// From now on a child of fork begins with this call.
void at_fork_in_child(void (*call)());

// Has this CPU of arm64 instructions that sum products of bytes?
bool has_dot_products() noexcept;

}  // namespace pyrnn::system
