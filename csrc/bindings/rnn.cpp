// pyrnn.kernels.rnn
#include "recurrent.hpp"

namespace pyrnn {

namespace {

const RecurrentOp op{"rnn", 1, false, {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}};

CellKind kind_of(const std::string& call, const std::string& nonlinearity) {
  if (nonlinearity == "tanh") return CellKind::rnn_tanh;
  if (nonlinearity == "relu") return CellKind::rnn_relu;
  if (nonlinearity == "sigmoid") return CellKind::rnn_sigmoid;
  wrong_value(call, "nonlinearity is '" + nonlinearity + "', expected 'tanh', 'relu' or 'sigmoid'");
}

}  // namespace

void bind_rnn(py::module_& parent) {
  py::module_ m = parent.def_submodule("rnn", "The Elman RNN, compiled.");
  m.attr("WEIGHTS") = weight_names(op);
  const py::none none;
  m.def(
      "forward",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object out, const std::string& nonlinearity) {
        return recurrent_forward(op, kind_of("rnn.forward", nonlinearity), x, state, weights, ids, lengths, reset,
                                 reverse, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false, py::arg("out") = none,
      py::arg("nonlinearity") = "tanh", forward_doc);
  m.def(
      "vjp",
      [](py::object x, py::object state, py::object weights, py::object ids, py::object lengths, py::object reset,
         bool reverse, py::object checkpoint_every, py::object out, const std::string& nonlinearity) {
        return recurrent_vjp(op, kind_of("rnn.vjp", nonlinearity), x, state, weights, ids, lengths, reset, reverse,
                             checkpoint_every, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false,
      py::arg("checkpoint_every") = none, py::arg("out") = none, py::arg("nonlinearity") = "tanh", vjp_doc);
  m.def(
      "stream",
      [](py::object layers, py::object batch, const std::string& nonlinearity) {
        return recurrent_stream(op, kind_of("rnn.stream", nonlinearity), layers, batch);
      },
      py::arg("layers"), py::arg("batch"), py::kw_only(), py::arg("nonlinearity") = "tanh", stream_doc);
}

}  // namespace pyrnn
