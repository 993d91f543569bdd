"""Docstrings as they are written here, made reStructuredText: prose, lists, tables of two columns, indented examples.

In a docstring nothing is marked up but `names`; an indented block, or one that is Python, is an example; lines of a
name, two spaces and words are a table, whose rows may go on, indented.
"""

import ast
import re
import textwrap

ROW = re.compile(r"(\S.*?) {2,}(\S.*)")


def blocks(text: str) -> list[str]:
    """What blank lines divide; those that are indented and follow each other are one."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        indented = all(line.startswith("    ") for line in block.splitlines())
        if indented and found and found[-1].startswith("    "):
            found[-1] += "\n\n" + block
        else:
            found.append(block)
    return found


def is_code(block: str) -> bool:
    """Whether it is Python, and no sentence that happens to be."""
    try:
        return bool(re.search(r"[=(\[]", block)) and bool(ast.parse(textwrap.dedent(block)).body)
    except SyntaxError:
        return False


def escaped(words: str) -> str:
    """Nothing in it means anything, but `names`."""
    parts = re.split(r"`+([^`]+)`+", words)
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def table(lines: list[str]) -> list[tuple[str, str]]:
    """(name, words) of each row; nothing where it is no table."""
    rows: list[tuple[str, str]] = []
    for line in lines:
        row = ROW.fullmatch(line)
        if row and not line.startswith(" "):
            rows.append((row[1], row[2]))
        elif rows and line.startswith(" "):
            rows[-1] = rows[-1][0], f"{rows[-1][1]} {line.strip()}"
        else:
            return []
    return rows


def converted(text: str) -> str:
    """reStructuredText of a docstring."""
    found: list[str] = []
    for block in blocks(text):
        lines = block.splitlines()
        rows = table(lines)
        code = is_code(block)
        if code or block.startswith("    "):
            language = "python" if code else "text"
            found.append(f".. code-block:: {language}\n\n{textwrap.indent(textwrap.dedent(block), '    ')}")
        elif block.startswith("- "):
            items = re.split(r"\n(?=- )", block)
            found.append("\n".join(f"- {escaped(' '.join(item[2:].split()))}" for item in items))
        elif rows:
            found += [f"{escaped(name)}\n    {escaped(words)}" for name, words in rows]
        else:
            found.append(escaped(" ".join(line.strip() for line in lines)))
    return "\n\n".join(found)


def process(app, what, name, thing, options, lines):
    lines[:] = [*converted("\n".join(lines)).splitlines(), ""]


def setup(app):
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
