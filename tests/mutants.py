"""A hundred one-line faults, each with the tests that must notice it: does the suite see what it is there to see?

    python tests/mutants.py [-k PATTERN] [--list]

Each change of mutants.txt is made alone, in a copy of the tree under build/mutants, which is built with the instruction
set of this CPU alone, and its tests are run there: they must fail (or crash, or hang). The exit code is 1 where one
survives, where its old text is not found exactly once, where it does not compile, and where its tests fail without it.
A change that makes no difference to any result has no place in the list.

PATTERN is searched in the file and in the text of a change.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutants"
TREE, BUILD = WORK / "tree", WORK / "cmake"
HANG = 600  # seconds


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    tests: str  # arguments of pytest


def read_list() -> list[Mutant]:
    """The blocks of mutants.txt."""
    mutants = []
    for block in Path(__file__).with_suffix(".txt").read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            file, *rest = lines
            old, new, tests = ("\n".join(line[2:] for line in rest if line.startswith(mark)) for mark in "-+!")
            mutants.append(Mutant(file, old, new, tests))
    return mutants


def copy_tree() -> None:
    """The files of the working tree in TREE; what is as it was keeps its time, so that little is built again."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for name in names:
        source, target = ROOT / name, TREE / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for path in [path for ending in ("py", "cpp", "hpp") for path in TREE.rglob(f"*.{ending}")]:
        if str(path.relative_to(TREE)) not in names:
            path.unlink()


def this_instruction_set() -> str:
    code = "import pyrnn; print(pyrnn.kernels.isa())"
    found = subprocess.run([sys.executable, "-c", code], cwd=TREE.parent, capture_output=True, text=True, check=True)
    # The sets of CPUs with more instructions for some products (x86-64-v4-bf16) are built with the one they add to.
    return "_".join(found.stdout.strip().split("-")[:3]) if "x86" in found.stdout else "arm64"


def configure() -> None:
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    )
    command = ["cmake", "-S", TREE, "-B", BUILD, f"-Dpybind11_DIR={pybind11.stdout.strip()}"]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-DPYRNN_ISAS={this_instruction_set()}"]
    command += ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    if shutil.which("ccache"):
        command += ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def build() -> str:
    """What the compiler says where it fails."""
    made = subprocess.run(
        ["cmake", "--build", BUILD, "--parallel", str(os.cpu_count() or 1)], capture_output=True, text=True
    )
    if made.returncode:
        return made.stdout[-3000:] + made.stderr[-3000:]
    for module in BUILD.glob("*.so"):
        shutil.copyfile(module, TREE / "pyrnn" / module.name)
    return ""


def run_tests(tests: str) -> str:
    """ "passed", "failed", "hung", or what is wrong with the arguments."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    environment = {**os.environ, "PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True, timeout=HANG)
    except subprocess.TimeoutExpired:
        return "hung"
    if done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or done.returncode < 0:  # or a crash
        return "passed" if done.returncode == 0 else "failed"
    return done.stdout[-1000:] + done.stderr[-1000:]  # a test that cannot be found, or imported, has noticed nothing


def judge(mutant: Mutant) -> str:
    """ "killed", or what is wrong with the change or with its tests."""
    path = TREE / mutant.file
    text = path.read_text() if path.is_file() else ""
    if text.count(mutant.old) != 1:
        return f"WRONG: its old text is found {text.count(mutant.old)} times"
    try:
        path.write_text(text.replace(mutant.old, mutant.new))
        if errors := build():  # at once where there is nothing to do; also what the change before it has left
            return f"WRONG: it does not compile\n{errors}"
        result = run_tests(mutant.tests)
    finally:
        path.write_text(text)
    if result in ("failed", "hung"):
        return "killed"
    return "SURVIVED" if result == "passed" else f"WRONG: {result}"


def main(pattern: str, only_list: bool) -> int:
    chosen = [m for m in read_list() if re.search(pattern, "\n".join(m))]
    if only_list:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.tests}\n  - {mutant.old}\n  + {mutant.new}")
        return 0
    copy_tree()
    configure()
    if errors := build():
        print(f"the tree does not compile\n{errors}")
        return 1
    bad = 0
    for tests in dict.fromkeys(m.tests for m in chosen):
        if (result := run_tests(tests)) != "passed":
            print(f"WRONG without any change: {tests}: {result}", flush=True)
            bad += 1
    for k, mutant in enumerate(chosen, 1):
        start = time.monotonic()
        verdict = judge(mutant)
        bad += verdict != "killed"
        print(f"{k}/{len(chosen)} {verdict} ({time.monotonic() - start:.0f} s) {mutant.file}: {mutant.new}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} killed")
    return int(bad > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="pattern", default="", help="only changes in which this regular expression is found")
    parser.add_argument("--list", dest="only_list", action="store_true", help="show the changes and end")
    sys.exit(main(**vars(parser.parse_args())))
