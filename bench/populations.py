"""Many small models at once: a training step of a population, beside loops over pyrnn's own layers and over torch's;
and gradients of each row beside an ordinary way back.

    python -m bench.populations [--cell lstm] [--models 64] [--steps 50] [--rows 16] [--inputs 8] [--hidden 32]

A training step is: gradients to zero, forward, the mean squared output of each model, backward, gradients clipped at
norm 1, Adam. The loops do it model by model. All take turns; times are medians, and the least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pyrnn
from pyrnn.layers.stack import LAYERS


def population(options: argparse.Namespace, x: Any) -> Callable[[], None]:
    many = pyrnn.Population(LAYERS[options.cell](options.inputs, options.hidden), options.models, rng=0)
    optimiser = pyrnn.Adam(many)

    def step() -> None:
        many.zero_grad()
        (y, _), pullback = many.vjp(x)
        pullback(y * np.float32(2 / y[0].size))
        pyrnn.clip_grad_norm(many, 1.0)
        optimiser.step()

    return step


def loop(options: argparse.Namespace, x: Any) -> Callable[[], None]:
    layers = [LAYERS[options.cell](options.inputs, options.hidden, rng=k) for k in range(options.models)]
    optimisers = [pyrnn.Adam(layer) for layer in layers]

    def step() -> None:
        for own, layer, optimiser in zip(x, layers, optimisers, strict=True):
            layer.zero_grad()
            (y, _), pullback = layer.vjp(own)
            pullback(y * np.float32(2 / y.size))
            pyrnn.clip_grad_norm(layer, 1.0)
            optimiser.step()

    return step


def torch_loop(options: argparse.Namespace, x: Any) -> Callable[[], None]:
    import torch

    torch.set_num_threads(options.torch_threads)
    kind = getattr(torch.nn, LAYERS[options.cell].__name__)
    layers = [kind(options.inputs, options.hidden) for _ in range(options.models)]
    optimisers = [torch.optim.Adam(layer.parameters()) for layer in layers]
    inputs = torch.from_numpy(x)

    def step() -> None:
        for own, layer, optimiser in zip(inputs, layers, optimisers, strict=True):
            optimiser.zero_grad()
            y, _ = layer(own)
            (y * y).mean().backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimiser.step()

    return step


def rows(options: argparse.Namespace, per_row: bool) -> Callable[[], None]:
    layer = LAYERS[options.cell](options.inputs, options.hidden, rng=0)
    x = np.random.default_rng(0).standard_normal((options.steps, 64, options.inputs)).astype(np.float32)

    def step() -> None:
        (y, _), pullback = layer.vjp(x, per_row=per_row)
        pullback(y)

    return step


def measured(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn > 1:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=list(LAYERS), default="lstm")
    for name, default in {"models": 64, "steps": 50, "rows": 16, "inputs": 8, "hidden": 32, "rounds": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--torch-threads", type=int, default=pyrnn.get_num_threads(), help="0: without torch")
    options = parser.parse_args(arguments)
    shape = (options.models, options.steps, options.rows, options.inputs)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    steps = {"population": population(options, x), "loop": loop(options, x)}
    if options.torch_threads and options.cell in ("rnn", "lstm", "gru"):
        steps["torch"] = torch_loop(options, x)
    for named in (steps, {"all rows": rows(options, False), "per row": rows(options, True)}):
        times = measured(named, options.rounds)
        first = next(iter(times.values()))
        for name, own in times.items():
            median, least = float(np.median(own)), min(own)
            ratios = f"{median / np.median(first):6.2f} times the first, {least / min(first):.2f} of the least"
            print(f"{name:10s} {median:8.2f} ms, least {least:8.2f}   {ratios}")


if __name__ == "__main__":
    main()
