"""The documentation's build: `python -m sphinx -W docs docs/_build`, with the extra `docs`."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
if not any((ROOT / "pyrnn" / f"_core{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
    # The sources alone: the pyrnn that is installed is meant.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != ROOT]
sys.path.insert(0, str(DOCS / "_ext"))

import pyrnn  # noqa: E402

project = "pyrnn"
author = copyright = "the pyrnn authors"
version = release = pyrnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
# Those of the folder _ext:
extensions += ["api", "commands", "docstrings", "includes", "links", "mathml", "moving", "pictures"]
exclude_patterns = ["_build", "_pictures"]
suppress_warnings = ["myst.header"]  # a part of another page may begin with a heading of any level
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
smartquotes = False  # docstrings quote values
python_maximum_signature_line_length = 88

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "pyrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
toc_object_entries_show_parents = "hide"  # the column of contents is narrow
html_theme_options = {
    "logo": {"text": "pyrnn"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
