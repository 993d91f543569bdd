// Aligned memory for work and for results. What one call gives back the next may take, so that a training loop meets no
// page faults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace pyrnn {

// At least `bytes` on a cache line's border, uninitialised; `bytes` becomes what there is, at most `spare` more (and
// always up to a cache line). Throws std::bad_alloc.
void* take_memory(std::size_t& bytes, std::size_t spare);
void give_back_memory(void* memory, std::size_t bytes) noexcept;

// `count` elements, uninitialised unless `zero` is called; the memory behind them may have `spare` bytes more.
template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t count) : Buffer(count, std::size_t(count) * sizeof(T)) {}
  Buffer(std::int64_t count, std::size_t spare) : count_(count), bytes_(std::size_t(count) * sizeof(T)) {
    if (bytes_) data_ = static_cast<T*>(take_memory(bytes_, spare));
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_) give_back_memory(data_, bytes_);
  }

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
    std::swap(bytes_, other.bytes_);
  }
  T* data_ = nullptr;
  std::int64_t count_ = 0;
  std::size_t bytes_ = 0;  // of the memory behind it
};

}  // namespace pyrnn
