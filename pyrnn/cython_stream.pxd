# Streams from Cython: a step costs its arithmetic, needs no GIL and allocates nothing. See cython_stream.pyx.
#
#     from pyrnn.cython_stream cimport float32_stream, float32_of, float32_step
#
# A stream pointer belongs to the Python stream it was taken from and is valid while that lives. Pointers to x and y are
# not checked: x holds N * I numbers and y N * H (N * P with a projection), rows side by side; they must not overlap.

cdef struct float32_stream:
    void *stream

cdef struct float64_stream:
    void *stream

cdef float32_stream float32_of(object stream) except *
cdef float64_stream float64_of(object stream) except *

cdef int float32_step(float32_stream stream, const float *x, float *y) except -1 nogil
cdef int float64_step(float64_stream stream, const double *x, double *y) except -1 nogil

cdef int float32_reset(float32_stream stream, Py_ssize_t row) except -1 nogil
cdef int float64_reset(float64_stream stream, Py_ssize_t row) except -1 nogil
