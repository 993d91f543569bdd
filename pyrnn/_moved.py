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


class Moved:
    """Finder and loader of the old names: the module of the new one. (importlib.abc takes long to import.)"""

    _spec: ModuleSpec | None  # of the module that is being loaded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of an old name, None of any other."""
        room, _, last = name.rpartition(".")
        return ModuleSpec(name, Moved()) if room == HERE and last in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, not a second one."""
        module = importlib.import_module(f".{MOVED[spec.name.rpartition('.')[2]]}", HERE)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; the import system has just given it the spec of the old name."""
        module.__spec__ = self._spec


sys.meta_path.append(Moved())
