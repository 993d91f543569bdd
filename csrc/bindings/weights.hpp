// The weights and states of a recurrent op as its calls, pullbacks and streams are given them.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/recurrent.hpp"

namespace pyrnn {

py::sequence to_sequence(const std::string& call, const std::string& name, py::handle object, std::size_t length);

template <class T> const CellKernels<T>& cell_kernels(CellKind kind) { return *kernels<T>().cells[int(kind)]; }

// f(place, weight, where among the numbers of units it begins) for each of an op's weights.
template <class F> void each_weight(const RecurrentOp& op, F f) {
  i64 unit = 0;
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    f(i, op.weights[i], unit);
    if (op.weights[i].role == Role::unit) unit += op.weights[i].vectors(op.gate_count());
  }
}

// Makes `data`, of this weight, part of `w`.
template <class T> void put(Weights<T>& w, const CellWeight& weight, i64 unit, T* data, int gates, i64 H) {
  switch (weight.role) {
    case Role::ih: w.ih.data = data; break;
    case Role::hh: w.hh.data = data; break;
    case Role::b_ih: w.b_ih = data; break;
    case Role::b_hh: w.b_hh = data; break;
    case Role::hr: w.hr.data = data; break;
    case Role::unit:
      for (i64 v = 0; v < weight.vectors(gates); ++v) w.unit[std::size_t(unit + v)] = data ? data + v * H : nullptr;
  }
}

// One model, or several of one shape: all arrays then have an axis of models in front.
struct Models {
  i64 count = 1;
  bool axis = false;

  Shape shape(const Shape& of_one) const { return axis ? of_one.behind(count) : of_one; }
  // From one model's numbers to the next one's.
  template <class T> i64 distance(const py::array& a) const { return axis ? a.strides(0) / i64(sizeof(T)) : 0; }
  // Of several the first one's part of an array.
  py::object first(const py::object& a) const { return axis ? py::object(a[py::int_(0)]) : a; }
};

// The arrays of several models' weights (or gradients): where those of the first begin, null where absent, and how far
// those of the next are away.
template <class T> struct ModelWeights {
  std::vector<T*> data;
  std::vector<i64> distances;

  // `w` with the arrays of this model.
  Weights<T> of(const RecurrentOp& op, Weights<T> w, i64 model, i64 H) const {
    each_weight(op, [&](std::size_t i, const CellWeight& weight, i64 unit) {
      if (data[i]) put(w, weight, unit, data[i] + model * distances[i], op.gate_count(), H);
    });
    return w;
  }
};

// The arrays of one layer's weights, kept alive, and what they say about its sizes.
template <class T> struct ParsedWeights {
  std::vector<py::object> arrays;  // as passed, of several models the first one's; None where absent
  std::vector<py::array> scales;   // of those that are int8
  Weights<const T> pointers;
  Sizes size;
  CellKind kind;
  Models models;
  ModelWeights<const T> all;

  Weights<const T> of(const RecurrentOp& op, i64 model) const {
    return models.axis ? all.of(op, pointers, model, size.H) : pointers;
  }
};

// Matrices may be encoded (encoded.hpp), but not those of several models.
template <class T>
ParsedWeights<T> parse_weights(const std::string& call, const std::string& what, const RecurrentOp& op, Chosen chosen,
                               py::handle object);

// New arrays for the states, [lead..., width] each.
template <class T> py::tuple new_state(const RecurrentOp& op, Shape lead, const Sizes& size, States<T>& pointers) {
  py::tuple state(op.states.size());
  lead.add(0);
  for (std::size_t k = 0; k < op.states.size(); ++k) {
    lead.back() = size.of_state(int(k));
    py::array_t<T> a = empty<T>(lead);
    pointers[k] = a.mutable_data();
    state[k] = a;
  }
  return state;
}

}  // namespace pyrnn
