"""Links to files of the repository, in pages and in what they include: to the page of the site that shows the file, or
relative to the page."""

import os
import re
from pathlib import Path

PAGES = {  # files of the repository by the pages that show them
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "all.md",
    "SECURITY.md": "security.md",
    "bench/README.md": "measuring.md",
    "pyrnn/examples/README.md": "systems.md",
}


def rewritten(text: str, folder: Path, docs: Path, page: Path) -> str:
    """A text of a file in `folder`, shown by a page in the folder `page`."""

    def link(match):
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        file, anchor = re.fullmatch(r"([^#]*)(#.*)?", target).groups()
        found = Path(os.path.normpath(folder / file))
        if found.is_relative_to(docs.parent):
            shown = PAGES.get(found.relative_to(docs.parent).as_posix())
            found = docs / shown if shown else found
        return f"]({Path(os.path.relpath(found, page)).as_posix()}{anchor or ''})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def included(app, path, name, content):
    """All pages that include something lie in the first folder."""
    docs = Path(app.srcdir)
    content[0] = rewritten(content[0], (docs / path).parent, docs, docs)


def read(app, name, content):
    docs = Path(app.srcdir)
    page = (docs / name).parent
    content[0] = rewritten(content[0], page, docs, page)


def setup(app):
    app.connect("include-read", included)
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
