"""Files: named arrays and a JSON description in one safetensors file, replaced as a whole or not at all.

A file is written under a temporary name in its own directory, synced to the disk and renamed over the old one: whoever
reads the name finds the old file or the new one, never half of either, whenever the writing process dies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

# All of a description is one string under one key: the order of safetensors' own keys differs from process to process,
# and equal content shall be equal bytes.
KEY = "pyrnn"


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that writing `path` would meet, as far as it can be known before."""
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{os.fspath(path)}: there is no directory {directory}")
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)} is a directory, expected a file name")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"{os.fspath(path)} exists and is no regular file")
    if not os.access(directory, os.W_OK):
        raise PermissionError(f"{os.fspath(path)}: no permission to write in {directory}")


def replace(path: str | os.PathLike[str], content: bytes) -> None:
    """Make `content` the content of `path`, atomically."""
    check_writable(path)
    target = os.path.realpath(path)
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write `arrays` and `description` (anything JSON can hold) to the safetensors file `path`, atomically."""
    import safetensors.numpy

    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(description, ensure_ascii=False, sort_keys=True)
    replace(path, safetensors.numpy.save(dense, metadata={KEY: text}))


def load(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of `save` whose description says `"kind": kind`; return its arrays and its description.

    A file that is missing, unreadable, damaged or of another kind is an OSError or a ValueError that names it.
    """
    import safetensors

    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory, expected a safetensors file")
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: no such file")
    with open(name, "rb"):  # a missing permission is reported by Python, in words
        pass
    try:
        with safetensors.safe_open(name, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{name} is no safetensors file, or a damaged one: {error}") from error
    try:
        description = json.loads(text) if text is not None else None
    except ValueError as error:
        raise ValueError(f"{name}: its description is damaged: {error}") from error
    if not isinstance(description, dict) or description.get("kind") != kind:
        raise ValueError(f"{name} holds no {kind} of pyrnn")
    return arrays, description
