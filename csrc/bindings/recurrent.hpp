// The functions every recurrent op has: forward, vjp and stream, over one description of the op.
#pragma once

#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "dispatch.hpp"

namespace pyrnn {

// What a weight is to the time loop. `unit`: numbers of each unit, H for each letter H, or for each gate.
enum class Role { ih, hh, b_ih, b_hh, hr, unit };

struct CellWeight {
  const char* name;
  Role role;
  const char* letters;  // of its shape: G = gates * H, I, H, P; "3H" is 3 * H
  bool optional = false;

  i64 vectors(int gates) const;  // of a weight that is numbers of units
  Shape shape(int gates, const Sizes& size) const;
};

// What an op's options choose.
struct Chosen {
  CellKind kind;
  CellOptions options;
  bool rounded = false;  // the factors of products are, to bfloat16
  Chosen(CellKind kind, const CellOptions& options = {}) : kind(kind), options(options) {}
};

// The compiled side of pyrnn/cells.py, which says the same.
struct RecurrentOp {
  const char* name;
  std::string gates;                // a letter for each
  std::vector<const char*> states;  // the first is the output
  std::vector<CellWeight> weights;  // as they are passed
  // The kind of cell where a projection or numbers of units may be absent; null where they may not.
  CellKind (*with)(CellKind chosen, bool projection, bool unit_weights) = nullptr;
  int gate_count() const { return int(gates.size()); }
};

py::tuple recurrent_forward(const RecurrentOp&, Chosen, py::handle x, py::handle state, py::handle weights,
                            py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out);
// The same on weights that are packed already.
template <class T> class Layer;
template <class T>
py::tuple packed_forward(const std::string& call, const RecurrentOp&, const Layer<T>&, py::handle x, py::handle state,
                         py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out);
py::tuple recurrent_vjp(const RecurrentOp&, Chosen, py::handle x, py::handle state, py::handle weights, py::handle ids,
                        py::handle lengths, py::handle reset, bool reverse, py::handle checkpoint_every, bool per_row,
                        py::handle out);
py::object recurrent_stream(const RecurrentOp&, Chosen, py::handle layers, py::handle batch);

}  // namespace pyrnn
