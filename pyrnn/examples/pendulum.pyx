# cython: language_level=3, boundscheck=False, wraparound=False
"""A recurrent controller inside a simulation loop, from Cython: no GIL, no allocation, no Python in the loop.

A pendulum is driven by the torque that a recurrent network (RNN, LSTM or GRU with 3 inputs, float32, a stream of one row)
gives at every step from (sin angle, cos angle, velocity); the first of its outputs is the torque. To build and run, with Cython and a C++
compiler installed, copy this file and

    cythonize -i -3 pendulum.pyx
    python -c "import pyrnn, pendulum; print(pendulum.simulate(pyrnn.GRU(3, 64, rng=0).stream(), 3.0, 0.0, 10_000))"
"""

import numpy as np

from libc.math cimport cos, sin

from pyrnn.cython_stream cimport float32_of, float32_step, float32_stream

cdef double GRAVITY = 9.81, LENGTH = 1.0, TIME_STEP = 0.01


def simulate(stream, double angle, double velocity, Py_ssize_t steps):
    """The angles (steps,) in radians of a pendulum that starts at `angle` with `velocity` (1/s). ValueError for a stream
    of another size."""
    cdef float32_stream controller = float32_of(stream)
    if (controller.rows, controller.inputs) != (1, 3):
        raise ValueError(f"the stream takes {(controller.rows, controller.inputs)} numbers, expected (1, 3)")
    cdef float observation[3]
    cdef float[::1] torque = np.empty(controller.outputs, np.float32)
    cdef double[::1] angles = np.empty(steps)
    cdef Py_ssize_t t
    stream.reset()
    with nogil:
        for t in range(steps):
            observation[0] = <float>sin(angle)
            observation[1] = <float>cos(angle)
            observation[2] = <float>velocity
            float32_step(controller, observation, &torque[0])
            velocity += TIME_STEP * (torque[0] - GRAVITY / LENGTH * sin(angle))
            angle += TIME_STEP * velocity
            angles[t] = angle
    return np.asarray(angles)
