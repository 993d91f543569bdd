// The weights of a layer as panels (panels.hpp), turned for the way back, and the gradients of panels back to the
// caller's arrays.
#pragma once

#include "recurrent/compiled.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct Packing {
  using Cell = CellKernels<T>;
  static constexpr int L = lanes<T>;
  static const Compiled<T>& compiled(const Cell& cell) { return static_cast<const Compiled<T>&>(cell); }

  // A projection has weights of its own; otherwise the inner product takes its gate's rows of weight_hh.
  template <class U> static const Matrix<U>& inner_weight(const Cell& c, const Weights<U>& w) {
    return c.projects ? w.hr : w.hh;
  }

  // f(slot, bias, gate) for each vector of a bias.
  template <class U, class Each> static void each_bias(const Compiled<T>& c, const Weights<U>& w, Each f) {
    auto each = [&](int first, const ProductGates& gates, U* bias) {
      for (int v = 0; v < gates.count; ++v) f(first + v, bias, gates.gate[std::size_t(v)]);
    };
    if (w.b_ih) each(c.x_first, c.x_gates, w.b_ih);
    if (!w.b_hh) return;
    each(c.h_first, c.h_gates, w.b_hh);
    if (c.inner_slot >= 0) each(c.inner_slot, c.inner_gates, w.b_hh);
  }

  static void pack(const Cell& cell, const Weights<const T>& w, const Sizes& size, const Packed<T>& out, int part,
                   int parts) {
    const Compiled<T>& c = compiled(cell);
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    auto matrix = [](const Matrix<const T>& weight, const ProductGates& gates, i64 units, i64 columns,
                     const Slice& groups, T* panels) {
      const std::span<const int> gate(gates);
      if (gates.count == 0) return;
      if (weight.form)
        weight.form->pack(weight, gate, units, columns, groups.begin, groups.end, panels);
      else
        PYRNN_ISA::pack(weight.data, columns, gate, units, columns, groups.begin, groups.end, panels);
    };
    matrix(w.ih, c.x_gates, size.H, size.I, mine, out.ih);
    matrix(w.hh, c.h_gates, size.H, size.P, mine, out.hh);
    matrix(inner_weight(c, w), c.inner_gates, size.P, size.H, mine_p, out.inner);
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const i64 valid = size.H - g * L;
      T* bias = out.bias + g * c.slots * L;
      for (int s = 0; s < c.slots; ++s) store(bias + s * L, Vec<T>{});
      each_bias(c, w, [&](int slot, const T* b, int gate) {
        store(bias + slot * L, load(bias + slot * L) + load(b + gate * size.H + g * L, valid));
      });
      for (int q = 0; q < c.unit_weights; ++q) {
        const T* const from = w.unit[std::size_t(q)];
        store(out.unit + (g * c.unit_weights + q) * L, from ? load(from + g * L, valid) : Vec<T>{});
      }
    }
  }

  static void transpose(const Cell& c, const Packed<T>& panels, const Sizes& size, const Transposed<T>& out, int part,
                        int parts) {
    auto run = [&](int vectors, const PackedMatrix<T>& from, i64 units, i64 columns, T* to) {
      const Slice mine(groups_of<T>(columns), part, parts);
      const auto turn = from.form ? from.form->transpose : transpose_panels<T>;
      if (vectors) turn(vectors, from, units, columns, mine.begin, mine.end, to);
    };
    run(c.x_vectors, panels.ih, size.H, size.I, out.ih);
    run(c.h_vectors, panels.hh, size.H, size.P, out.hh);
    run(c.inner, panels.inner, size.P, size.H, out.inner);
  }

  static void unpack_add(const Cell& cell, const Packed<T>& grads, const Sizes& size, const Weights<T>& w, int part,
                         int parts) {
    const Compiled<T>& c = compiled(cell);
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    auto matrix = [](const T* panels, const ProductGates& gates, i64 units, i64 columns, const Slice& groups,
                     T* weight) {
      if (gates.count && weight) PYRNN_ISA::unpack_add(panels, gates, units, columns, groups.begin, groups.end, weight);
    };
    matrix(grads.ih, c.x_gates, size.H, size.I, mine, w.ih);
    matrix(grads.hh, c.h_gates, size.H, size.P, mine, w.hh);
    matrix(grads.inner, c.inner_gates, size.P, size.H, mine_p, inner_weight(c, w));
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const i64 valid = size.H - g * L;
      auto add = [&](T* to, const T* from) { store(to, load(to, valid) + load(from), valid); };
      each_bias(c, w, [&](int slot, T* b, int gate) {
        add(b + gate * size.H + g * L, grads.bias + (g * c.slots + slot) * L);
      });
      for (int q = 0; q < c.unit_weights; ++q)
        if (T* const to = w.unit[std::size_t(q)]) add(to + g * L, grads.unit + (g * c.unit_weights + q) * L);
    }
  }
};

}  // namespace pyrnn::PYRNN_ISA
