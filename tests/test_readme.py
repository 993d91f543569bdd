"""The examples in the README and in the guide run as they stand there."""

import re
from pathlib import Path

import pytest

import pyrnn

README = Path(__file__).parents[1] / "README.md"
GUIDE = Path(pyrnn.__file__).parent / "examples" / "README.md"  # comes with the wheel


@pytest.mark.parametrize("page", [README, GUIDE], ids=["README", "guide"])
def test_python_blocks(page):
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
