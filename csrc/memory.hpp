// Aligned work memory, freed with its owner.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pyrnn {

// `count` elements on a cache line's border; uninitialised unless `zero` is called. Throws std::bad_alloc.
template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t count) : count_(count) {
    constexpr std::size_t huge_page = std::size_t(1) << 21;
    std::size_t bytes = std::size_t(count) * sizeof(T);
    if (bytes == 0) return;
    const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge_page) madvise(data_, bytes, MADV_HUGEPAGE);  // fewer page faults; only advice
#endif
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  T* get() const { return data_; }
  std::int64_t size() const { return count_; }
  Buffer&& zero() && {
    if (count_) std::memset(data_, 0, std::size_t(count_) * sizeof(T));
    return std::move(*this);
  }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  std::int64_t count_ = 0;
};

}  // namespace pyrnn
