// A cell as the time loop sees it, which is compiled once for all of them: what its declarations (stage.hpp) amount to,
// as data, and its equations behind pointers. equations.hpp makes it.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "recurrent/contract.hpp"
#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> class Part;

// The gates of a product, in the order of their vectors.
struct ProductGates {
  int count = 0;
  std::array<int, most_vectors> gate{};

  ProductGates() = default;
  template <std::size_t n> constexpr ProductGates(const std::array<int, n>& gates) : count(int(n)) {
    static_assert(n <= most_vectors);
    for (std::size_t v = 0; v < n; ++v) gate[v] = gates[v];
  }
  constexpr operator std::span<const int>() const { return {gate.data(), std::size_t(count)}; }
};

// A module for pages (csrc/web/) goes forward alone.
#if defined(__wasm__)
inline constexpr bool has_way_back = false;
#else
inline constexpr bool has_way_back = true;
#endif

inline constexpr int most_stages = 2, most_norms = 2;

// Equations run over unit groups [g0, g1) of all rows of a part that are alive at step s.
template <class T> struct StageKernels {
  Product product = Product::none;
  int first = 0;  // slot of its record in which its product's results begin
  bool projects = false;
  bool leaves_inner = false;  // for the product of the next stage
  // The team meets where the next stage's product, of this step or another, reads what others have made; and what they
  // leave for norms must not be overwritten too early.
  bool meets_after = false;
  int norms = 0, norms_before = 0;  // how many it has, and the stages before it
  std::array<Norm, most_norms> norm{};
  void (*forward)(const Part<T>&, i64 s, i64 g0, i64 g1) = nullptr;
  void (*backward)(const Part<T>&, i64 s, i64 g0, i64 g1) = nullptr;
};

// Only the first stage may have a product of the output, only the last one a product of what a stage leaves.
template <class T> struct Compiled : CellKernels<T> {
  ProductGates x_gates, h_gates, inner_gates;
  int x_first = 0, h_first = 0;  // slots in which the results of the input product and of that of the output begin
  int inner_slot = -1;           // the slot of the cell's record that the inner product adds to, if it does
  // The slots that products fill begin the record. Their gradients lie in as many from gradients_first on: where norms
  // leave those, or in the same.
  int filled = 0, gradients_first = 0;
  int stages = 0;
  std::array<StageKernels<T>, most_stages> stage{};
  // Of steps [from, to) of some rows, added to the gradients of unit group g; null where there are no weights of units.
  void (*unit_grads)(const Part<T>&, i64 from, i64 to, const Slice& rows, i64 g, T* grads) = nullptr;

  bool has_hidden() const { return this->h_vectors > 0; }
  const StageKernels<T>& last() const { return stage[std::size_t(stages - 1)]; }
};

}  // namespace pyrnn::PYRNN_ISA
