// The compiled module: a table of contents.
#include "../dispatch.hpp"
#include "recurrent.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace pyrnn;
  m.doc() = "The compiled kernels of pyrnn.";
  get_num_threads();  // a wrong PYRNN_NUM_THREADS or PYRNN_ISA is an error at import
  m.attr("isa") = instruction_set().name;
  m.def("get_num_threads", &get_num_threads);
  m.def("set_num_threads", [](int threads) {
    if (threads < 1 || threads > most_threads)
      wrong_value("set_num_threads", "threads is " + std::to_string(threads) + ", expected 1 to " + std::to_string(most_threads));
    set_num_threads(threads);
  }, py::arg("threads"));
  bind_recurrent(m);
  bind_rnn(m);
  bind_lstm(m);
  bind_gru(m);
  bind_dense(m);
}
