// pyrnn.kernels.lstm
#include "recurrent.hpp"

namespace pyrnn {

namespace {

CellKind kind_with(bool projection, bool peephole) {
  if (projection) return peephole ? CellKind::lstm_peephole_projected : CellKind::lstm_projected;
  return peephole ? CellKind::lstm_peephole : CellKind::lstm;
}

const RecurrentOp op{
    "lstm", 4, true, {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_ch"}, kind_with};

}  // namespace

void bind_lstm(py::module_& parent) {
  py::module_ m = parent.def_submodule("lstm", "The long short-term memory, compiled.");
  m.attr("WEIGHTS") = weight_names(op);
  const py::none none;
  m.def(
      "forward",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object out) {
        return recurrent_forward(op, CellKind::lstm, x, state, weights, ids, lengths, reset, reverse, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false, py::arg("out") = none,
      forward_doc);
  m.def(
      "vjp",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object checkpoint_every, py::object out) {
        return recurrent_vjp(op, CellKind::lstm, x, state, weights, ids, lengths, reset, reverse, checkpoint_every,
                             out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false,
      py::arg("checkpoint_every") = none, py::arg("out") = none, vjp_doc);
  m.def(
      "stream", [](py::object layers, py::object batch) { return recurrent_stream(op, CellKind::lstm, layers, batch); },
      py::arg("layers"), py::arg("batch"), stream_doc);
}

}  // namespace pyrnn
