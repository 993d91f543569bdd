"""Parity and equal bits on every lower instruction set this machine has, and wrong settings at import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cells import python, python_environment

import pyrnn

HERE = Path(__file__).parent


BEST_FIRST = pyrnn.kernels.isas()
LOWER = BEST_FIRST[BEST_FIRST.index(pyrnn.kernels.isa()) + 1 :]


def test_those_of_the_build_are_told():
    message = python("import pyrnn", ok=False, PYRNN_ISA="none")
    assert message.rstrip().endswith(f"PYRNN_ISA is 'none', expected one of {', '.join(BEST_FIRST)}")


def test_the_best_one_is_chosen():
    chosen = python("import pyrnn; print(pyrnn.kernels.isa())", PYRNN_ISA=None).strip()
    for better in BEST_FIRST[: BEST_FIRST.index(chosen)]:
        message = python("import pyrnn", ok=False, PYRNN_ISA=better)
        assert f"PYRNN_ISA is '{better}', which this CPU does not have" in message


@pytest.mark.parametrize("isa", BEST_FIRST[BEST_FIRST.index(pyrnn.kernels.isa()) :])
def test_choice_is_told(isa):
    assert python("import pyrnn; print(pyrnn.kernels.isa())", PYRNN_ISA=isa).strip() == isa


def plain(isa):
    """The set that a set adds instructions to, for fewer bits."""
    return min((other for other in BEST_FIRST if f"{isa}-".startswith(f"{other}-")), key=len)


def started_on(isa, folder):
    """The same tests, under way, on a share of the random cases, but for those about caches and lengths. A set that has
    the same kernels as the best one, but for those of fewer bits, needs theirs alone.
    """
    chosen = (
        ["test_quantize.py", "test_precision.py"]
        if plain(isa) == plain(pyrnn.kernels.isa())
        else [
            "test_parity.py",
            "test_same_bits.py",
            "test_quantize.py",
            "-k",
            "not (long_and_wide or very_often or wider_than_a_cache or in_a_stack)",
        ]
    )
    with open(folder / isa, "w") as out:  # a pipe that nobody reads would fill
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
            env=python_environment(PYRNN_ISA=isa, PYRNN_TEST_CASES="20"),
            cwd=HERE,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="session", autouse=True)
def runs(tmp_path_factory):
    """Of all lower sets, side by side: (process, its output). They go on beside the tests that follow; conftest.py has
    what waits for them come later.
    """
    folder = tmp_path_factory.mktemp("runs")
    started = {isa: (started_on(isa, folder), folder / isa) for isa in LOWER}
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("isa", LOWER)
def test_parity_and_same_bits(isa, runs):
    process, out = runs[isa]
    assert process.wait() == 0, out.read_text()[-7000:]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_instruction_sets_agree(dtype):
    """Not to the bit, but to rounding: one training step of a small net on each."""
    code = f"""
        import numpy as np, pyrnn
        rng = np.random.default_rng(0)
        layer = pyrnn.LSTM(9, 37, 2, bidirectional=True, dtype="{dtype}", rng=0)
        (y, final), pullback = layer.vjp(rng.standard_normal((7, 5, 9)), lengths=[7, 0, 3, 5, 7])
        dx, dstate = pullback(y, final)
        for a in (y, *final, dx, *dstate, *layer.grads.values()):
            print(float(np.sum(np.abs(a), dtype=np.float64)))
    """
    expected = [float(line) for line in python(code).split()]
    assert len(expected) > 20
    for isa in LOWER:
        found = [float(line) for line in python(code, PYRNN_ISA=isa).split()]
        assert found == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PYRNN_ISA", "", "PYRNN_ISA is '', expected one of "),
        ("PYRNN_ISA", "X86-64-V2", "PYRNN_ISA is 'X86-64-V2', expected one of "),
        ("PYRNN_ISA", "x86-64-v9", "PYRNN_ISA is 'x86-64-v9', expected one of "),
        *(
            ("PYRNN_NUM_THREADS", value, f"PYRNN_NUM_THREADS is '{value}', expected an integer from 1 to ")
            for value in ("0", "-1", "two", "1.5", "2 threads", "", "99999999999999999999")
        ),
    ],
)
def test_wrong_settings_are_errors_at_import(name, value, message):
    error = python("import pyrnn", ok=False, **{name: value})
    assert re.match(r"(Value|Import)Error: " + re.escape(message), error.rstrip().splitlines()[-1])
