"""Pictures are drawn by the code of their pages: where a page shows one of `_pictures`, its blocks of Python run."""

import contextlib
import io
import os
import re
from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def draw(docs: Path) -> None:
    """Run the blocks of every page that shows pictures of its own."""
    folder = docs / "_pictures"
    folder.mkdir(exist_ok=True)
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "](_pictures/" in text:
            code = "\n".join(match[1] for match in BLOCK.finditer(text))
            before = os.getcwd()
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(code, str(page), "exec"), {})
            finally:
                os.chdir(before)


def setup(app):
    app.connect("builder-inited", lambda app: draw(Path(app.srcdir)))
    return {"parallel_read_safe": True}
