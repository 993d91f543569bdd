"""What the tests over every cell share: the variants of the cells, random problems for an op, memory layouts, bits."""

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

import pyrnn
from pyrnn.cells import ACTIVATIONS, CELLS
from pyrnn.layers.stack import LAYERS

# What a variant's name says of an argument or an option where that is not its own name.
WORDS = {
    "proj_size": "projection",
    "reset_after=True": "",
    "reset_after=False": "reset_before",
    "activation=tanh": "",
    "gate_activation=sigmoid": "",
}


def _usual(record):
    """All choices of options, but of activations the usual ones alone."""
    values = [values[:1] if name in ACTIVATIONS else values for name, values in record.options.items()]
    return [dict(zip(record.options, chosen, strict=True)) for chosen in itertools.product(*values)]


def _unusual(record):
    """Choices in which each activation comes once and more: they are told apart at run time, in the same kernels."""
    count = max((len(values) for name, values in record.options.items() if name in ACTIVATIONS), default=0)
    return [{name: values[k % len(values)] for name, values in record.options.items()} for k in range(1, count)]


def _variants_of(op):
    """For each choice of options and, beyond the biases, of the weights that an argument brings. Other activations than
    the usual ones take turns with these weights."""
    record = CELLS[op]
    arguments = sorted(set(record.optional.values()) - {"bias"})
    given = [*itertools.chain(*(itertools.combinations(arguments, count) for count in range(len(arguments) + 1)))]
    for option, extra in itertools.chain(
        itertools.product(_usual(record), given), zip(_unusual(record), itertools.cycle(given), strict=False)
    ):
        said = [str(WORDS.get(f"{name}={value}", value)).lower() for name, value in option.items()]
        said += [WORDS.get(argument, argument) for argument in extra]
        yield "_".join(filter(None, [op, *said])), (op, option, extra)


# name -> op, its option, the arguments that bring weights beyond the usual ones
VARIANTS = dict(itertools.chain(*map(_variants_of, CELLS)))
_OWN = [[name for name, (own, _, _) in VARIANTS.items() if own == op] for op in CELLS]  # of each op
FEW = sorted({name for own in _OWN for name in (own[0], own[-1])})  # its first and its last


def _torch_has(option, extra):
    usual = all(option.get(name, values[0]) == values[0] for name, values in ACTIVATIONS.items())
    return (
        usual
        and "peephole" not in extra
        and option.get("nonlinearity") != "sigmoid"
        and option.get("reset_after", True)
    )


# The variants that torch.nn has too: its layer, under the name of ours, and what this is told.
TORCH = {
    name: (LAYERS[op].__name__, {key: value for key, value in option.items() if key == "nonlinearity"})
    for name, (op, option, extra) in VARIANTS.items()
    if "torch" in CELLS[op].orders and _torch_has(option, extra)
}
DTYPES = ("float32", "float64")

# Around the widths of registers (4, 8, 16 lanes) and the tiles made of them.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 63, 64, 65)


def cases(count):
    """How many random cases to try: fewer where PYRNN_TEST_CASES (percent) says so."""
    return max(1, round(count * float(os.environ.get("PYRNN_TEST_CASES", "100")) / 100))


def make_layer(variant, inputs, hidden, num_layers=1, *, proj_size=3, **options):
    """The layer of a variant; proj_size is used by those with a projection."""
    op, option, extra = VARIANTS[variant]
    brought = {argument: proj_size if argument == "proj_size" else True for argument in extra}
    return LAYERS[op](inputs, hidden, num_layers, **option, **brought, **{"rng": 0, **options})


