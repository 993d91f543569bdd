"""Recurrent layers: what the benchmarks of rnn, lstm, gru and of their streams have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import pyrnn
from pyrnn import cython_stream
from pyrnn.cells import CELLS
from pyrnn.layers.stack import LAYERS

from . import peers
from .harness import Case, Op, Run, Settings, Shape

LETTERS = "T,N,I,H"
MORE = [  # I != H, odd N, H that fills no whole vector, short and long
    (10, 1, 32, 64), (10, 64, 128, 128), (20, 5, 40, 100), (30, 7, 13, 50), (35, 20, 650, 650), (50, 3, 300, 128),
    (64, 32, 64, 256), (100, 9, 128, 72), (200, 1, 80, 200), (500, 2, 64, 64), (1000, 1, 128, 128),
    (1000, 16, 32, 96),
]  # fmt: skip
SHAPES: dict[str, list[Shape]] = {
    "forward": [
        (100, 1, 64, 64), (100, 1, 256, 256), (100, 16, 64, 64), (100, 32, 128, 128), (100, 64, 256, 256),
        (100, 128, 512, 512), (50, 32, 1024, 1024), *MORE,
    ],
    "both": [
        (100, 1, 64, 64), (100, 16, 64, 64), (100, 64, 256, 256), (100, 128, 512, 512), (50, 32, 1024, 1024), *MORE,
    ],
}  # fmt: skip
BY_STEPS = "by steps"  # our time without lengths, times valid steps / all steps
CYTHON = "cython"  # a step in a loop of Cython
CYTHON_STEPS = 100
STREAM_SHAPES: dict[str, list[Shape]] = {"forward": [(1, 64, 64), (1, 40, 100), (1, 256, 256), (7, 64, 64)]}


@dataclass(frozen=True)
class Cell:
    """The benchmarks of a cell of pyrnn.cells; where a peer has it, the parameters have torch's names and shapes."""

    op: str
    jax_step: Callable[..., Any] | None = None  # (state, a = W_ih x + b_ih, weight_hh, bias_hh) -> state; state[0] is h
    onnx_attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """RNN, LSTM or GRU: the class in pyrnn and in torch, and the operator of ONNX; others are in pyrnn alone."""
        return LAYERS[self.op].__name__

    @property
    def gates(self) -> str:
        return CELLS[self.op].gates

    @property
    def states(self) -> int:
        return len(CELLS[self.op].states)

    @property
    def known_to(self) -> tuple[str, ...]:
        """The peers that have this cell."""
        return tuple(peers.NAMES) if CELLS[self.op].orders else ()

    def ops(self) -> tuple[Op, Op]:
        """The benchmark of the layer and that of its stream."""
        layer = Op(self.op, LETTERS, SHAPES, self.case, True, lambda settings: BY_STEPS if settings.ragged else None)
        return layer, Op(f"{self.op}-stream", "N,I,H", STREAM_SHAPES, self.stream, ideal=lambda settings: CYTHON)

    def recurrent(self, layer: Any) -> int:
        """How many weights a step reads to carry its state on."""
        return sum(layer.params[f"{name}_l0"].size for name in CELLS[self.op].recurrent())

    def case(self, shape: Shape, direction: str, settings: Settings) -> Case:
        """The layer over T steps: y and the final state, or y and the gradients of x and of all parameters."""
        steps, batch, inputs, hidden = shape
        rng = np.random.default_rng(0)
        layer = getattr(pyrnn, self.name)(inputs, hidden, dtype=settings.dtype, rng=rng)
        x = rng.standard_normal((steps, batch, inputs)).astype(settings.dtype)
        dy = rng.standard_normal((steps, batch, hidden)).astype(settings.dtype) if direction == "both" else None
        lengths = rng.integers(1, steps, batch, endpoint=True) if settings.ragged else None
        rivals = {
            "torch": lambda: self.torch(layer, x, dy, lengths, settings),
            "onnxruntime": lambda: self.onnxruntime(layer, x, dy, lengths, settings),
            "jax": lambda: self.jax(layer, x, dy, lengths),
        }
        made = {name: rivals[name]() for name in settings.peers if name in self.known_to}
        valid = steps * batch if lengths is None else int(lengths.sum())
        recurrent, passes = self.recurrent(layer), 2 if direction == "both" else 1
        weights = len(self.gates) * hidden * inputs + recurrent
        return Case(
            ours=self.pyrnn(layer, x, dy, lengths),
            peers={name: run for name, run in made.items() if run},
            flops=(3 if dy is not None else 1) * 2 * valid * weights,
            bytes=passes * settings.itemsize
            * (steps * recurrent + len(self.gates) * hidden * inputs + valid * (inputs + hidden)),
            footprint=recurrent * settings.itemsize,
            ideal=None if lengths is None else (BY_STEPS, self.pyrnn(layer, x, dy, None), valid / (steps * batch)),
        )  # fmt: skip

    def stream(self, shape: Shape, direction: str, settings: Settings) -> Case:
        """One step, the state carried on from call to call."""
        batch, inputs, hidden = shape
        rng = np.random.default_rng(0)
        layer = getattr(pyrnn, self.name)(inputs, hidden, dtype=settings.dtype, rng=rng)
        x = rng.standard_normal((batch, inputs)).astype(settings.dtype)
        stream = layer.stream(batch=batch)
        step, in_cython, y = stream.step, layer.stream(batch=batch), np.empty((batch, hidden), x.dtype)
        rivals = {
            "torch": lambda: self.torch_stream(layer, x),
            "onnxruntime": lambda: self.onnxruntime_stream(layer, x, settings),
            "jax": lambda: self.jax_stream(layer, x),
        }
        made = {name: rivals[name]() for name in settings.peers if name in self.known_to}
        weights = len(self.gates) * hidden * inputs + self.recurrent(layer)
        return Case(
            ours=lambda: step(x),
            peers={name: run for name, run in made.items() if run},
            flops=2 * batch * weights,
            bytes=settings.itemsize * (weights + batch * (inputs + hidden)),
            footprint=settings.itemsize * weights,
            ideal=(CYTHON, lambda: cython_stream.repeat(in_cython, x, y, CYTHON_STEPS), 1 / CYTHON_STEPS),
        )

    # ------------------------------------------------------------------------------------------------ contenders

    def pyrnn(self, layer: Any, x: np.ndarray, dy: np.ndarray | None, lengths: np.ndarray | None) -> Run:
        if dy is None:
            return lambda: layer(x, lengths=lengths)

        def run() -> object:
            layer.zero_grad()
            (y, _), pullback = layer.vjp(x, lengths=lengths)
            dx, _ = pullback(dy)
            return y, dx, list(layer.grads.values())

        return run

    def torch(
        self, layer: Any, x: np.ndarray, dy: np.ndarray | None, lengths: np.ndarray | None, settings: Settings
    ) -> Run:
        import torch

        module = self.torch_module(layer)
        ready = torch.from_numpy(x).requires_grad_(dy is not None)
        if lengths is None:
            forward: Run = lambda: module(ready)  # noqa: E731
        else:
            counts = torch.from_numpy(lengths)

            def forward() -> object:
                packed = torch.nn.utils.rnn.pack_padded_sequence(ready, counts, enforce_sorted=False)
                y, state = module(packed)
                return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))[0], state

        if dy is None:
            return peers.torch_forward(forward)
        return peers.torch_both(lambda: forward()[0], [ready, *module.parameters()], torch.from_numpy(dy))

    def torch_module(self, layer: Any) -> Any:
        import torch

        state = {name: torch.from_numpy(array) for name, array in layer.state_dict().items()}
        module = getattr(torch.nn, self.name)(
            layer.input_size, layer.hidden_size, dtype=next(iter(state.values())).dtype
        )
        module.load_state_dict(state)
        return module

    def torch_stream(self, layer: Any, x: np.ndarray) -> Run:
        import torch

        module, ready, state = self.torch_module(layer), torch.from_numpy(x)[None], None

        def run() -> object:
            nonlocal state
            y, state = module(ready, state)
            return y

        return peers.torch_forward(run)

    def onnxruntime(
        self, layer: Any, x: np.ndarray, dy: np.ndarray | None, lengths: np.ndarray | None, settings: Settings
    ) -> Run | None:
        if dy is not None or settings.dtype == "float64":
            return None  # inference only, float32 only
        inputs = {"X": x, **self.onnx_weights(layer), "sequence_lens": None}
        if lengths is not None:
            inputs["sequence_lens"] = lengths.astype(np.int32)
        outputs = ["Y", "Y_h", "Y_c"][: 1 + self.states]
        run = peers.onnx_run(self.name, self.attributes(layer), inputs, outputs, ["X"], settings)
        return lambda: run({"X": x})

    def onnxruntime_stream(self, layer: Any, x: np.ndarray, settings: Settings) -> Run | None:
        if settings.dtype == "float64":
            return None
        names, outputs = ["initial_h", "initial_c"][: self.states], ["Y_h", "Y_c"][: self.states]
        feeds = {"X": x[None], **{name: np.zeros((1, len(x), layer.hidden_size), x.dtype) for name in names}}
        inputs = {"X": None, **self.onnx_weights(layer), "sequence_lens": None, **feeds}
        step = peers.onnx_run(self.name, self.attributes(layer), inputs, ["", *outputs], list(feeds), settings)

        def run() -> object:
            state = step(feeds)
            feeds.update(zip(names, state, strict=True))
            return state[0]

        return run

    def attributes(self, layer: Any) -> dict[str, Any]:
        return {"hidden_size": layer.hidden_size, **self.onnx_attributes}

    def onnx_weights(self, layer: Any) -> dict[str, np.ndarray]:
        """The layer's weights as ONNX has them: gates in its order, both biases in one."""

        def reorder(name: str) -> np.ndarray:
            blocks = dict(zip(self.gates, np.split(layer.params[name], len(self.gates)), strict=True))
            return np.concatenate([blocks[gate] for gate in CELLS[self.op].orders["onnx"]])

        bias = np.concatenate([reorder("bias_ih_l0"), reorder("bias_hh_l0")])
        return {"W": reorder("weight_ih_l0")[None], "R": reorder("weight_hh_l0")[None], "B": bias[None]}

    def jax(self, layer: Any, x: np.ndarray, dy: np.ndarray | None, lengths: np.ndarray | None) -> Run | None:
        if lengths is not None:
            return None  # has no ragged layer of its own
        import jax

        zeros = np.zeros((self.states, x.shape[1], layer.hidden_size), x.dtype)

        def forward(x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> Any:
            def step(state: Any, a: Any) -> Any:
                state = self.jax_step(state, a, weight_hh, bias_hh)
                return state, state[0]

            state, y = jax.lax.scan(step, tuple(zeros), x @ weight_ih.T + bias_ih)
            return y, state

        weights = layer.params.values()
        if dy is None:
            return peers.jax_forward(forward, x, *weights)
        return peers.jax_both(lambda *inputs: forward(*inputs)[0], dy, x, *weights)

    def jax_stream(self, layer: Any, x: np.ndarray) -> Run:
        import jax

        @jax.jit
        def step(state: Any, x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> Any:
            return self.jax_step(state, x @ weight_ih.T + bias_ih, weight_hh, bias_hh)

        state = tuple(np.zeros((self.states, len(x), layer.hidden_size), x.dtype))
        state, ready, weights = jax.device_put((state, x, list(layer.params.values())))

        def run() -> object:
            nonlocal state
            state = jax.block_until_ready(step(state, ready, *weights))
            return state[0]

        return run
