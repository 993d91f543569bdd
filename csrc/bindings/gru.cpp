// pyrnn.kernels.gru
#include "recurrent.hpp"

namespace pyrnn {

namespace {

const RecurrentOp op{"gru", 3, false, {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}};

CellKind kind_of(bool reset_after) { return reset_after ? CellKind::gru_reset_after : CellKind::gru_reset_before; }

}  // namespace

void bind_gru(py::module_& parent) {
  py::module_ m = parent.def_submodule("gru", "The gated recurrent unit, compiled.");
  m.attr("WEIGHTS") = weight_names(op);
  const py::none none;
  m.def(
      "forward",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object out, bool reset_after) {
        return recurrent_forward(op, kind_of(reset_after), x, state, weights, ids, lengths, reset, reverse, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false, py::arg("out") = none,
      py::arg("reset_after") = true, forward_doc);
  m.def(
      "vjp",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object checkpoint_every, py::object out, bool reset_after) {
        return recurrent_vjp(op, kind_of(reset_after), x, state, weights, ids, lengths, reset, reverse,
                             checkpoint_every, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false,
      py::arg("checkpoint_every") = none, py::arg("out") = none, py::arg("reset_after") = true, vjp_doc);
  m.def(
      "stream",
      [](py::object layers, py::object batch, bool reset_after) {
        return recurrent_stream(op, kind_of(reset_after), layers, batch);
      },
      py::arg("layers"), py::arg("batch"), py::kw_only(), py::arg("reset_after") = true, stream_doc);
}

}  // namespace pyrnn
