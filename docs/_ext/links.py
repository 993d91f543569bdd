"""Links within the built site: those from sources to the reference lead there, and one that is dead is a warning."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

TEMPLATE = "webpack-macros.html"  # of the theme, which copies it beside its pages


def back(app, name, template, context, doctree):
    """viewcode takes all names of a module to be documented below one; some are below the module, some below pyrnn."""
    if not name.startswith("_modules/"):
        return
    anchors = {(thing.docname, full): thing.node_id for full, thing in app.env.get_domain("py").objects.items()}

    def link(match):
        page, anchor = match.groups()
        module = name.removeprefix("_modules/").replace("/", ".")
        own = anchor.removeprefix(f"{module}.").removeprefix("pyrnn.")
        known = [anchors.get((page, full)) for full in (anchor, f"{module}.{own}", f"pyrnn.{own}")]
        return match[0].replace(anchor, next(filter(None, known), anchor))

    pattern = r'class="viewcode-back" href="[./]*([\w/]+)\.html#([\w.]+)"'
    context["body"] = re.sub(pattern, link, context.get("body", ""))


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key == "id":
                self.anchors.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)


def dead(folder):
    """(page, link) of all within the site that lead nowhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if not to.scheme and not to.netloc:
                file = (path.parent / unquote(to.path)).resolve() if to.path else path
                anchors = pages[file].anchors if file in pages else set()
                if not file.is_file() or (to.fragment and unquote(to.fragment) not in anchors):
                    yield path.relative_to(folder.resolve()), link


def finished(app, error):
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir)
        (folder / "_static" / TEMPLATE).unlink(missing_ok=True)
        for page, link in dead(folder):
            logging.getLogger(__name__).warning("%s: the link %s leads nowhere", page, link)


def setup(app):
    app.connect("html-page-context", back)
    app.connect("build-finished", finished, priority=900)  # when all files are there
    return {"parallel_read_safe": True}
