"""Modules that have moved into rooms go on being importable under the names they had: `pyrnn.losses` is
`pyrnn.training.losses`."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "attention": "layers.attention",
    "bptt": "training.bptt",
    "charmodel": "app.charmodel",
    "cli": "app.cli",
    "decoding": "text.decoding",
    "diagnostics": "training.gradient_flow",
    "files": "core.files",
    "gallery": "app.gallery",
    "hopfield": "associative.hopfield",
    "init": "layers.init",
    "jordan": "layers.jordan",
    "losses": "training.losses",
    "ngrams": "text.ngrams",
    "ode": "layers.ode",
    "optim": "training.optim",
    "parameters": "core.model",
    "recurrent": "layers.recurrent",
    "schedules": "training.schedules",
    "seq2seq": "layers.seq2seq",
    "sequential": "layers.sequential",
    "stream": "layers.stream",
}
HERE = __name__.rpartition(".")[0]

# Where the rest of what some of them held has gone; that is to be had, and unpickled, from the old name still.
PARTS = {
    "charmodel": ("app.trainer", "app.run"),
    "cli": ("app.terminal",),
    "hopfield": ("associative.net", "associative.dense", "associative.modern", "associative.patterns"),
    "parameters": ("core.parameters",),
    "recurrent": ("layers.stack",),
}


class Moved:
    """Finder and loader of the old names: the module of the new one. (importlib.abc takes long to import.)"""

    _spec: ModuleSpec | None  # of the module that is being loaded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of an old name, None of any other."""
        room, _, last = name.rpartition(".")
        return ModuleSpec(name, Moved()) if room == HERE and last in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, not a second one."""
        old = spec.name.rpartition(".")[2]
        module = importlib.import_module(f".{MOVED[old]}", HERE)
        self._spec = module.__spec__
        for part in PARTS.get(old, ()):
            for name, value in vars(importlib.import_module(f".{part}", HERE)).items():
                if not name.startswith("__"):
                    vars(module).setdefault(name, value)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; the import system has just given it the spec of the old name."""
        module.__spec__ = self._spec


sys.meta_path.append(Moved())
