"""Teams of 4 to 64 threads, counted and predicted: of the sources, on any machine.

    python -m bench.teams [--threads 4 8 16 64] [--shape T,N,I,H ...]

Counted is what each thread does, by tests/teams.cpp (compiled here): an even share or not, bytes of weights and rows it
reads, meetings and lines that are looked at. Predicted is how many times as fast as on one thread the forward pass of an
LSTM is, by the cost model of csrc/base/costs.hpp: nobody has measured that.
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
COUNTED = [
    ("lstm", "100,64,256"), ("lstm", "100,16,256"), ("lstm", "100,1,256"),
    ("linear", "512,512,512"), ("attention", "8,256,64"), ("attention", "8,1024,64"),
]  # fmt: skip


def run(program: Path, requests: list[tuple[str, int, str]]) -> list[dict[str, Any]]:
    arguments = [text for op, threads, numbers in requests for text in (op, f"{threads}:{numbers}")]
    environment = {**os.environ, "PYRNN_WAKE": "patient"}
    result = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def main(arguments: list[str] | None = None) -> None:
    from .recurrent import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[4, 8, 16, 64])
    parser.add_argument("--shape", nargs="*", metavar="T,N,I,H", default=[",".join(map(str, s)) for s in SHAPES["forward"]])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "teams"
        compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]
        command = [compiler, "-std=c++20", "-O2", "-march=native", "-pthread", f"-I{ROOT / 'csrc'}"]
        subprocess.run([*command, ROOT / "tests" / "teams.cpp", "-o", program], check=True)
        counted = run(program, [(op, n, numbers) for op, numbers in COUNTED for n in options.threads])
        predicted = run(program, [("predict", n, shape) for shape in options.shape for n in options.threads])
    print("counted: threads with work; the largest share over a fair one; MB the largest share reads; meetings of a thread")
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
        cells = [
            f"{row[n]['gain']:.1f} " + ("(assisted)" if row[n]["assisted"] else f"({row[n]['groups']}x{row[n]['team']})")
            for n in options.threads
        ]
        print(f"{shape:<20}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
