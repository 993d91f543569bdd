# Streams from Cython: a step costs its arithmetic, needs no GIL and allocates nothing. See cython_stream.pyx.
#
#     from pyrnn.cython_stream cimport float32_stream, float32_of, float32_step
#
# A stream pointer belongs to the Python stream it was taken from and is valid while that lives.

cdef struct float32_stream:
    void *stream
    Py_ssize_t rows, inputs, outputs  # N, I, H (P with a projection)

cdef struct float64_stream:
    void *stream
    Py_ssize_t rows, inputs, outputs

cdef float32_stream float32_of(object stream) except *
cdef float64_stream float64_of(object stream) except *

# Not checked: x points to rows * inputs numbers, y to rows * outputs, rows side by side; they must not overlap.
cdef int float32_step(float32_stream stream, const float *x, float *y) except -1 nogil
cdef int float64_step(float64_stream stream, const double *x, double *y) except -1 nogil

# Checked: x (rows, inputs) and y (rows, outputs), else ValueError.
cdef int float32_checked_step(float32_stream stream, const float[:, ::1] x, float[:, ::1] y) except -1 nogil
cdef int float64_checked_step(float64_stream stream, const double[:, ::1] x, double[:, ::1] y) except -1 nogil

cdef int float32_reset(float32_stream stream, Py_ssize_t row) except -1 nogil
cdef int float64_reset(float64_stream stream, Py_ssize_t row) except -1 nogil
