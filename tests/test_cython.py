"""The Cython interface (pyrnn/cython_stream.pxd): compiled here against the installed package, same bits as Python."""

from __future__ import annotations

import importlib.util
import math
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from cells import VARIANTS, make_layer

import pyrnn
import pyrnn.cython_stream

pytest.importorskip("Cython")

PACKAGE = Path(pyrnn.__file__).parent
EXAMPLE = PACKAGE / "examples" / "pendulum.pyx"
README = Path(__file__).parent.parent / "README.md"

# For both precisions.
PROBE = """
from pyrnn.cython_stream cimport (float{bits}_checked_step, float{bits}_of, float{bits}_reset, float{bits}_step,
                                  float{bits}_stream)

def run{bits}(stream, const {number}[:, :, ::1] x, {number}[:, :, ::1] y):
    cdef float{bits}_stream s = float{bits}_of(stream)
    cdef Py_ssize_t t
    with nogil:
        for t in range(x.shape[0]):
            float{bits}_step(s, &x[t, 0, 0], &y[t, 0, 0])

def reset{bits}(stream, Py_ssize_t row):
    cdef float{bits}_stream s = float{bits}_of(stream)
    with nogil:
        float{bits}_reset(s, row)

def checked{bits}(stream, const {number}[:, ::1] x, {number}[:, ::1] y):
    cdef float{bits}_stream s = float{bits}_of(stream)
    with nogil:
        float{bits}_checked_step(s, x, y)
    return s.rows, s.inputs, s.outputs
"""


