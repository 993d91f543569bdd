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

// The arrays of one layer's weights, kept alive, and what they say about its sizes.
template <class T> struct ParsedWeights {
  std::vector<py::object> arrays;  // as passed; None where absent
  std::vector<py::array> scales;   // of those that are int8
  Weights<const T> pointers;
  Sizes size;
  CellKind kind;
};

// Matrices may be encoded (encoded.hpp).
template <class T>
ParsedWeights<T> parse_weights(const std::string& call, const std::string& what, const RecurrentOp& op, Chosen chosen,
                               py::handle object);

// New arrays for the states, [lead..., width] each.
template <class T>
py::tuple new_state(const RecurrentOp& op, std::vector<i64> lead, const Sizes& size, States<T>& pointers) {
  py::tuple state(op.states.size());
  lead.push_back(0);
  for (std::size_t k = 0; k < op.states.size(); ++k) {
    lead.back() = size.of_state(int(k));
    py::array_t<T> a = empty<T>(lead);
    pointers[k] = a.mutable_data();
    state[k] = a;
  }
  return state;
}

}  // namespace pyrnn
