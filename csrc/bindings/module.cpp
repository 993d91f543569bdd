// The compiled module: a table of contents.
#include "../dispatch.hpp"
#include "recurrent.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace pyrnn;
  m.doc() = "The compiled kernels of pyrnn.";
  // A wrong PYRNN_NUM_THREADS or PYRNN_ISA is an error at import.
  get_num_threads();
  instruction_set();
  m.def(
      "isa", [] { return instruction_set().name; },
      "The instruction set in use: x86-64-v4, x86-64-v3, x86-64-v2 or arm64-neon.");
  m.def("get_num_threads", &get_num_threads);
  m.def(
      "set_num_threads",
      [](py::object threads) {
        set_num_threads(int(to_integer("set_num_threads", "threads", threads, 1, most_threads)));
      },
      py::arg("threads"));
  m.def(
      "copied",
      [](py::object array) {
        return with_real("copied", "array", array, [&]<class T>() -> py::array {
          const auto from = py::reinterpret_borrow<py::array>(array);
          py::array_t<T> to = empty<T>(std::vector<py::ssize_t>(from.shape(), from.shape() + from.ndim()));
          py::module_::import("numpy").attr("copyto")(to, from);
          return to;
        });
      },
      py::arg("array"), "A C-ordered copy, in memory that earlier results have given back.");
  bind_recurrent(m);
  bind_rnn(m);
  bind_lstm(m);
  bind_gru(m);
  bind_dense(m);
  bind_hopfield(m);
  bind_attention(m);
  bind_machine(m);
}
