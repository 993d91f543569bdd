"""Memory against time of exact backpropagation through a long sequence: `checkpoint_every` of vjp.

    python -m bench.checkpoints [--cell lstm] [--steps 100000] [--rows 8] [--hidden 256] [--every 0 32 316 ...]

One forward and backward run over all steps, the loss on the final state, for each number of steps between checkpoints
(0: keep everything), each in a process of its own. Memory is the most the process held at any time, less what it held
before the call (Python, NumPy, x); y and the gradients are part of it. Time is the median of some runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

import pyrnn
from pyrnn.layers.stack import LAYERS


def held() -> float:
    """MB of memory of this process now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def run(options: argparse.Namespace, every: int) -> dict[str, float]:
    """Seconds and MB of one forward and backward run."""
    if options.threads:
        pyrnn.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    layer = LAYERS[options.cell](options.inputs, options.hidden, rng=rng)
    x = rng.standard_normal((options.steps, options.rows, options.inputs), np.float32)
    layer.vjp(x[:2])[1](None, layer(x[:2])[1])  # loads and starts all there is
    layer.zero_grad()
    before, seconds = held(), []
    for _ in range(options.runs):
        start = time.perf_counter()
        (_, state), pullback = layer.vjp(x, checkpoint_every=every or None)
        pullback(None, state)  # the gradient of half the square of the final state
        seconds.append(time.perf_counter() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    check = float(sum(np.abs(grad).sum() for grad in layer.grads.values()))
    return {"seconds": float(np.median(seconds)), "megabytes": most - before, "check": check}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=list(LAYERS), default="lstm")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0, help="default: pyrnn's")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--every", type=int, nargs="+", default=[0, 10_000, 1000, 316, 100, 32])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # in this process, as JSON
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(run(options, options.one)))
        return
    sizes = f"{options.steps:,} steps, {options.rows} rows, {options.inputs} inputs, {options.hidden} units"
    print(f"{options.cell}, {sizes}, float32, {options.threads or pyrnn.get_num_threads()} threads")
    print(f"{'checkpoint_every':>16} {'memory':>10} {'us a step':>10} {'time':>7}")
    given = sys.argv[1:] if arguments is None else arguments
    first: dict[str, float] = {}
    for every in options.every:
        command = [sys.executable, __file__, *given, "--one", str(every)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        first = first or result
        if result["check"] != first["check"]:
            raise SystemExit(f"checkpoint_every={every} changes the gradients")
        print(f"{every or 'none':>16} {result['megabytes']:7.0f} MB {result['seconds'] / options.steps * 1e6:10.1f} "
              f"{result['seconds'] / first['seconds']:6.2f}x")  # fmt: skip


if __name__ == "__main__":
    main()
