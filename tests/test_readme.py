"""The examples in the README and in the guide run as they stand there."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cells import python_environment

import pyrnn

README = Path(__file__).parents[1] / "README.md"
GUIDE = Path(pyrnn.__file__).parent / "examples" / "README.md"  # comes with the wheel
INCLUDE = re.compile(r'```\{include\} (\S+)\n(?::start-after: "(.*)"\n)?(?::end-before: "(.*)"\n)?```')


def seen(page):
    """The text of a page with what it includes."""

    def included(match):
        text = seen(page.parent / match[1])
        text = text.split(match[2], 1)[1] if match[2] else text
        return text.split(match[3], 1)[0] if match[3] else text

    return INCLUDE.sub(included, page.read_text(encoding="utf-8"))


ELSEWHERE = {"all", "first_layer", "series"}  # the README, the guide, and test_sklearn.py
DOCS = [
    page
    for page in sorted((README.parent / "docs").glob("*.md"))
    if page.stem not in ELSEWHERE and "```python" in seen(page)
]
GOLDEN = Path(__file__).parent / "golden"
NEEDS = {"torch": "import torch", "onnx": "_onnx("}  # a package, and how a block tells that it needs it

# A file of RTNeural's: an LSTM of two units and its head.
AMP = {
    "in_shape": [None, None, 1],
    "layers": [
        {
            "type": "lstm",
            "activation": "",
            "shape": [None, None, 2],
            "weights": [[[0.5] * 8], [[0.1] * 8] * 2, [0] * 8],
        },
        {"type": "dense", "activation": "", "shape": [None, None, 1], "weights": [[[1], [-1]], [0.5]]},
    ],
}


@pytest.mark.parametrize("page", [README, GUIDE, *DOCS], ids=["README", "guide", *(page.stem for page in DOCS)])
def test_python_blocks(page, tmp_path, monkeypatch):
    """From the top of a page as it is read, with no name at hand, in a folder with the files that they read; those
    that need a package which is not here are left out."""
    shutil.copy(GOLDEN / "torch.pt", tmp_path / "model.pt")
    shutil.copy(GOLDEN / "keras3_chain.keras", tmp_path / "model.keras")
    (tmp_path / "amp.json").write_text(json.dumps(AMP), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrnn.plots.style._png", lambda *_: b"")  # what is drawn is for test_plots.py, and takes long
    text = seen(page)
    names: dict[str, object] = {}
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert blocks
    missing = {name for name in NEEDS if importlib.util.find_spec(name) is None}
    left_out = set()
    for block in blocks:
        lacks = {name for name in missing if NEEDS[name] in block[1]}
        if lacks:
            left_out |= lacks
            continue
        lines_before = text.count("\n", 0, block.start(1))
        try:
            exec(compile("\n" * lines_before + block[1], str(page), "exec"), names)
            for printed, number in re.findall(r"^print\((.*)\)  # ([\d.]+)$", block[1], re.MULTILINE):
                assert f"{eval(printed, names):.{len(number.partition('.')[2])}f}" == number, printed
        except NameError:  # of what was made in a block that has been left out
            if not left_out:
                raise
    if left_out:
        pytest.skip(f"No module named {min(left_out)!r}")


def test_commands_set_up_and_run():
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^    (python3 -m venv .*)$", text, re.MULTILINE)
    assert [command.rsplit("&& ", 1)[1] for command in commands] == ["pyrnn train --seconds 60", "pytest"]


def test_commands_on_the_trained_model_run(tmp_path):
    """They read no character that the language reference, on which it has been trained, does not have."""
    from pyrnn.app.charmodel import CharModel, save_model
    from pyrnn.text.corpus import Vocabulary, language_reference

    vocabulary = Vocabulary.of(language_reference())
    save_model(tmp_path / "model.safetensors", CharModel(vocabulary, "rnn", 4, 8), {})
    commands = re.findall(r"^    (.*pyrnn (?:sample|eval) model.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        ours = command.replace("pyrnn ", f"{sys.executable} -m pyrnn ").replace("python -c", f"{sys.executable} -c")
        subprocess.run(ours, shell=True, cwd=tmp_path, env=python_environment(), check=True, capture_output=True)
