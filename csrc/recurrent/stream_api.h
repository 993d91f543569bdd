/* The C functions behind pyrnn/cython_stream.pyx, handed over in the capsule pyrnn._core._stream_api. None needs the GIL
   but `borrow`; a failure is -1 or NULL with a Python error set. */
#pragma once

#include <Python.h>

typedef struct {
  /* The C++ stream of a compiled stream object, which must outlive it, and its sizes {N, I, P}, which never change; NULL
     where its dtype is the other one. */
  void* (*borrow)(PyObject* compiled, int doubles, Py_ssize_t sizes[3]);
  int (*step_float)(void* stream, const float* x, float* y);    /* x [N,I], y [N,P], side by side */
  int (*step_double)(void* stream, const double* x, double* y);
  int (*reset)(void* stream, Py_ssize_t row);
} pyrnn_stream_api;
