"""The examples in the README and in the guide run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cells import python_environment

import pyrnn

README = Path(__file__).parents[1] / "README.md"
GUIDE = Path(pyrnn.__file__).parent / "examples" / "README.md"  # comes with the wheel
DOCS = {README.parent / "docs" / "torch.md": ["torch"]}  # what their blocks import beside us


@pytest.mark.parametrize("page", [README, GUIDE, *DOCS], ids=["README", "guide", *(page.stem for page in DOCS)])
def test_python_blocks(page):
    for name in DOCS.get(page, []):
        pytest.importorskip(name)
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert blocks
    for block in blocks:
        lines_before = text.count("\n", 0, block.start(1))
        exec(compile("\n" * lines_before + block[1], str(page), "exec"), names)


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
