"""Teams of 4 to 64 threads, counted and predicted: of the sources, on any machine.

    python -m bench.teams [--threads 4 8 16 64] [--shape T,N,I,H ...]

Counted is what each thread does, by tests/teams.cpp (compiled here): an even share or not, bytes of weights and rows
that it reads, meetings. Predicted is how many times as fast as on one thread the forward pass of an LSTM is, by the
cost model of csrc/base/costs.hpp: nobody has measured that.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COUNTED = [("lstm", "100,64,256"), ("lstm", "100,16,256"), ("lstm", "100,1,256"), ("linear", "512,512,512")]


def run(program: Path, requests: list[tuple[str, int, str]]) -> list[dict[str, Any]]:
    arguments = [text for op, threads, numbers in requests for text in (op, f"{threads}:{numbers}")]
    environment = {**os.environ, "PYRNN_WAKE": "patient"}
    result = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def shown(line: dict[str, Any]) -> str:
    """A prediction, and by which split."""
    split = "assisted" if line["assisted"] else f"{line['groups']}x{line['team']}"
    return f"{line['gain']:.1f} ({split})"


def main(arguments: list[str] | None = None) -> None:
    from .recurrent import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[4, 8, 16, 64])
    shapes = [",".join(map(str, shape)) for shape in SHAPES["forward"]]
    parser.add_argument("--shape", nargs="*", metavar="T,N,I,H", default=shapes)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "teams"
        compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]
        command = [compiler, "-std=c++20", "-O2", "-march=native", "-pthread", f"-I{ROOT / 'csrc'}"]
        subprocess.run([*command, ROOT / "tests" / "teams.cpp", "-o", program], check=True)
        counted = run(program, [(op, n, numbers) for op, numbers in COUNTED for n in options.threads])
        predicted = run(program, [("predict", n, shape) for shape in options.shape for n in options.threads])
    print("counted: threads that work; the largest share over a fair one; MB that it reads; meetings of a thread")
    for line in counted:
        fair = line["most"] * line["threads"] / max(line["work"], 1)
        print(
            f"{line['case']:<28}{line['threads']:4} threads{line['busy']:5}{fair:8.2f}{line['bytes'] / 1e6:9.2f} MB"
            f"{line['meetings'] / line['threads']:8.1f}"
        )
    print("\npredicted: times as fast as one thread (groups of rows x threads that share units)")
    print(f"{'T, N, I, H':<20}" + "".join(f"{n:>14} threads" for n in options.threads))
    for shape in options.shape:
        row = {line["threads"]: line for line in predicted if line["case"] == shape}
        print(f"{shape:<20}" + "".join(f"{shown(row[n]):>22}" for n in options.threads))


if __name__ == "__main__":
    main()