def readme_loop():
    """The loop that the module's own description and the README show."""
    lines = pyrnn.cython_stream.__doc__.split("\n\nFunctions")[0].split("\n    ")[1:]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The probe, the README's loop and the example: each translated by Cython, compiled as one, which takes long."""
    folder = tmp_path_factory.mktemp("cython")
    probes = "".join(PROBE.format(bits=bits, number=number) for bits, number in ((32, "float"), (64, "double")))
    texts = {"probe": probes, "loop": readme_loop(), "pendulum": EXAMPLE.read_text()}
    texts["compiled"] = "\n".join(texts.values())
    for name, text in texts.items():
        (folder / f"{name}.pyx").write_text(text)
    translate = [sys.executable, "-m", "cython", "--cplus", "-3", "-I", PACKAGE.parent]
    subprocess.run([*translate, *(f"{name}.pyx" for name in texts)], cwd=folder, check=True)
    module = folder / ("compiled" + sysconfig.get_config_var("EXT_SUFFIX"))
    compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]
    include = f"-I{sysconfig.get_paths()['include']}"
    flags = ["-O0", "-w", "-shared", "-fPIC"]
    if "libasan" in os.environ.get("LD_PRELOAD", ""):  # as in .ci/sanitize
        flags.append("-fsanitize=address")
    subprocess.run([compiler, *flags, include, folder / "compiled.cpp", "-o", module], check=True)
    spec = importlib.util.spec_from_file_location("compiled", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_bits_and_the_same_state_as_from_python(compiled, variant, rows, dtype):
    layer = make_layer(variant, 5, 17, 2, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((20, rows, 5)).astype(dtype)
    stream, other = layer.stream(rows), layer.stream(rows)
    expected = np.stack([other.step(x_t) for x_t in x])
    y = np.empty_like(expected)
    run, reset = (getattr(compiled, name + dtype[-2:]) for name in ("run", "reset"))
    run(stream, x[:12], y[:12])
    y[12] = stream.step(x[12])  # the two may take turns
    run(stream, x[13:], y[13:])
    assert np.array_equal(y, expected)
    for one, another in zip(stream._compiled.get_state(), other._compiled.get_state(), strict=True):
        assert np.array_equal(one, another)
    reset(stream, rows - 1)
    other.reset(rows - 1)
    run(stream, x[:1], y[:1])
    assert np.array_equal(y[0], other.step(x[0]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checked_step_and_the_sizes(compiled, variant, rows, dtype):
    layer = make_layer(variant, 5, 17, 2, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((rows, 5)).astype(dtype)
    stream, other = layer.stream(rows), layer.stream(rows)
    expected = other.step(x)
    y = np.full_like(expected, np.nan)
    step = getattr(compiled, f"checked{dtype[-2:]}")
    for wrong in ((rows + 1, 5), (rows, 4), (rows, 6), (0, 5), (0, 0)):
        with pytest.raises(ValueError, match=rf"{dtype}_checked_step: x has shape \({wrong[0]}, {wrong[1]}\)"):
            step(stream, np.zeros(wrong, dtype), y)
    for wrong in ((rows + 1, y.shape[1]), (rows, y.shape[1] - 1), (0, 0)):
        with pytest.raises(ValueError, match=rf"checked_step: y has .*expected \({rows}, {y.shape[1]}\)"):
            step(stream, x, np.zeros(wrong, dtype))
    assert np.isnan(y).all()
    assert step(stream, x, y) == (rows, 5, y.shape[1])  # what was refused left the state as it was
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_readmes_loop(compiled, rows):
    if README.is_file():
        assert readme_loop() in README.read_text()
    layer = pyrnn.LSTM(5, 16, proj_size=3, rng=0)
    x = np.random.default_rng(0).standard_normal((20, rows, 5)).astype("float32")
    expected = layer.stream(rows)(x)
    y = np.full_like(expected, np.nan)
    for wrong in (y[:, :, :2], y[:, : rows - 1], y[:-1]):
        with pytest.raises(ValueError, match="x"):
            compiled.run(layer.stream(rows), x, wrong.copy())
    with pytest.raises(ValueError, match="must be"):
        compiled.run(layer.stream(rows), x[:, :, :4].copy(), y)
    compiled.run(layer.stream(rows), x, y)
    assert np.array_equal(y, expected)


def test_bad_input(compiled):
    stream = pyrnn.GRU(5, 4, rng=0).stream(2)
    x, y = np.zeros((1, 2, 5)), np.zeros((1, 2, 4))
    with pytest.raises(TypeError, match=r"stream is GRU, expected what layer\.stream\(\) returns"):
        compiled.run64(pyrnn.GRU(5, 4), x, y)
    with pytest.raises(TypeError, match=r"gru\.stream: the stream's dtype is float32, expected float64"):
        compiled.run64(stream, x, y)
    with pytest.raises(TypeError, match="stream is NoneType"):
        compiled.reset32(None, 0)
    for row in (-1, 2):
        with pytest.raises(IndexError, match=f"row is {row}, expected 0 to 1"):
            compiled.reset32(stream, row)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeat(dtype):
    layer = pyrnn.LSTM(5, 8, proj_size=3, dtype=dtype, rng=0)
    x, y = np.ones((2, 5), dtype), np.zeros((2, 3), dtype)
    stream, other = layer.stream(2), layer.stream(2)
    pyrnn.cython_stream.repeat(stream, x, y, 7)
    assert np.array_equal(y, [other.step(x) for _ in range(7)][-1])
    with pytest.raises(ValueError, match=r"x has shape \(1, 5\), expected \(2, 5\)"):
        pyrnn.cython_stream.repeat(stream, x[:1], y, 1)
    with pytest.raises(ValueError, match=r"y has shape \(2, 2\), expected \(2, 3\)"):
        pyrnn.cython_stream.repeat(stream, x, np.zeros((2, 2), dtype), 1)
    wrong = np.float64 if dtype == "float32" else np.float32
    with pytest.raises(TypeError, match="dtype is"):
        pyrnn.cython_stream.repeat(stream, x.astype(wrong), y.astype(wrong), 1)
    assert np.array_equal(stream.step(x), other.step(x))


def test_the_example_simulates_as_python_does(compiled):
    layer = pyrnn.GRU(3, 8, rng=0)
    angle, velocity, stream, expected = 3.0, 0.0, layer.stream(), []
    for _ in range(500):
        torque = stream.step(np.array([math.sin(angle), math.cos(angle), velocity], np.float32))[0]
        velocity += 0.01 * (float(torque) - 9.81 / 1.0 * math.sin(angle))
        angle += 0.01 * velocity
        expected.append(angle)
    angles = compiled.simulate(layer.stream(), 3.0, 0.0, 500)
    assert angles.shape == (500,)
    assert np.ptp(angles) > 1  # it swings
    np.testing.assert_allclose(angles, expected, rtol=1e-9)  # a C++ compiler may contract what Python rounds
    with pytest.raises(ValueError, match=r"the stream takes \(4, 3\) numbers, expected \(1, 3\)"):
        compiled.simulate(layer.stream(4), 3.0, 0.0, 500)
    with pytest.raises(ValueError, match=r"the stream takes \(1, 2\) numbers"):
        compiled.simulate(pyrnn.GRU(2, 8).stream(), 3.0, 0.0, 500)
