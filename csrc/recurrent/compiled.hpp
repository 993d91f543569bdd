// A cell as the time loop sees it, which is compiled once for all of them: what its declarations (stage.hpp) amount to,
// as data, and its equations behind pointers. equations.hpp makes it.
#pragma once

#include <span>

#include "recurrent/contract.hpp"
#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> class Part;

// The gates of a product, in the order of their vectors.
struct Gates {
  int count = 0;
  std::array<int, most_vectors> gate{};

  template <std::size_t n> constexpr Gates(const std::array<int, n>& gates) : count(int(n)) {
    static_assert(n <= most_vectors);
    for (std::size_t v = 0; v < n; ++v) gate[v] = gates[v];
  }
  constexpr operator std::span<const int>() const { return {gate.data(), std::size_t(count)}; }
};

inline constexpr int most_stages = 2, most_norms = 2;

// Equations run over unit groups [g0, g1) of all rows of a part that are alive at step s.
template <class T> struct StageKernels {
  Product product;
  int first;    // slot of its record in which its product's results begin
  int vectors;  // of its record: the cell's slots, or one where it projects
  bool projects;
  bool leaves_inner;        // for the product of the next stage
  bool meets_after;         // does the team, once the stage is done
  int norms, norms_before;  // how many it has, and the stages before it
  std::array<Norm, most_norms> norm;
  void (*forward)(const Part<T>&, i64 s, i64 g0, i64 g1);
  void (*backward)(const Part<T>&, i64 s, i64 g0, i64 g1);
};

// Only the first stage may have a product of the output, only the last one a product of what a stage leaves.
template <class T> struct Compiled : CellKernels<T> {
  int x_first, h_first;  // slots in which the results of the input product and of that of the output begin
  Gates x_gates, h_gates, inner_gates;
  int inner_slot;  // the slot of the cell's record that the inner product adds to, -1 where there is none
  // The slots that products fill begin the record. Their gradients lie in as many from gradients_first on: where norms
  // leave those, or in the same.
  int filled, gradients_first;
  int stages;
  std::array<StageKernels<T>, most_stages> stage;
  void (*unit_grads)(const Part<T>&, i64 from, i64 to, i64 g);  // of steps [from, to), added to run.grads; or null

  bool has_hidden() const { return this->h_vectors > 0; }
  const StageKernels<T>& last() const { return stage[std::size_t(stages - 1)]; }
};

}  // namespace pyrnn::PYRNN_ISA
