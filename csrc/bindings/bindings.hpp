// What every binding file gives to the module: one function that adds its ops.
#pragma once

#include <pybind11/pybind11.h>

namespace pyrnn {

void bind_process(pybind11::module_& m);  // the instruction set, threads and memory that this process uses
void bind_machine(pybind11::module_& m);
void bind_pullback(pybind11::module_& m);  // the classes that vjp and stream of a cell return
void bind_stream(pybind11::module_& m);
void bind_cells(pybind11::module_& m);
void bind_attention(pybind11::module_& m);
void bind_linear(pybind11::module_& m);
void bind_packed(pybind11::module_& m, pybind11::module_& linear);
void bind_convolution(pybind11::module_& m);
void bind_losses(pybind11::module_& m);
void bind_norm(pybind11::module_& m);
void bind_alignment(pybind11::module_& m);
void bind_optimisers(pybind11::module_& m);
void bind_hopfield(pybind11::module_& m);

}  // namespace pyrnn
