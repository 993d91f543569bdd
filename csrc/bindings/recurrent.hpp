// The functions every recurrent op has: forward, vjp and stream, over one description of the op.
#pragma once

#include "../dispatch.hpp"
#include "arrays.hpp"

namespace pyrnn {

struct RecurrentOp {
  const char* name;
  int gates;
  bool cell_state;
  std::vector<const char*> weights;  // as they are passed; a name that is not one of `Weights` is the unit weights
  // The kind of cell that takes a projection or unit weights where they may be absent; null where they may not.
  CellKind (*with)(bool projection, bool unit_weights) = nullptr;

  // The place of a weight among them, weights.size() where the op has none of that name; that of the unit weights.
  std::size_t place(const char* name) const;
  std::size_t unit_place() const;
};

py::tuple recurrent_forward(const RecurrentOp&, CellKind, py::handle x, py::handle state, py::handle weights,
                            py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out);
py::tuple recurrent_vjp(const RecurrentOp&, CellKind, py::handle x, py::handle state, py::handle weights,
                        py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle checkpoint_every,
                        py::handle out);
py::object recurrent_stream(const RecurrentOp&, CellKind, py::handle layers, py::handle batch);

py::tuple weight_names(const RecurrentOp&);

// The classes behind `pullback` and `stream`.
void bind_recurrent(py::module_& m);
void bind_rnn(py::module_& m);
void bind_lstm(py::module_& m);
void bind_gru(py::module_& m);
void bind_dense(py::module_& m);
void bind_hopfield(py::module_& m);
void bind_attention(py::module_& m);
void bind_machine(py::module_& m);

inline constexpr const char* forward_doc =
    "One layer in one direction over x (T, N, I): returns y (T, N, H) and the final state, a tuple of arrays. With ids "
    "(T, N), x is a table (V, I) and step t of row n reads x[ids[t, n]].";
inline constexpr const char* vjp_doc =
    "forward, and a pullback(dy, dstate, grads) -> (dx, dstate) that adds to the arrays in grads; used once.";
inline constexpr const char* stream_doc = "Layers one upon the other (a sequence of weights), one step at a time.";

}  // namespace pyrnn
