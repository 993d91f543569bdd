// Aligned memory for work and for results, and its division into arrays. What one call gives back the next may take, so
// that a training loop meets no page faults.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "base/integers.hpp"

namespace pyrnn {

// So many bytes are more than there is: in Python a MemoryError that says how many.
class NoMemory : public std::bad_alloc {
 public:
  explicit NoMemory(double bytes);
  const char* what() const noexcept override { return message_; }

 private:
  char message_[48];
};

// At least `bytes` on a cache line's border, uninitialised; `bytes` becomes what there is, at most `spare` more (and
// always up to a cache line). Throws NoMemory.
void* take_memory(std::size_t& bytes, std::size_t spare);
void give_back_memory(void* memory, std::size_t bytes) noexcept;

// `count` elements, uninitialised unless `zero` is called; the memory behind them may have `spare` bytes more.
template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(i64 count) : Buffer(count, std::size_t(count) * sizeof(T)) {}
  Buffer(i64 count, std::size_t spare) : count_(count), bytes_(std::size_t(count) * sizeof(T)) {
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
  i64 size() const { return count_; }
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
  i64 count_ = 0;
  std::size_t bytes_ = 0;  // of the memory behind it
};

// Hands out the arrays of one buffer, each on a cache line's border. Where they lie is said once, by a function of a
// carver: called with an empty one it counts their bytes, with one of the buffer it hands them out.
class Carver {
 public:
  Carver() = default;
  PYRNN_INLINE explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}
  template <class T> PYRNN_INLINE T* take(i64 count) {
    T* const array = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += round_up(count * i64(sizeof(T)), line);
    return array;
  }
  PYRNN_INLINE i64 bytes() const { return bytes_; }  // taken so far

 private:
  static constexpr i64 line = 64;
  char* memory_ = nullptr;
  i64 bytes_ = 0;
};

// The bytes of what lay_out(carver) takes, and a buffer of them that it has been handed.
template <class Layout> i64 bytes_of(Layout lay_out) {
  Carver counting;
  lay_out(counting);
  return counting.bytes();
}
template <class Layout> Buffer<char> laid_out(Layout lay_out) {
  Buffer<char> memory(bytes_of(lay_out));
  Carver handing(memory.get());
  lay_out(handing);
  return memory;
}

// A copy by as many threads as it is worth.
void copy_bytes(void* to, const void* from, i64 bytes);

}  // namespace pyrnn
