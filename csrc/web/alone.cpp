// The threads and the memory of a WebAssembly module (module.cpp): the caller's thread alone, and plain allocations.
#include <cstdlib>

#include "base/memory.hpp"
#include "base/threads.hpp"

namespace pyrnn {

int get_num_threads() { return 1; }

Team::Team(i64 work, int) : work_(work) {}
Team::~Team() = default;
void Team::start(void (*call)(void*, int), void* job) { call(job, 0); }

// Nobody else is there to be waited for.
bool Barrier::wait_for(int, i64, bool) { return false; }
void Progress::wait_for(i64, i64) const {}
bool Progress::late(i64, i64, i64) const { return false; }

void Watch::poll() {}  // a page calls for some milliseconds at most

void* take_memory(std::size_t& bytes, std::size_t) {
  bytes = std::size_t(round_up(i64(bytes), 64));
  if (void* const memory = std::aligned_alloc(64, bytes)) return memory;
  __builtin_trap();
}

void give_back_memory(void* memory, std::size_t) noexcept { std::free(memory); }

void copy_bytes(void* to, const void* from, i64 bytes) { std::memcpy(to, from, std::size_t(bytes)); }

}  // namespace pyrnn

void* operator new(std::size_t bytes) {
  if (void* const memory = std::malloc(bytes)) return memory;
  __builtin_trap();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// What would be thrown ends the call, by a trap.
extern "C" void* __cxa_allocate_exception(std::size_t) { __builtin_trap(); }
extern "C" void __cxa_throw(void*, void*, void (*)(void*)) { __builtin_trap(); }
