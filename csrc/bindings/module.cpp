// The compiled module: a table of contents.
#include "bindings/bindings.hpp"

// That it needs no GIL rests on what docs/internals.md says of it.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace pyrnn;
  m.doc() = "The compiled kernels of pyrnn.";
  bind_process(m);
  bind_machine(m);
  bind_pullback(m);
  bind_stream(m);
  bind_cells(m);
  bind_attention(m);
  bind_linear(m);
  bind_convolution(m);
  bind_losses(m);
  bind_norm(m);
  bind_alignment(m);
  bind_optimisers(m);
  bind_hopfield(m);
}
