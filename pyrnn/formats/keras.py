"""Keras' models in files and in memory: what they say of themselves, and the arrays of each of their layers."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..core.checks import Array, shown
from . import hdf5

WEIGHTS = "model.weights.h5"  # in the zip of a .keras file
MOST_MEMORY = 8  # bytes of the zip's entries for each byte of the file: Keras does not compress them


class Model(NamedTuple):
    """A model as Keras has it."""

    described: Any  # {"class_name": ..., "config": ...}, or None where there are weights alone
    version: str | None  # of the Keras that wrote it
    weights: dict[str, dict[str, Array]]  # of each layer, in the order of the file: its arrays by their names in it
    numbered: bool  # layers have the names of their classes, their arrays numbers: Keras 3
    ordered: bool = False  # the layers are in the order of the model, those without arrays among them


def read(file: BinaryIO, size: int) -> Model:
    """Of an open .keras or .h5 file of so many bytes."""
    start = file.read(8)
    file.seek(0)
    if start.startswith(b"PK"):
        described, version, root = unzipped(file, size)
        return Model(described, version, _numbered(root), True)
    if start != hdf5.SIGNATURE:
        raise ValueError(f"it begins with {start!r}, expected Keras' .keras or .h5")
    root = hdf5.read(file.read())
    said = root.attributes.get("model_config")
    described = None if said is None else json.loads(said)
    own = root.entries.get("model_weights", root)
    version = root.attributes.get("keras_version", own.attributes.get("keras_version"))
    if any(name in root.entries for name in ROOTS):
        return Model(described, version, _numbered(root), True)
    listed = _listed(own, "layer_names")
    return Model(described, version, _named(own, listed or list(own.entries)), False, bool(listed))


def unzipped(file: BinaryIO, size: int) -> tuple[Any, str | None, hdf5.Group]:
    """Description, version and weights of an open .keras file."""
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_MEMORY * size:
            raise ValueError(f"its entries take more memory than {MOST_MEMORY} times the file")
        parts = {name: archive.read(name) for name in ("config.json", "metadata.json", WEIGHTS)}
    metadata = json.loads(parts["metadata.json"])
    return json.loads(parts["config.json"]), metadata.get("keras_version"), hdf5.read(parts[WEIGHTS])


def joined(root: hdf5.Group) -> dict[str, Array]:
    """All arrays by their names joined by dots."""
    return {".".join(path): array for path, array in root.arrays()}


ROOTS = ("layers", "_layer_checkpoint_dependencies")  # where Keras 3, and TensorFlow 2.12 before it, put the layers


NO_LAYERS = ("optimizer", "metrics", "vars", "seed_generator")  # what else they put beside them


def _numbered(root: hdf5.Group) -> dict[str, dict[str, Array]]:
    found: dict[str, dict[str, Array]] = {}
    for path, array in root.arrays():
        if path[0] in ROOTS and len(path) > 2:
            found.setdefault(path[1], {})["/".join(path[2:])] = array
        elif path[0] not in NO_LAYERS:
            raise ValueError(f"{'/'.join(path)} is no array of a layer")
    return found


def _named(root: hdf5.Group, names: list[str]) -> dict[str, dict[str, Array]]:
    arrays = {"/".join(path): array for path, array in root.arrays()}
    found: dict[str, dict[str, Array]] = {}
    for name in names:
        group: Any = root
        for part in name.split("/"):
            group = group.entries[part]
        own = _listed(group, "weight_names") or ["/".join(path) for path, _ in group.arrays()]
        found[name] = {weight: arrays.pop(f"{name}/{weight}") for weight in own}
    lost = [path for path in arrays if not path.startswith(("optimizer_weights/", "top_level_model_weights/"))]
    if lost:
        raise ValueError(f"{lost[0]} is no array of a layer")
    return found


def _listed(group: hdf5.Group, name: str) -> list[str]:
    """A list of names, which Keras cuts in several where it is long."""
    found = list(group.attributes.get(name, []))
    part = 0
    while f"{name}{part}" in group.attributes:
        found += group.attributes[f"{name}{part}"]
        part += 1
    return found


def live(source: Any) -> Model:
    """Of a model or a layer of Keras, keras or tf.keras, that is there."""
    root = type(source).__module__.partition(".")[0]
    version = getattr(sys.modules.get(root), "__version__", None)
    described = {"class_name": type(source).__name__, "config": source.get_config()}
    layers = source.layers if isinstance(described["config"], Mapping) and hasattr(source, "layers") else [source]
    weights = {}
    for layer in layers:
        own = layer.weights if layer is source or hasattr(layer, "weights") else []
        weights[layer.name] = {getattr(weight, "path", weight.name): _values(weight) for weight in own}
    return Model(described, version, weights, False)


def _values(weight: Any) -> Array:
    value = weight.value
    value = value() if callable(value) else value
    if hasattr(value, "detach"):  # torch's
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return np.array(value)


def snake(name: str) -> str:
    """The name that Keras 3 makes of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def major(version: Any) -> int | None:
    """The number of a version before its first dot."""
    found = re.match(r"(\d+)\.", version) if isinstance(version, str) else None
    if version is not None and found is None:
        raise ValueError(f"its keras_version is {shown(version)}")
    return int(found[1]) if found else None
