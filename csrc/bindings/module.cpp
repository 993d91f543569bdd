// The compiled module: a table of contents.
#include "bindings/bindings.hpp"

PYBIND11_MODULE(_core, m) {
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
