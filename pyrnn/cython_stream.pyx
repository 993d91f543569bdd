# cython: language_level=3, freethreading_compatible=True
"""Recurrent layers step by step from Cython, without the GIL; to be cimported.

    # cython: language_level=3
    from pyrnn.cython_stream cimport float32_stream, float32_of, float32_step

    def run(stream, const float[:, :, ::1] x, float[:, :, ::1] y):  # stream = layer.stream(batch=N)
        cdef float32_stream s = float32_of(stream)
        cdef Py_ssize_t t
        if (x.shape[1], x.shape[2]) != (s.rows, s.inputs) or (y.shape[1], y.shape[2]) != (s.rows, s.outputs):
            raise ValueError("x must be (T, N, I) and y (T, N, H)")
        if x.shape[0] != y.shape[0]:
            raise ValueError("x and y must have as many steps")
        with nogil:
            for t in range(x.shape[0]):
                float32_step(s, &x[t, 0, 0], &y[t, 0, 0])

Functions, and the same with float64 and double:

- `float32_of(stream)`: the C stream of a pyrnn stream; TypeError where it is none or has another dtype. It is the same
  stream, with the same state: what Cython steps, Python sees in `stream.state`, and the other way round.
- `s.rows`, `s.inputs`, `s.outputs`: N, I and H (P with a projection), which never change. After `stream.take(rows)`
  it is to be borrowed anew.
- `float32_step(s, x, y)`: one step. x points to (N, I) numbers, y to (N, H), rows side by side. It checks nothing: less
  memory than that is written beyond its end.
- `float32_checked_step(s, x, y)`: the same of memory views, `const float[:, ::1]` and `float[:, ::1]`; ValueError where
  they are not (N, I) and (N, H).
- `float32_reset(s, row)`: sets a row's state to zero; IndexError where there is no such row.

Bits are those of `stream.step`. Several threads may step one stream; they wait for each other.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from "recurrent/stream_api.h":
    ctypedef struct pyrnn_stream_api:
        void *(*borrow)(object compiled, int doubles, Py_ssize_t *sizes) except NULL
        int (*step_float)(void *stream, const float *x, float *y) except -1 nogil
        int (*step_double)(void *stream, const double *x, double *y) except -1 nogil
        int (*reset)(void *stream, Py_ssize_t row) except -1 nogil

from . import _core
from .layers.stream import Stream

ctypedef fused real:
    float
    double

cdef pyrnn_stream_api *api = <pyrnn_stream_api *>PyCapsule_GetPointer(_core._stream_api, "pyrnn._core._stream_api")


cdef object compiled_of(object stream):
    if not isinstance(stream, Stream):
        raise TypeError(f"cython_stream: stream is {type(stream).__name__}, expected what layer.stream() returns")
    return stream._compiled


cdef float32_stream float32_of(object stream) except *:
    cdef Py_ssize_t sizes[3]
    cdef void *borrowed = api.borrow(compiled_of(stream), 0, sizes)
    return float32_stream(borrowed, sizes[0], sizes[1], sizes[2])


cdef float64_stream float64_of(object stream) except *:
    cdef Py_ssize_t sizes[3]
    cdef void *borrowed = api.borrow(compiled_of(stream), 1, sizes)
    return float64_stream(borrowed, sizes[0], sizes[1], sizes[2])


cdef int refuse(str call, Py_ssize_t *x, Py_ssize_t *y, Py_ssize_t rows, Py_ssize_t inputs, Py_ssize_t outputs) except -1:
    if (x[0], x[1]) != (rows, inputs):
        raise ValueError(f"cython_stream.{call}: x has shape {(x[0], x[1])}, expected {(rows, inputs)}")
    raise ValueError(f"cython_stream.{call}: y has shape {(y[0], y[1])}, expected {(rows, outputs)}")


cdef int float32_step(float32_stream stream, const float *x, float *y) except -1 nogil:
    return api.step_float(stream.stream, x, y)


cdef int float64_step(float64_stream stream, const double *x, double *y) except -1 nogil:
    return api.step_double(stream.stream, x, y)


cdef int float32_checked_step(float32_stream s, const float[:, ::1] x, float[:, ::1] y) except -1 nogil:
    if x.shape[0] != s.rows or x.shape[1] != s.inputs or y.shape[0] != s.rows or y.shape[1] != s.outputs:
        with gil:
            refuse("float32_checked_step", x.shape, y.shape, s.rows, s.inputs, s.outputs)
    return api.step_float(s.stream, &x[0, 0], &y[0, 0])


cdef int float64_checked_step(float64_stream s, const double[:, ::1] x, double[:, ::1] y) except -1 nogil:
    if x.shape[0] != s.rows or x.shape[1] != s.inputs or y.shape[0] != s.rows or y.shape[1] != s.outputs:
        with gil:
            refuse("float64_checked_step", x.shape, y.shape, s.rows, s.inputs, s.outputs)
    return api.step_double(s.stream, &x[0, 0], &y[0, 0])


cdef int float32_reset(float32_stream stream, Py_ssize_t row) except -1 nogil:
    return api.reset(stream.stream, row)


cdef int float64_reset(float64_stream stream, Py_ssize_t row) except -1 nogil:
    return api.reset(stream.stream, row)


def repeat(stream, const real[:, ::1] x, real[:, ::1] y, Py_ssize_t count):
    """`count` steps on the same x (N, I) into y (N, H): the loop that the benchmarks time. Both arrays have the layer's
    dtype and are C-ordered.

        pyrnn.cython_stream.repeat(stream, x, y, 1000)
    """
    cdef Py_ssize_t sizes[3]
    cdef object compiled = compiled_of(stream)  # lives as long as the loop, whatever others take from the stream
    cdef void *s = api.borrow(compiled, real is double, sizes)
    cdef Py_ssize_t k
    if x.shape[0] != sizes[0] or x.shape[1] != sizes[1] or y.shape[0] != sizes[0] or y.shape[1] != sizes[2]:
        refuse("repeat", x.shape, y.shape, sizes[0], sizes[1], sizes[2])
    with nogil:
        for k in range(count):
            if real is double:
                api.step_double(s, &x[0, 0], &y[0, 0])
            else:
                api.step_float(s, &x[0, 0], &y[0, 0])
