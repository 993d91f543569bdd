# cython: language_level=3
"""Recurrent layers step by step from Cython, without the GIL; to be cimported.

    # cython: language_level=3
    from pyrnn.cython_stream cimport float32_stream, float32_of, float32_step

    def run(stream, const float[:, ::1] x, float[:, ::1] y):     # stream = layer.stream()
        cdef float32_stream s = float32_of(stream)
        cdef Py_ssize_t t
        with nogil:
            for t in range(x.shape[0]):
                float32_step(s, &x[t, 0], &y[t, 0])

Functions, and the same with float64 and double:

- `float32_of(stream)`: the C stream of a pyrnn stream; TypeError where it is none or has another dtype. It is the same
  stream, with the same state: what Cython steps, Python sees in `stream.state`, and the other way round.
- `float32_step(s, x, y)`: one step. x points to (N, I) numbers, y to (N, H), rows side by side.
- `float32_reset(s, row)`: sets a row's state to zero; IndexError where there is no such row.

Bits are those of `stream.step`. Several threads may step one stream; they wait for each other.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from "stream_api.h":
    ctypedef struct pyrnn_stream_api:
        void *(*borrow)(object compiled, int doubles) except NULL
        int (*step_float)(void *stream, const float *x, float *y) except -1 nogil
        int (*step_double)(void *stream, const double *x, double *y) except -1 nogil
        int (*reset)(void *stream, Py_ssize_t row) except -1 nogil

from . import _core
from .stream import Stream

ctypedef fused real:
    float
    double

cdef pyrnn_stream_api *api = <pyrnn_stream_api *>PyCapsule_GetPointer(_core._stream_api, "pyrnn._core._stream_api")


cdef void *borrow(object stream, int doubles) except NULL:
    if not isinstance(stream, Stream):
        raise TypeError(f"cython_stream: stream is {type(stream).__name__}, expected what layer.stream() returns")
    return api.borrow(stream._compiled, doubles)


cdef float32_stream float32_of(object stream) except *:
    return float32_stream(borrow(stream, 0))


cdef float64_stream float64_of(object stream) except *:
    return float64_stream(borrow(stream, 1))


cdef int float32_step(float32_stream stream, const float *x, float *y) except -1 nogil:
    return api.step_float(stream.stream, x, y)


cdef int float64_step(float64_stream stream, const double *x, double *y) except -1 nogil:
    return api.step_double(stream.stream, x, y)


cdef int float32_reset(float32_stream stream, Py_ssize_t row) except -1 nogil:
    return api.reset(stream.stream, row)


cdef int float64_reset(float64_stream stream, Py_ssize_t row) except -1 nogil:
    return api.reset(stream.stream, row)


def repeat(stream, const real[:, ::1] x, real[:, ::1] y, Py_ssize_t count):
    """`count` steps on the same x (N, I) into y (N, H): the loop that the benchmarks time. Both arrays have the layer's
    dtype and are C-ordered.

        pyrnn.cython_stream.repeat(stream, x, y, 1000)
    """
    cdef void *s = borrow(stream, real is double)
    cdef Py_ssize_t k
    layer, rows = stream._layer, stream._rows
    for name, came, expected in (
        ("x", (x.shape[0], x.shape[1]), (rows, layer.input_size)),
        ("y", (y.shape[0], y.shape[1]), (rows, getattr(layer, "proj_size", 0) or layer.hidden_size)),
    ):
        if came != expected:
            raise ValueError(f"cython_stream.repeat: {name} has shape {came}, expected {expected}")
    with nogil:
        for k in range(count):
            if real is double:
                api.step_double(s, &x[0, 0], &y[0, 0])
            else:
                api.step_float(s, &x[0, 0], &y[0, 0])
