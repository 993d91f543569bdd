// Where memory comes from: blocks given back are kept for the next call, up to a bound, and as long as all of them
// together are at most a quarter more than has ever been in use at once.
#include "base/memory.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iterator>
#include <mutex>

#include "base/system.hpp"
#include "base/threads.hpp"

namespace pyrnn {

namespace {

constexpr std::size_t kept_bytes = std::size_t(1) << 30, kept_blocks = 1024;
constexpr std::size_t smallest_kept = 4096, huge_page = std::size_t(1) << 21;

struct Block {
  void* memory;
  std::size_t bytes;
};

struct Cache {
  std::mutex lock;
  Block blocks[kept_blocks];  // oldest first
  std::size_t count = 0, bytes = 0;
  std::atomic<std::size_t> used{0}, most_used{0};  // bytes that callers hold, now and at most so far

  // Frees the oldest until at most so many bytes are kept.
  void shrink(std::size_t most) {
    while (bytes > most) system::free_aligned(remove(0).memory);
  }

  // A block of `more` bytes leaves; how many bytes may be kept beside those in use.
  std::size_t use(std::size_t more) {
    const std::size_t now = used += more;
    std::size_t most = most_used;
    while (now > most && !most_used.compare_exchange_weak(most, now)) {
    }
    most = std::max(most, now);
    return most + most / 4 - now;
  }

  Block remove(std::size_t i) {
    const Block block = blocks[i];
    bytes -= block.bytes;
    for (--count; i < count; ++i) blocks[i] = blocks[i + 1];
    return block;
  }
};

// Never destroyed. The lock is only ever tried: in a child of fork it may be held for good by a thread that is gone,
// and then memory comes from and goes to malloc.
Cache& cache() {
  static Cache* const kept = new Cache;
  return *kept;
}

}  // namespace

NoMemory::NoMemory(double bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  std::snprintf(message_, sizeof message_, "Unable to allocate %.3g %s", bytes, units[unit]);
}

void* take_memory(std::size_t& bytes, std::size_t spare) {
  if (bytes >= smallest_kept) {
    Cache& kept = cache();
    std::unique_lock<std::mutex> hold(kept.lock, std::try_to_lock);
    if (hold) {
      std::size_t best = kept.count;  // of those that fit best the newest, which caches may still hold
      for (std::size_t i = 0; i < kept.count; ++i) {
        const std::size_t size = kept.blocks[i].bytes;
        if (size >= bytes && size - bytes <= spare && (best == kept.count || size <= kept.blocks[best].bytes)) best = i;
      }
      if (best < kept.count) {
        const Block block = kept.remove(best);
        bytes = block.bytes;
        kept.use(bytes);
        return block.memory;
      }
    }
  }
  const bool huge = (huge_page - bytes % huge_page) % huge_page <= spare && bytes >= huge_page / 2;
  const std::size_t alignment = huge ? huge_page : 64;
  if (bytes > SIZE_MAX - alignment) throw NoMemory(double(bytes));
  bytes = (bytes + alignment - 1) / alignment * alignment;
  auto keep_at_most = [](std::size_t most) {
    std::unique_lock<std::mutex> hold(cache().lock, std::try_to_lock);
    if (hold) cache().shrink(most);
  };
  void* memory = system::take_aligned(alignment, bytes);
  if (!memory) {
    keep_at_most(0);
    memory = system::take_aligned(alignment, bytes);
    if (!memory) throw NoMemory(double(bytes));
  }
  keep_at_most(cache().use(bytes));
  if (alignment == huge_page) system::advise_huge_pages(memory, bytes);  // fewer page faults
  return memory;
}

void give_back_memory(void* memory, std::size_t bytes) noexcept {
  cache().used -= bytes;
  if (bytes >= smallest_kept && bytes <= kept_bytes) {
    Cache& kept = cache();
    std::unique_lock<std::mutex> hold(kept.lock, std::try_to_lock);
    if (hold) {
      while (kept.count == kept_blocks || kept.bytes + bytes > kept_bytes) system::free_aligned(kept.remove(0).memory);
      kept.blocks[kept.count++] = {memory, bytes};
      kept.bytes += bytes;
      return;
    }
  }
  system::free_aligned(memory);
}

void copy_bytes(void* to, const void* from, i64 bytes) {
  Team team(bytes);  // a number is copied in the time of some multiply-adds
  in_slices(team, ceil_div(bytes, 64), [&](const Slice& lines) {
    const i64 begin = 64 * lines.begin, end = std::min(64 * lines.end, bytes);
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, std::size_t(end - begin));
  });
}

}  // namespace pyrnn
