"""Files: named arrays and a JSON description in one safetensors file, replaced as a whole or not at all.

A file is written under a temporary name in its own directory, synced to the disk and renamed over the old one: whoever
reads the name finds the old file or the new one, never half of either, whenever the writing process dies. The new file
has the mode, owner and attributes of the old one, as far as this user may give them; a symbolic link stays one.

Its writer holds a lock on a temporary file, which ends with the writer, however that dies: so what a killed one left is
known from what is being written, whatever became of its process number, and on other hosts as far as the file system
shares locks. It is removed when the same name is next written, or checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from .checks import file_name, shown

# All of a description is one string under one key: the order of safetensors' own keys differs from process to process,
# and equal content shall be equal bytes.
KEY = "pyrnn"
CHECKSUMS = "crc32"  # in the description: of each array by its name, of the rest of the description by ""


def as_path(path: Any) -> str:
    """A path as a string; bytes are one as well. TypeError and FileNotFoundError for what names no file."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path is {shown(path)}, expected a file name") from None
    if not name or "\0" in name:
        raise FileNotFoundError(f"{shown(name)} is no file name")
    return name


def existing(path: Any, expected: str) -> tuple[str, str]:
    """A path to read from as a string, and its name in errors: that nothing is there, or a directory."""
    path = as_path(path)
    name = file_name(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{name} is a directory, expected {expected}")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: no such file")
    return path, name


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that writing `path` would meet, as far as it can be known before."""
    with _temporary(path):
        pass


def replace(path: str | os.PathLike[str], content: bytes) -> None:
    """Make `content` the content of `path`, atomically. An OSError names `path`, and leaves it as it was."""
    with _temporary(path) as (file, target):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, target)
        handle = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _temporary(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """A locked file that may become `path`, and the name behind all links that it would then take. Ends removed."""
    path = as_path(path)
    called, target = file_name(path), os.path.realpath(path)
    directory, name = os.path.split(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{called}: there is no directory {directory}")
    with naming(called):
        try:
            before = os.stat(target)
        except FileNotFoundError:
            before = None
    if before is not None:
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(f"{called} is a directory, expected a file name")
        if not stat.S_ISREG(before.st_mode):
            raise OSError(f"{called} exists and is no regular file")
        if not os.access(target, os.W_OK):
            raise PermissionError(f"{called} is write-protected")
    with naming(called):
        name = _short(directory, name)
        _remove_leftovers(directory, name)
        file = _locked(os.path.join(directory, f".{name}"), 0o666 if before is None else 0o600)
        try:
            with file:
                if before is not None:
                    _take_over(file.fileno(), target, before)
                yield file, target
        finally:
            with contextlib.suppress(FileNotFoundError):  # it has become `path`
                os.unlink(file.name)


def _short(directory: str, name: str) -> str:
    """A file's name, without its end where there would be no room for the endings of its temporary files."""
    room = os.pathconf(directory, "PC_NAME_MAX") - len("..4294967295.tmp")
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name


@contextlib.contextmanager
def exclusive(path: str | os.PathLike[str]) -> Iterator[None]:
    """Only one at a time is inside with the same file, in whatever process: BlockingIOError for the others.

    Told by a lock on an empty file beside it, which is removed at the end; one that a killed process left is free.
    """
    path = as_path(path)
    called, target = file_name(path), os.path.realpath(path)
    directory, name = os.path.split(target)
    with naming(called):
        lock = os.path.join(directory, f".{_short(directory, name)}.lock")
    descriptor = _taken(lock, called)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # removed by another, without locks
            os.unlink(lock)
        os.close(descriptor)


def _taken(lock: str, called: str) -> int:
    """The descriptor of the lock file, locked. FileExistsError where that is something else than an empty file."""
    while True:
        with naming(file_name(lock) if os.path.lexists(lock) else called):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # a pipe is not waited for
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or before.st_size:
                raise FileExistsError(
                    f"{file_name(lock)} is in the way: it is the lock of {called} while that is written"
                )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(f"{called} is being written already") from None
            except OSError:  # a file system without locks
                pass
            if os.fstat(descriptor).st_nlink:  # else removed by who had it, before it was locked
                locked, descriptor = descriptor, -1
                return locked
        finally:
            if descriptor >= 0:
                os.close(descriptor)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Inside, an OSError of the system is given this file name, whatever name it had."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), name) from error


