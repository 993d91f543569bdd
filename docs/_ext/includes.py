"""Links of a file that a page includes: relative to the page, and to a page where the site has one of that file."""

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


def rewrite(app, path, docname, content):
    docs = Path(app.srcdir)
    root = docs.parent
    folder = (docs / path).parent

    def link(match):
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        file, anchor = re.fullmatch(r"([^#]*)(#.*)?", target).groups()
        found = Path(os.path.normpath(folder / file))
        page = PAGES.get(found.relative_to(root).as_posix())
        return f"]({page or os.path.relpath(found, docs)}{anchor or ''})"

    content[0] = re.sub(r"\]\(([^)\s]+)\)", link, content[0])


def setup(app):
    app.connect("include-read", rewrite)
    return {"parallel_read_safe": True}