def python_environment(**settings):
    """An environment for a fresh interpreter that finds this pyrnn and these tests; None takes a setting out."""
    path = os.pathsep.join([str(Path(pyrnn.__file__).parent.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, **settings}
    return {name: value for name, value in environment.items() if value is not None}


def python(code, *, ok=True, **settings):
    """What a script prints in a fresh interpreter; with ok=False its standard error, and it must fail."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=python_environment(**settings),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode == 0) == ok, result.stdout + result.stderr
    return result.stdout if ok else result.stderr


def enlargement(option):
    """By how much the norms inside a cell enlarge rounding errors at most, where what they divide by is as small as it
    can be."""
    return option.get("eps", 1) ** -0.5


def draw_options(rng, record):
    """One of the values of each option. Of eps the largest, for layers upon layers, each of which enlarges errors."""
    chosen = {name: values[rng.integers(len(values))] for name, values in record.options.items()}
    return {name: max(record.options[name]) if name == "eps" else value for name, value in chosen.items()}


def keep_in_range(record, state):
    """Makes the state n of the sLSTM, by which it divides, what it is after a step: greater than 0."""
    for name, part in zip(record.states, state, strict=True):
        if name == "n":
            np.abs(part, out=part)
            part += part.dtype.type(0.5)


class Problem:
    """The arguments of one call of an op and the gradients to send back, all of one dtype."""

    def __init__(self, variant, steps, rows, inputs, hidden, *, rng, dtype="float64", outputs=None, bias=True):
        self.name, self.option, extra = VARIANTS[variant]
        self.dtype = np.dtype(dtype)
        self.rng = rng
        record = CELLS[self.name]
        width = outputs if "proj_size" in extra else hidden
        shapes = record.shapes(inputs, hidden, width)
        present = record.present(lambda argument: bias if argument == "bias" else argument in extra)
        # Rows of matrices of length about 1: states neither die out nor blow up. No unit is saturated, for there the
        # slope of tanh and sigmoid, found as 1 - h * h, is rounding error for the most part. Smaller where a gated cell
        # has no bound: its states would grow, and rounding errors with them.
        self.scale = 0.6 if self.option.get("activation") in ("relu", "identity") else 1.2
        self.weights = tuple(self.draw_weight(*shapes[w]) if w in present else None for w in record.weights)
        self.x = self.draw(steps, rows, inputs)
        widths = record.widths(hidden, width)
        self.state = tuple(self.draw(rows, n) for n in widths)
        keep_in_range(record, self.state)
        self.dy = self.draw(steps, rows, width)
        self.dstate = tuple(self.draw(rows, n) for n in widths)
        self.walk = {}

    def draw(self, *shape):
        return self.rng.uniform(-1, 1, shape).astype(self.dtype)

    def draw_weight(self, *shape):
        scale = self.scale * max(shape[1], 1) ** -0.5 if len(shape) == 2 else 0.5
        return self.draw(*shape) * self.dtype.type(scale)

    def op(self, backend):
        return getattr(backend, self.name)

    def arguments(self):
        """Every array that is passed."""
        return [a for a in (self.x, *self.state, *self.weights, self.dy, *self.dstate) if a is not None]

    def zero_grads(self):
        return tuple(None if w is None else np.zeros(w.shape, self.dtype) for w in self.weights)

    def names(self):
        """Of what `results` returns, in order."""
        entries = tuple(CELLS[self.name].states)
        grads = [f"d{n}" for n, w in zip(self.op(pyrnn.reference).WEIGHTS, self.weights, strict=True) if w is not None]
        return ["y", *entries, "dx", *(f"d{e}" for e in entries), *grads]

    def results(self, backend, *, state=True, dy=True, dstate=True, **more):
        """y, state, dx, dstate and the gradients of the weights that are there, in one list. False: None is passed."""
        (y, after), pullback = self.op(backend).vjp(
            self.x, self.state if state else None, self.weights, **self.walk, **self.option, **more
        )
        grads = self.zero_grads()
        dx, dbefore = pullback(self.dy if dy else None, self.dstate if dstate else None, grads)
        return [y, *after, dx, *dbefore, *(g for g in grads if g is not None)]


# ---- memory layouts: the same values in other places


def _reverse_strides(a):
    return a[(slice(None, None, -1),) * a.ndim].copy()[(slice(None, None, -1),) * a.ndim]


def _every_other(a):
    wide = np.empty(tuple(2 * n for n in a.shape), a.dtype)
    view = wide[(slice(1, None, 2),) * a.ndim]
    view[...] = a
    return view


def misaligned(a):
    view = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _inside(a):
    """A window in a larger array: rows of side-by-side features, further apart."""
    wide = np.full(tuple(n + 3 for n in a.shape), 0 if a.dtype.kind in "bi" else np.nan, a.dtype)
    view = wide[tuple(slice(1, n + 1) for n in a.shape)]
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _odd_strides(a):
    """Steps between elements that are no multiple of their size."""
    record = np.empty(a.shape, np.dtype([("value", a.dtype), ("pad", "u1")]))
    record["value"] = a
    return record["value"]


LAYOUTS = {
    "plain": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "negative": _reverse_strides,
    "every_other": _every_other,
    "misaligned": misaligned,
    "odd_strides": _odd_strides,
    "inside": _inside,
    "read_only": read_only,
    "axes_swapped": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
}


def laid_out(layout, value):
    """An array, a tuple of them or None in another memory layout, values unchanged."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(laid_out(layout, v) for v in value)
    result = LAYOUTS[layout](value)
    assert result.dtype == value.dtype
    np.testing.assert_array_equal(result, value)
    return result


# ---- equal bits


def flat(*results):
    """Arrays out of nested tuples, in order."""
    for result in results:
        if isinstance(result, (tuple, list)):
            yield from flat(*result)
        else:
            yield result


def assert_same_bits(ones, others):
    """Equal bit for bit, array by array: shapes, dtypes, and the sign of every zero."""
    for k, (one, other) in enumerate(zip(flat(ones), flat(others), strict=True)):
        assert one.dtype == other.dtype, f"array {k}"
        assert one.shape == other.shape, f"array {k}"
        assert np.array_equal(one, other), f"array {k} differs by up to {np.abs(one - other).max():.3g}"
        assert np.array_equal(np.signbit(one), np.signbit(other)), f"array {k} differs in the sign of a zero"
