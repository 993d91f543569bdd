"""A training step in torch, with torch's own recurrent module and with the same one accelerated by pyrnn.torch.

A step: zero_grad, forward, backward of a loss over all outputs, fused Adam. Both start from the same weights; their
losses over the first steps must agree before anything is timed. Then they take turns; the ratio is the median over the
turns of torch's time divided by ours.

Then the price of a call whose work is next to nothing: of our modules, of torch's, of an empty torch.autograd.Function
with as many inputs and outputs, which is what torch's tape itself takes, and of the kernels alone; one thread.

    python bench/torch_training.py [--threads 2] [--seconds 2] [--cell LSTM] [--calls]
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import pyrnn
import pyrnn.torch
from pyrnn.torch.tensors import applied


class Shape(NamedTuple):
    """Of a batch and a module."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    ragged: bool = False  # packed sequences of 1 to `steps` steps


SHAPES = [
    Shape(32, 1, 16, 32),
    Shape(100, 16, 32, 64),
    Shape(64, 32, 64, 128),
    Shape(64, 32, 64, 256),
    Shape(35, 20, 200, 200, layers=2),
    Shape(50, 64, 128, 128, bidirectional=True),
    Shape(28, 128, 28, 128),
    Shape(200, 8, 40, 128, layers=2, bidirectional=True),
    Shape(1000, 4, 8, 32),
    Shape(20, 64, 256, 512),
]
RAGGED = [
    Shape(100, 32, 64, 128, ragged=True),
    Shape(200, 16, 32, 64, ragged=True),
    Shape(60, 64, 100, 100, bidirectional=True, ragged=True),
]
WARM_UP = 3  # steps before a turn: the threads of the other side spin for a while after their last work


def step(module: torch.nn.Module, shape: Shape) -> Callable[[], float]:
    """A training step, which returns its loss."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape.steps, shape.batch, shape.inputs, generator=generator)
    lengths = torch.randint(1, shape.steps + 1, (shape.batch,), generator=generator)
    lengths[0] = shape.steps
    given = pack_padded_sequence(x, lengths, enforce_sorted=False) if shape.ragged else x
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def run() -> float:
        optimiser.zero_grad()
        y, _ = module(given)
        y = y.data if shape.ragged else y
        loss = (y * y).mean() - y.mean()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return run


def turn(run: Callable[[], float], count: int) -> float:
    """Seconds a step."""
    for _ in range(WARM_UP):
        run()
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def measure(cell: str, shape: Shape, seconds: float) -> tuple[float, float, float]:
    """Seconds a step of ours, of torch's, and their ratio; SystemExit if the losses differ."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(
        shape.inputs, shape.hidden, num_layers=shape.layers, bidirectional=shape.bidirectional
    )
    runs = [step(pyrnn.torch.accelerate(copy.deepcopy(theirs)), shape), step(theirs, shape)]
    for k in range(5):
        losses = [run() for run in runs]
        if not math.isclose(*losses, rel_tol=1e-3, abs_tol=1e-5):
            raise SystemExit(f"{cell} {shape}: the losses of step {k} are {losses}; nothing was timed")
    count = max(1, int(0.02 / turn(runs[1], 1)))
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        first = len(times) % 2
        pair = {who: turn(runs[who], count) for who in (first, 1 - first)}
        times.append((pair[0], pair[1]))
    ours, other = (statistics.median(side) for side in zip(*times, strict=True))
    return ours, other, statistics.median(b / a for a, b in times)


class Empty(torch.autograd.Function):
    """apply(x, weights...) -> y, h, c: nothing but what goes over the tape."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *weights: torch.Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *weights)
        return tuple(x.new_empty(x.shape) for _ in range(3))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        return None, *(torch.empty_like(w) for w in ctx.saved_tensors[1:])


def least(run: Callable[[], Any], seconds: float, count: int = 50) -> float:
    """Microseconds a call, of the fastest so many calls in a row."""
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            run()
        best = min(best, (time.perf_counter() - start) / count)
    return 1e6 * best


def calls(seconds: float) -> None:
    """Print what a call of an LSTM of 4 units costs that reads one step of one row."""
    torch.set_num_threads(1)
    theirs = torch.nn.LSTM(4, 4)
    parameters = list(theirs.parameters())
    x = torch.randn(1, 1, 4)
    dy = torch.ones_like(x)
    arrays = [p.detach().numpy() for p in parameters]
    entries = arrays + [None] * (len(pyrnn.cells.CELLS["lstm"].weights) - len(arrays))
    grads = [None if w is None else w.copy() for w in entries]
    kernel, given = pyrnn.kernels.lstm, x.numpy()

    def empty() -> Any:
        return applied(Empty, x, *parameters)

    def in_torch(forward: Callable[[], Any]) -> tuple[Callable[[], Any], ...]:
        def without_tape() -> None:
            with torch.no_grad():
                forward()

        def both_ways() -> None:
            for parameter in parameters:
                parameter.grad = None
            forward()[0].backward(dy)

        return without_tape, forward, both_ways

    def kernels_both_ways() -> None:
        kernel.vjp(given, None, entries)[1](dy.numpy(), None, grads, need_dx=False)

    ours = pyrnn.torch.LSTM(4, 4)
    ours._parameters = theirs._parameters
    alone = (lambda: kernel.forward(given, None, entries), lambda: kernel.vjp(given, None, entries), kernels_both_ways)
    sides = {
        "ours": in_torch(lambda: ours(x)),
        "torch": in_torch(lambda: theirs(x)),
        "an empty Function": in_torch(empty),
        "the kernels alone": alone,
    }
    print(f"\n{'us a call of next to no work':30} {'no tape':>9} {'forward':>9} {'and backward':>13}")
    for name, runs in sides.items():
        nothing, forward, both = (least(run, seconds) for run in runs)
        print(f"{name:30} {nothing:9.1f} {forward:9.1f} {both:13.1f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=["LSTM", "GRU", "RNN"], action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each shape")
    parser.add_argument("--calls", action="store_true", help="the price of a call alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    pyrnn.set_num_threads(options.threads)
    cells = options.cell or ["LSTM", "GRU", "RNN"]
    print(f"torch {torch.__version__}, {options.threads} threads, {pyrnn.kernels.isa()}, float32")
    for title, shapes in (("whole batches", SHAPES), ("packed sequences", RAGGED)) * (not options.calls):
        ratios = []
        print(
            f"\n| {title}: T, N, I, H; ms, ours / torch's (ratio) | {' | '.join(cells)} |\n|---|" + "---|" * len(cells)
        )
        for shape in shapes:
            name = f"{shape.steps}, {shape.batch}, {shape.inputs}, {shape.hidden}"
            name += f", {shape.layers} layers" * (shape.layers > 1) + ", both ways" * shape.bidirectional
            print(f"| {name}", end="", flush=True)
            for cell in cells:
                ours, other, ratio = measure(cell, shape, options.seconds)
                ratios.append(ratio)
                print(f" | {1e3 * ours:.3g} / {1e3 * other:.3g} ({ratio:.2f})", end="", flush=True)
            print(" |")
        print(f"\ngeometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")
    calls(options.seconds)


if __name__ == "__main__":
    main()
