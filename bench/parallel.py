"""How data parallel training scales: steps of DataParallel in some processes of this machine, and a model of what they
take, with its numbers measured here, for more nodes than there are.

    python -m bench.parallel [--processes 1 2 4] [--shards 8] [--rows 8] [--steps 32] [--hidden 256 1024]

Under mpiexec, one thread a process: a step of an LSTM and its head, and of it the time in loss_of. What is left of a
step is for copies, means and messages; it is measured for other sizes with a loss_of that does nothing. The model:

    step = ceil(S / N) (c + m n)                   S shards on N nodes; c seconds to compute one, n numbers in the
           + (4 log2 N + 2 (N - 1)) a              gradients, m seconds to copy one and take it into a mean; a seconds
           + 2 (4 n / B) (N - 1) / N + m n         for a message, B bytes a second

c is also measured on all threads, for nodes of as many CPUs as this machine has; a and B of networks are assumed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pyrnn
from pyrnn.parallel import DataParallel

NUMBERS = (10_000, 100_000, 1_000_000, 4_000_000)  # in the gradients that are measured without a computation
NETWORKS = {"10 Gbit/s Ethernet": (30e-6, 1.1e9), "100 Gbit/s InfiniBand": (2e-6, 11e9)}  # a, B
NODES = (1, 2, 4, 8, 16, 32, 64)


def seconds(work: Callable[[], Any], trainer: DataParallel, runs: int) -> float:
    """The least time of work that all processes begin together: what others do on the machine only adds."""
    times = []
    for _ in range(runs):
        trainer.processes.together(lambda: None)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def of_network(options: argparse.Namespace, hidden: int) -> dict[str, float]:
    """Of a step: all of it, what a shard takes, numbers in the gradients."""
    model = pyrnn.Sequential(pyrnn.LSTM(64, hidden, batch_first=True), pyrnn.Linear(hidden, 64), rng=0)
    shape = (options.rows * options.shards, options.steps, 64)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    computed: list[float] = []

    def loss_of(model: Any, x: Any) -> tuple[float, int]:
        start = time.perf_counter()
        y, pullback = model.vjp(x)
        pullback(y)
        computed.append(time.perf_counter() - start)
        return 0.0, len(x)

    trainer = DataParallel(model, shards=options.shards)
    step = seconds(lambda: trainer.step(loss_of, x), trainer, options.runs)
    shard = max(trainer.processes.together(lambda: min(computed, default=0.0)))
    return {"hidden": hidden, "numbers": model.num_parameters, "step": step, "shard": shard}


def of_messages(options: argparse.Namespace, numbers: int) -> float:
    """A step in which nothing is computed."""
    model = pyrnn.Embedding(numbers, 1)
    trainer = DataParallel(model, shards=options.shards)
    rows = np.arange(options.shards)
    return seconds(lambda: trainer.step(lambda model, x: (0.0, 1), rows), trainer, 2 * options.runs)


def measured(options: argparse.Namespace, processes: int, threads: int = 1) -> dict[str, Any]:
    """What so many processes of this file say."""
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if mpiexec is None:
        raise SystemExit("there is no mpiexec: pip install mpi4py mpich")
    sizes = {"shards": options.shards, "rows": options.rows, "steps": options.steps, "runs": options.runs}
    given = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    command = [mpiexec, "-n", str(processes), sys.executable, __file__, *given, "--one", "--hidden"]
    environment = {**os.environ, "PYRNN_NUM_THREADS": str(threads)}
    told = subprocess.run([*command, *map(str, options.hidden)], check=True, capture_output=True, env=environment)
    result: dict[str, Any] = json.loads(told.stdout)
    return result


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Start and slope, weighted for small relative errors."""
    x, y = np.array(points).T
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return max(float(start), 0.0), max(float(slope), 1e-15)


def predicted(nodes: int, shards: int, shard: float, numbers: float, mean: float, message: float, rate: float) -> float:
    """Seconds of a step, see above."""
    waits = (4 * math.log2(nodes) + 2 * (nodes - 1)) * message
    bytes_sent = 2 * 4 * numbers * (nodes - 1) / nodes
    return math.ceil(shards / nodes) * (shard + mean * numbers) + (waits + bytes_sent / rate + mean * numbers) * (
        nodes > 1
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 1024])
    for name, default in {"shards": 8, "rows": 8, "steps": 32, "runs": 30}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="rows of a shard" if name == "rows" else None)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a process, of which the first tells
    options = parser.parse_args(arguments)
    if options.one:
        result = {
            "networks": [of_network(options, hidden) for hidden in options.hidden],
            "messages": [(numbers, of_messages(options, numbers)) for numbers in NUMBERS],
        }
        if DataParallel(pyrnn.Linear(1, 1)).rank == 0:
            print(json.dumps(result))
        return

    found = {count: measured(options, count) for count in sorted({1, 2, *options.processes})}
    _, slope = line(found[1]["messages"])
    mean = slope / options.shards
    start, slope = line([(n, t - options.shards / 2 * mean * n) for n, t in found[2]["messages"]])
    message = start / 6  # two processes: 4 log2 2 + 2
    rate = 4 / max(slope - mean, 1e-12)
    print(f"{options.shards} shards of {options.rows} rows and {options.steps} steps, {os.cpu_count()} CPUs")
    print(f"m {1e9 * mean:.2f} ns, a {1e6 * message:.0f} us, B {rate / 1e9:.1f} GB/s (two processes of this machine)")
    for k, hidden in enumerate(options.hidden):
        numbers, shard = found[1]["networks"][k]["numbers"], found[1]["networks"][k]["shard"]
        print(f"\nLSTM of {hidden} units, {numbers:,} numbers, a shard takes {1e3 * shard:.1f} ms on one thread")
        print(f"{'processes':>10} {'ms a step':>10} {'speedup':>8} {'model':>8} {'not computing':>14}")
        for count, of_count in found.items():
            own = of_count["networks"][k]
            step, computing = own["step"], own["shard"] * math.ceil(options.shards / count)
            model = predicted(min(count, os.cpu_count() or 1), options.shards, shard, numbers, mean, message, rate)
            speedup = found[1]["networks"][k]["step"] / step
            print(f"{count:10} {1e3 * step:10.1f} {speedup:8.2f} {1e3 * model:8.1f} {1 - computing / step:14.1%}")
    threaded = measured(options, 1, os.cpu_count() or 1)
    for name, (message, rate) in NETWORKS.items():
        print(f"\n{name}: a {1e6 * message:.0f} us, B {rate / 1e9:.1f} GB/s; 64 shards, {os.cpu_count()} CPUs a node")
        print(f"{'nodes':>10}", *(f"{f'{hidden} units':>12} {'speedup':>8}" for hidden in options.hidden))
        for nodes in NODES:
            cells = []
            for own in threaded["networks"]:
                step, alone = (
                    predicted(count, 64, own["shard"], own["numbers"], mean, message, rate) for count in (nodes, 1)
                )
                cells.append(f"{1e3 * step:9.1f} ms {alone / step:8.1f}")
            print(f"{nodes:10}", *cells)


if __name__ == "__main__":
    main()
