"""The directive `api`: what the docstrings of these names say, each as what it is: a class, a function or a module."""

import importlib
import inspect

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective

FOREIGN = ["torch", "sklearn", "pandas"]  # pyrnn.torch and pyrnn.sklearn are described without them


def resolved(name: str):
    """pyrnn.text.Words -> the class."""
    parts = name.split(".")
    thing = importlib.import_module(parts[0])
    for k, part in enumerate(parts[1:], 2):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            with mock(FOREIGN):
                thing = importlib.import_module(".".join(parts[:k]))
    return thing


def directive(given: str) -> list[str]:
    """A class with its own members, or with `+` behind its name with those that it inherits, too."""
    name = given.removesuffix("+")
    thing = resolved(name)
    if inspect.ismodule(thing):
        return [f".. automodule:: {name}"]
    if inspect.isclass(thing):
        inherited = ["   :inherited-members:"] if given != name else []
        return [f".. autoclass:: {name}", "   :members:", "   :special-members: __call__", *inherited]
    return [f".. autofunction:: {name}" if callable(thing) else f".. autodata:: {name}"]


class Api(SphinxDirective):
    has_content = True

    def run(self):
        lines = ["```{eval-rst}"]  # autodoc writes reStructuredText, these pages are Markdown
        for name in " ".join(self.content).split():
            lines += [*directive(name), ""]
        lines.append("```")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="api"), self.content_offset, node)
        return node.children


def skip(app, what, name, thing, skipped, options):
    """Fields of a named tuple are told by its docstring."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def setup(app):
    app.add_directive("api", Api)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
