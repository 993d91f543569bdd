// What every binding file gives to the module: one function that adds its ops.
#pragma once

#include <pybind11/pybind11.h>

namespace pyrnn {

void bind_recurrent(pybind11::module_& m);  // the classes behind `pullback` and `stream`
void bind_cells(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_hopfield(pybind11::module_& m);
void bind_attention(pybind11::module_& m);
void bind_machine(pybind11::module_& m);

}  // namespace pyrnn
