// The weights of a layer as panels (panels.hpp), turned for the way back, and the gradients of panels back to the
// caller's arrays.
#pragma once

#include "recurrent/part.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T, class Cell> struct Packing {
  using Facts = CellFacts<Cell>;
  static constexpr int L = lanes<T>, slots = Cell::slots;

  // A projection has weights of its own; otherwise the inner product takes its gate's rows of weight_hh.
  template <class U> static U* inner_weight(const Weights<U>& w) { return Facts::projects ? w.hr : w.hh; }

  // f(slot, bias, gate) for each vector of a bias.
  template <class U, class Each> static void each_bias(const Weights<U>& w, Each f) {
    if (w.b_ih)
      for (int v = 0; v < Facts::x_vectors; ++v) f(Cell::x_first + v, w.b_ih, Cell::x_gates[v]);
    if (!w.b_hh) return;
    for (int v = 0; v < Facts::h_vectors; ++v) f(Facts::h_first + v, w.b_hh, Facts::h_gates[v]);
    if constexpr (Facts::shares_record) f(Facts::Last::first, w.b_hh, Facts::Last::gates[0]);
  }

  static void pack(const Weights<const T>& w, const Sizes& size, const Packed<T>& out, int part, int parts) {
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    pyrnn::PYRNN_ISA::pack(w.ih, size.I, Cell::x_gates, size.H, size.I, mine.begin, mine.end, out.ih);
    if constexpr (Facts::has_hidden)
      pyrnn::PYRNN_ISA::pack(w.hh, size.P, Facts::h_gates, size.H, size.P, mine.begin, mine.end, out.hh);
    if constexpr (Facts::has_inner)
      pyrnn::PYRNN_ISA::pack(inner_weight(w), size.H, Facts::Last::gates, size.P, size.H, mine_p.begin, mine_p.end,
                             out.inner);
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const i64 valid = size.H - g * L;
      T* bias = out.bias + g * slots * L;
      for (int s = 0; s < slots; ++s) store(bias + s * L, Vec<T>{});
      each_bias(w, [&](int slot, const T* b, int gate) {
        store(bias + slot * L, load(bias + slot * L) + load(b + gate * size.H + g * L, valid));
      });
      for (int q = 0; q < Cell::unit_weights; ++q)
        store(out.unit + (g * Cell::unit_weights + q) * L, w.unit[q] ? load(w.unit[q] + g * L, valid) : Vec<T>{});
    }
  }

  static void transpose(const Packed<T>& panels, const Sizes& size, const Transposed<T>& out, int part, int parts) {
    auto run = [&]<int V>(const T* from, i64 units, i64 columns, T* to) {
      const Slice mine(groups_of<T>(columns), part, parts);
      if constexpr (V > 0) transpose_panels<V>(from, units, columns, mine.begin, mine.end, to);
    };
    run.template operator()<Facts::x_vectors>(panels.ih, size.H, size.I, out.ih);
    run.template operator()<Facts::h_vectors>(panels.hh, size.H, size.P, out.hh);
    if constexpr (Facts::has_inner) run.template operator()<1>(panels.inner, size.P, size.H, out.inner);
  }

  static void unpack_add(const Packed<T>& grads, const Sizes& size, const Weights<T>& w, int part, int parts) {
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    if (w.ih) pyrnn::PYRNN_ISA::unpack_add(grads.ih, Cell::x_gates, size.H, size.I, mine.begin, mine.end, w.ih);
    if constexpr (Facts::has_hidden)
      if (w.hh) pyrnn::PYRNN_ISA::unpack_add(grads.hh, Facts::h_gates, size.H, size.P, mine.begin, mine.end, w.hh);
    if constexpr (Facts::has_inner)
      if (T* inner = inner_weight(w))
        pyrnn::PYRNN_ISA::unpack_add(grads.inner, Facts::Last::gates, size.P, size.H, mine_p.begin, mine_p.end, inner);
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const i64 valid = size.H - g * L;
      auto add = [&](T* to, const T* from) { store(to, load(to, valid) + load(from), valid); };
      each_bias(w,
                [&](int slot, T* b, int gate) { add(b + gate * size.H + g * L, grads.bias + (g * slots + slot) * L); });
      for (int q = 0; q < Cell::unit_weights; ++q)
        if (w.unit[q]) add(w.unit[q] + g * L, grads.unit + (g * Cell::unit_weights + q) * L);
    }
  }
};

}  // namespace pyrnn::PYRNN_ISA
