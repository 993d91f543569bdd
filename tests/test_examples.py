"""The systems of pyrnn/examples: each runs on a tiny cut and tells its figures; together they keep the guide's rules.

The figures themselves are reached by the commands in their docstrings, which take minutes.
"""

import importlib
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import pyrnn.examples

FOLDER = Path(pyrnn.examples.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")


def run(name, *arguments, code=0):
    """The output of one example's command line."""
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


# All of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_system_is_a_short_lesson(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert text.count("\n") < 200
    module = importlib.import_module(f"pyrnn.examples.{name}")
    assert f"python -m pyrnn.examples.{name}" in module.__doc__
    private = re.findall(r"^ *(?:from|import) (?:\.\.|pyrnn\._|pyrnn import _).*", text, re.MULTILINE)
    assert not private, "an example uses the public API"
    assert module.main.help


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_has_a_row_for_it(name):
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\|.*`{name}\b[^|]*` *\|[^|]*\|$", guide, re.MULTILINE), f"no row of the table runs {name}"


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_told(name):
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    if any(option.name == "data" for option in main.params):
        for arguments in [(), ("--data", "no/such/place")]:
            output = " ".join(run(name, *arguments, code=2).split())
            assert "Expected: " in output
            assert "found at http" in output


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_that_cannot_be_written_is_told_at_once(name, tmp_path):
    pytest.importorskip("matplotlib")
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    if any(option.name == "plot" for option in main.params):
        data = ["--data", tmp_path] if any(option.name == "data" for option in main.params) else []
        assert "--plot" in run(name, *data, "--plot", tmp_path / "picture.txt", code=2)


def test_options_are_clicks():
    assert NAMES
    for name in NAMES:
        assert isinstance(importlib.import_module(f"pyrnn.examples.{name}").main, click.Command)


# hello -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_hello_is_learned_exactly_and_drawn_with_shapes(seed):
    from pyrnn.examples import hello

    model = hello.Letters(3, np.random.default_rng(seed))
    assert hello.learn(model, 200) < 0.02
    assert hello.write(model, "h", 5) == "hello"
    drawing = hello.drawing(model)
    for part in ["logits (4, 4)", "h (4, 3)", "x (4, 4)", "W_xh (3, 4)", "W_hh (3, 3)", "W_hy (4, 3)"]:
        assert part in drawing


def test_hello_command():
    output = run("hello", "--seed", 1)
    assert "after: hello" in output
    assert "likeliest letters                  'e'         'l'         'l'         'o'" in output


# gradient_flow ---------------------------------------------------------------------------------------------------


def test_gradient_flow_vanishes_explodes_and_stays(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("gradient_flow", "--hidden", 12, "--steps", 60, "--plot", tmp_path / "flow.png")
    norms = {line[:34].strip(): float(line[34:62].split()[1]) for line in output.splitlines()[1:]}
    assert norms["RNN, W 0.9 x orthogonal"] < 1e-3
    assert norms["RNN, W 2 x orthogonal"] > 10
    assert max(norms["LSTM, forget gate's bias 0"], norms["GRU, update gate's bias 0"]) < 1e-8
    assert min(norms["LSTM, forget gate's bias log u"], norms["GRU, update gate's bias log u"]) > 1e-4
    assert (tmp_path / "flow.png").stat().st_size > 10_000
