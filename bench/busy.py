"""A busy machine: calls on one thread and on the default number, beside other processes and other libraries' pools.

    python -m bench.busy [--hogs 0 1 2 4] [--pools numpy torch onnxruntime] [--seconds 3] [--cases lstm ...]

A hog is a process that never rests. A pool is a library called between any two calls of ours, whose threads go on
looking for work when its call is over. One and more threads take turns of a quarter of a second; a figure is over all
calls of its turns. Where several threads are no use beside such neighbours, calls should take as long as on one thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import pyrnn

from . import peers
from .machine import cpus

Run = Callable[[], object]
TURN = 0.25  # seconds
HOG = "while True: pass"


def recurrent(steps: int, rows: int, size: int, backward: bool) -> Run:
    layer = pyrnn.LSTM(size, size, rng=0)
    x = np.random.default_rng(0).standard_normal((steps, rows, size), np.float32)

    def both() -> None:
        (y, state), pullback = layer.vjp(x)
        pullback(y, state)

    return both if backward else lambda: layer(x)


def attention(heads: int, length: int, features: int, backward: bool) -> Run:
    q, k, v = np.random.default_rng(0).standard_normal((3, heads, length, features), np.float32)

    def both() -> None:
        out, pullback = pyrnn.scaled_dot_product_attention_vjp(q, k, v)
        pullback(out)

    return both if backward else lambda: pyrnn.scaled_dot_product_attention(q, k, v)


def stream(size: int, steps: int) -> Run:
    running = pyrnn.LSTM(size, size, rng=0).stream()
    x = np.random.default_rng(0).standard_normal((steps, size), np.float32)

    def run() -> None:
        for x_t in x:
            running.step(x_t)

    return run


CASES: dict[str, Callable[[], Run]] = {
    "lstm 250,1,128": lambda: recurrent(250, 1, 128, False),
    "lstm 250,1,128 both": lambda: recurrent(250, 1, 128, True),
    "lstm 250,3,128": lambda: recurrent(250, 3, 128, False),
    "lstm 250,3,128 both": lambda: recurrent(250, 3, 128, True),
    "lstm 100,16,128": lambda: recurrent(100, 16, 128, False),
    "lstm 100,16,128 both": lambda: recurrent(100, 16, 128, True),
    "lstm 20000,1,128": lambda: recurrent(20000, 1, 128, False),
    "attention 8,256,64": lambda: attention(8, 256, 64, False),
    "attention 8,256,64 both": lambda: attention(8, 256, 64, True),
    "lstm-stream 384, 20 steps": lambda: stream(384, 20),
}


def pool_call(name: str) -> Run:
    """A call of the library that takes a fraction of a millisecond on all CPUs."""
    a = np.random.default_rng(0).standard_normal((384, 384), np.float32)
    if name == "numpy":
        return lambda: a @ a
    if name == "torch":
        import torch

        tensor = torch.from_numpy(a)
        return lambda: tensor @ tensor
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [384, 384]) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", value[:2], value[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(onnx.shape_inference.infer_shapes(model).SerializeToString())
    return lambda: session.run(None, {"a": a, "b": a})


def measure(run: Run, between: Run | None, threads: int, seconds: float) -> dict[int, np.ndarray]:
    """Seconds of every call on one thread and on `threads`."""
    times: dict[int, list[float]] = {1: [], threads: []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(times.values()):
        for count, samples in times.items():
            pyrnn.set_num_threads(count)
            stop = time.perf_counter() + TURN
            while True:
                if between:
                    between()
                start = time.perf_counter()
                run()
                now = time.perf_counter()
                samples.append(now - start)
                if now > stop:
                    break
    return {count: np.array(samples) for count, samples in times.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hogs", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--pools", nargs="*", choices=("numpy", "torch", "onnxruntime"), default=None)
    parser.add_argument(
        "--cases", nargs="*", choices=CASES, metavar="CASE", default=list(CASES), help=f"of {list(CASES)}"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for a row (default: %(default)s)")
    options = parser.parse_args(arguments)
    threads = cpus()
    able = [name for name in ("numpy", *peers.installed()) if name in ("numpy", "torch", "onnxruntime")]
    neighbours: list[tuple[str, int, str | None]] = [(f"{count} hogs", count, None) for count in options.hogs]
    neighbours += [(name, 0, name) for name in (able if options.pools is None else options.pools)]
    print(f"float32, 1 and {threads} threads, ms of a call: median and mean; ratio of the two")
    print(f"{'case':<26}{'beside':<14}{'1 thread':>16}{f'{threads} threads':>16}{'median':>9}{'mean':>7}")
    for case in options.cases:
        run = CASES[case]()
        for label, hogs, pool in neighbours:
            between = pool_call(pool) if pool else None
            running = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(hogs)]
            try:
                times = measure(run, between, threads, options.seconds)
            finally:
                for hog in running:
                    hog.kill()
                    hog.wait()
            one, more = times[1] * 1e3, times[threads] * 1e3
            print(
                f"{case:<26}{label:<14}{np.median(one):8.2f}{one.mean():8.2f}{np.median(more):8.2f}{more.mean():8.2f}"
                f"{np.median(more) / np.median(one):9.2f}{more.mean() / one.mean():7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