def _locked(start: str, mode: int) -> BinaryIO:
    """A new file of some name that begins with `start`, locked as long as it is open."""
    while True:
        name = f"{start}.{secrets.randbits(32)}.tmp"
        try:
            file = open(name, "xb", opener=lambda path, flags: os.open(path, flags, mode))  # noqa: SIM115
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # taken for a leftover before it was locked


def _remove_leftovers(directory: str, name: str) -> None:
    """Remove the temporary files of `name` that nobody holds locked any more."""
    leftover = re.compile(rf"\.{re.escape(name)}\.\d+\.tmp")
    for entry in os.listdir(directory):
        if leftover.fullmatch(entry):
            with contextlib.suppress(OSError), open(os.path.join(directory, entry), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(file.name)


def _take_over(handle: int, source: str, before: os.stat_result) -> None:
    """Give an open file the mode, owner and attributes of `source`, as far as this user may."""
    mode = stat.S_IMODE(before.st_mode) & 0o777
    with contextlib.suppress(OSError):
        try:
            os.fchown(handle, before.st_uid, before.st_gid)
        except PermissionError:
            try:
                os.fchown(handle, -1, before.st_gid)
            except PermissionError:
                mode &= ~stat.S_IRWXG  # they were another group's rights
        os.fchmod(handle, mode)
        for attribute in os.listxattr(source) if hasattr(os, "listxattr") else ():  # access control lists among them
            with contextlib.suppress(OSError):
                os.setxattr(handle, attribute, os.getxattr(source, attribute))


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write `arrays` and `description` (anything JSON can hold) to the safetensors file `path`, atomically."""
    import safetensors.numpy

    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    whole = dict(description) | {CHECKSUMS: _checksums(dense, description)}
    text = _json(dict(sorted(whole.items())))  # inside, as in the config of a model, the order is that of the layers
    replace(path, safetensors.numpy.save(dense, metadata={KEY: text}))


def load(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`read` of a file whose description says `"kind": kind`; any other is a ValueError that names it."""
    arrays, description = read(path)
    if description.get("kind") != kind:
        raise ValueError(f"{file_name(as_path(path))} holds no {kind} of pyrnn")
    return arrays, description


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description of a file of `save`.

    A file that is missing, unreadable, damaged or of another system is an OSError or a ValueError that names it.
    """
    import safetensors

    path, name = existing(path, "a safetensors file")
    if not os.path.isfile(path):
        raise OSError(f"{name} is no regular file, expected a safetensors file")
    with open(path, "rb"):  # a missing permission is reported by Python, in words
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{name} is no safetensors file, or a damaged one: {error}") from error
    try:
        description = json.loads(text) if text is not None else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its description is damaged: {error}") from error
    if not isinstance(description, dict):
        raise ValueError(f"{name} is a safetensors file, but not one of pyrnn's: pyrnn.read_weights reads such")
    written = description.pop(CHECKSUMS, None)
    if written is not None:  # files of earlier versions have none
        found = _checksums(arrays, description)
        written = written if isinstance(written, dict) else {}
        for part in sorted(found.keys() | written.keys()):
            if found.get(part) != written.get(part):
                what = f"array {part}" if part else "its description"
                raise ValueError(f"{name} is damaged: {what} is not what was written")
    return arrays, description


def _json(value: Any, sort: bool = False) -> str:
    """JSON with characters as they are, but for halves of surrogate pairs, which UTF-8 has not: these are escaped."""
    return json.dumps(value, ensure_ascii=False, sort_keys=sort).encode("utf-8", "backslashreplace").decode()


def _checksums(arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> dict[str, int]:
    """Of each array with its dtype and shape, and under "" of the description."""
    sums = {"": zlib.crc32(_json(description, sort=True).encode())}
    for name, array in arrays.items():
        sums[name] = zlib.crc32(array.data, zlib.crc32(f"{array.dtype} {array.shape}".encode()))
    return sums
