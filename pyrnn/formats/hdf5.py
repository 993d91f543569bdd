"""HDF5 files, read within their bytes: groups, attributes and arrays of numbers, as Keras and h5py write them.

The C library runs in circles on damaged files, where nothing can stop it, so they are read here. What the format has
besides, links between files, dense storage of groups, compound types and others, is a ValueError that names it. Format:
"HDF5 File Format Specification, version 3.0".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import Array, shown
from . import torch

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1  # an address of nothing
MOST_MEMORY = 8  # bytes of arrays for each byte of the file
DEEPEST = 64  # groups in groups

DATASPACE, LINK_INFO, DATATYPE, LINK, LAYOUT, FILTERS, ATTRIBUTE = 0x01, 0x02, 0x03, 0x06, 0x08, 0x0B, 0x0C
CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x10, 0x11, 0x15
FLOATS = {(8, 52, 8): "f8", (8, 23, 4): "f4", (5, 10, 2): "f2", (11, 52, 8): "f8", (8, 7, 2): torch.BFLOAT16}
DEFLATE, SHUFFLE = 1, 2  # the filters that are undone


class Group:
    """What is in a group by name: groups and arrays; and its attributes, of texts and numbers."""

    def __init__(self, attributes: dict[str, Any], entries: dict[str, Any]) -> None:
        self.attributes = attributes
        self.entries = entries

    def arrays(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Array]]:
        """All arrays in it and in the groups in it, with the names on the way there."""
        for name, entry in self.entries.items():
            if isinstance(entry, Group):
                yield from entry.arrays((*path, name))
            else:
                yield (*path, name), entry


class Kind(NamedTuple):
    """How an element lies in the file: numbers as NumPy has them, or texts."""

    dtype: str
    size: int
    text: str = ""  # "fixed", or "elsewhere" for those in the global heap

    def number(self) -> np.dtype[Any]:
        """Of numbers, as they lie in the file."""
        return np.dtype("<u2" if self.dtype == torch.BFLOAT16 else self.dtype)

    def known(self, numbers: Array) -> Array:
        """A copy of the numbers in the machine's own order, of bfloat16 as float32."""
        return (
            torch.widened(numbers) if self.dtype == torch.BFLOAT16 else numbers.astype(numbers.dtype.newbyteorder("="))
        )


def read(content: bytes) -> Group:
    """The root group of the file whose bytes these are; ValueError for what is damaged or not read here."""
    return Reader(content).root()


class Reader:
    """The bytes of a file, and how much of it may still be read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.memory = MOST_MEMORY * len(content)
        self.met: set[int] = set()  # addresses of headers and nodes; each is met once
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}  # by address the objects of a collection by number
        self.left = 2 * len(content)  # bytes of blocks, heaps, texts in these and pieces, which do not overlap
        self.parts = len(content) // 8  # messages, entries and objects of heaps that there is room for, and more

    def take(self, start: int, length: int) -> bytes:
        """So many bytes from there on."""
        if start < 0 or length < 0 or start + length > len(self.content):
            raise ValueError("it is damaged: it reaches beyond its end")
        return self.content[start : start + length]

    def once(self, start: int, length: int) -> bytes:
        """The same, of what no other part of the file has too."""
        self.spend(length)
        return self.take(start, length)

    def spend(self, length: int) -> None:
        """So many bytes are read."""
        self.left -= length
        if self.left < 0:
            raise ValueError("it is damaged: its parts overlap")

    def numbers(self, form: str, start: int) -> tuple[Any, ...]:
        """As struct reads them, from there on."""
        return struct.unpack("<" + form, self.take(start, struct.calcsize("<" + form)))

    def enter(self, address: int, what: str) -> None:
        """A header or a node, which has one way that leads to it."""
        if address in self.met:
            raise ValueError(f"{what} is met twice")
        self.met.add(address)

    def count(self) -> None:
        """One more part."""
        self.parts -= 1
        if self.parts < 0:
            raise ValueError("it is damaged: it has more parts than there is room for")

    def root(self) -> Group:
        """The group that holds all."""
        if self.take(0, 8) != SIGNATURE:
            raise ValueError("it is no HDF5 file")
        version = self.take(8, 1)[0]
        sizes = self.numbers("BB", 13 if version < 2 else 9)
        if version > 3 or sizes != (8, 8):
            raise ValueError(f"it is an HDF5 file of version {version} with addresses of {sizes[0]} bytes")
        if version < 2:
            start = 24 + 4 * version
            base, header = self.numbers("Q", start)[0], self.numbers("Q", start + 40)[0]
        else:
            base, header = self.numbers("Q", 12)[0], self.numbers("Q", 36)[0]
        if base:
            raise ValueError("what is HDF5 in it does not begin at its start")
        root = self.thing(header, "the root group", 0)
        if not isinstance(root, Group):
            raise ValueError("its root is no group")
        return root

    def thing(self, address: int, name: str, depth: int) -> Any:
        """The group or the array whose header is there; as a text what is no array of numbers."""
        self.enter(address, name)
        if depth > DEEPEST:
            raise ValueError(f"{name} lies in more than {DEEPEST} groups")
        messages = list(self.messages(address))
        attributes = dict(self.attribute(data, name) for kind, data in messages if kind == ATTRIBUTE)
        found = dict(messages)  # there is one of each but of attributes and links
        if kinds := {LINK_INFO: 2, ATTRIBUTE_INFO: 2}.keys() & found.keys():
            for kind in kinds:
                self.refuse_dense(found[kind], name)
        if LAYOUT in found:
            return self.array(found, name, attributes.get("dtype"))
        entries: dict[str, Any] = {}
        links = [self.link(data, name) for kind, data in messages if kind == LINK]
        if SYMBOL_TABLE in found:
            tree, heap = self.parsed("QQ", found[SYMBOL_TABLE])
            links += self.symbols(tree, self.heap(heap), name)
        for entry, where in links:
            entries[entry] = self.thing(where, f"{name}/{entry}" if depth else entry, depth + 1)
        return Group(attributes, entries)

    def parsed(self, form: str, data: bytes, start: int = 0) -> tuple[Any, ...]:
        """As struct reads them, from a message."""
        if start + struct.calcsize("<" + form) > len(data):
            raise ValueError("it is damaged: a message is too short")
        return struct.unpack_from("<" + form, data, start)

    # ---- headers

    def messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """The kind and the content of what a header says."""
        new = self.take(address, 4) == b"OHDR"
        tracked = False
        if new:
            flags = self.numbers("BB", address + 4)[1]
            tracked = bool(flags & 4)
            start = address + 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
            width = 1 << (flags & 3)
            blocks = [(start + width, int.from_bytes(self.take(start, width), "little"))]
        else:
            version, _, length = self.numbers("BB6xI", address)
            if version != 1:
                raise ValueError(f"it is damaged, or a header is of version {version}")
            blocks = [(address + 16, length)]
        while blocks:
            start, length = blocks.pop(0)
            end = start + length
            self.once(start, length)
            while start + (4 + 2 * tracked if new else 8) <= end:
                self.count()
                if new:
                    kind, size, flags = self.numbers("BHB", start)
                    start += 4 + 2 * tracked
                else:
                    kind, size, flags = self.numbers("HHB", start)
                    start += 8
                if start + size > end:
                    raise ValueError("it is damaged: a message is longer than its block")
                data = self.take(start, size)
                start += size
                if kind == CONTINUATION:
                    where, extent = self.parsed("QQ", data)
                    self.enter(where, "a block of a header")
                    if new and self.take(where, 4) != b"OCHK":
                        raise ValueError("it is damaged: a block of a header is none")
                    blocks.append((where + 4, extent - 8) if new else (where, extent))
                elif flags & 2 and kind in (DATASPACE, DATATYPE, LAYOUT, ATTRIBUTE):
                    raise ValueError("it shares types between objects, which is not read here")
                else:
                    yield kind, data

    def refuse_dense(self, data: bytes, name: str) -> None:
        """ValueError where links or attributes are in a heap of their own, as there are many of them."""
        version, flags = self.parsed("BB", data)
        wide = 8 if version == 0 and flags & 1 else 0  # of the largest creation order, 2 bytes for attributes
        where = [
            self.parsed("Q", data, start)[0] for start in {2 + wide, 4 if flags & 1 else 2} if start + 8 <= len(data)
        ]
        if all(address != UNDEFINED for address in where):
            raise ValueError(f"{name} has more links or attributes than are read in HDF5's newest form: "
                             "write the file with h5py's usual libver")  # fmt: skip

    # ---- groups

    def heap(self, address: int) -> bytes:
        """The names of a group."""
        if self.take(address, 4) != b"HEAP":
            raise ValueError("it is damaged: the names of a group are missing")
        size, _, start = self.numbers("QQQ", address + 8)
        return self.once(start, size)

    def symbols(self, address: int, names: bytes, group: str) -> list[tuple[str, int]]:
        """The entries of a group, from the node of a tree down."""
        found: list[tuple[str, int]] = []
        waiting = [address]
        while waiting:
            node = waiting.pop(0)
            self.enter(node, f"a node of {group}")
            signature = self.take(node, 4)
            if signature == b"TREE":
                _, _, count = self.numbers("BBH", node + 4)
                for k in range(count):
                    self.count()
                    waiting.append(self.numbers("Q", node + 32 + 16 * k)[0])
            elif signature == b"SNOD":
                for k in range(self.numbers("H", node + 6)[0]):
                    self.count()
                    name, header, cache = self.numbers("QQI", node + 8 + 40 * k)
                    if cache == 2:
                        raise ValueError(f"{group} holds a symbolic link, which is not read here")
                    end = names.find(b"\0", name)
                    own = names[name : end if end >= 0 else None]
                    self.spend(len(own))
                    found.append((text_of(own), header))
            else:
                raise ValueError(f"it is damaged: a node of {group} is none")
        return found

    def link(self, data: bytes, group: str) -> tuple[str, int]:
        """Name and header of an entry of a group in the newer form."""
        version, flags = self.parsed("BB", data)
        start = 2
        if flags & 8:
            if self.parsed("B", data, start)[0] != 0:
                raise ValueError(f"{group} holds a symbolic or external link, which is not read here")
            start += 1
        start += 8 * bool(flags & 4) + bool(flags & 16)
        width = 1 << (flags & 3)
        length = int.from_bytes(data[start : start + width], "little")
        start += width
        name = data[start : start + length]
        if version != 1 or len(name) != length:
            raise ValueError("it is damaged: a link is too short")
        return text_of(name), self.parsed("Q", data, start + length)[0]

    # ---- attributes and arrays

    def attribute(self, data: bytes, owner: str) -> tuple[str, Any]:
        """Name and value of an attribute; None for a value that is neither texts nor numbers."""
        version, _, *sizes = self.parsed("BBHHH", data)
        if version not in (1, 2, 3):
            raise ValueError(f"it is damaged, or an attribute of {owner} is of version {version}")
        start = 8 + (version == 3)
        parts = []
        for size in sizes:
            parts.append(data[start : start + size])
            start += size if version > 1 else (size + 7) // 8 * 8
        name = text_of(parts[0].split(b"\0", 1)[0])
        try:
            kind = self.kind(parts[1])
        except ValueError:
            return name, None
        shape = self.shape(parts[2])
        if shape is None:
            return name, None
        return name, self.values(kind, shape, data[start:], f"{name} of {owner}")

    def shape(self, data: bytes) -> tuple[int, ...] | None:
        """Of a dataspace; None for one of nothing."""
        version, rank, _, kind = self.parsed("BBBB", data)
        if version not in (1, 2):
            raise ValueError(f"it is damaged, or a dataspace is of version {version}")
        if version == 2 and kind == 2:
            return None
        return self.parsed(f"{rank}Q", data, 8 if version == 1 else 4)

    def kind(self, data: bytes) -> Kind:
        """Of a datatype; ValueError for those that are not read here."""
        first, bits, _, _, size = self.parsed("BBBBI", data)
        number, order = first & 15, ">" if bits & 1 else "<"
        if number == 0 and size in (1, 2, 4, 8):
            return Kind(f"{order}{'i' if bits & 8 else 'u'}{size}", size)
        if number == 1:
            _, _, _, exponent, _, mantissa = self.parsed("HHBBBB", data, 8)
            name = FLOATS.get((exponent, mantissa, size))
            if name == torch.BFLOAT16 and order == "<":
                return Kind(name, size)
            if name is not None and name != torch.BFLOAT16:
                return Kind(order + name, size)
        if number == 3:
            return Kind("", size, "fixed")
        if number == 5 and size == 2:  # what NumPy has no name for
            return Kind("V2", size)
        if number == 8:  # booleans, in h5py's way
            base = self.kind(data[8:])
            if base.size == 1:
                return Kind("?", 1)
        if number == 9 and bits & 15 == 1:
            return Kind("", size, "elsewhere")
        raise ValueError(f"elements of class {number} and {size} bytes are not read here")

    def values(self, kind: Kind, shape: tuple[int, ...], data: bytes, name: str) -> Any:
        """An array of numbers, or a text or a list of texts, out of the bytes of all of its elements."""
        count = self.room(kind, shape, name)
        if len(data) < count * kind.size:
            raise ValueError(f"{name} ends before its {count} elements do")
        if not kind.text:
            return kind.known(np.frombuffer(data, kind.number(), count)).reshape(shape)
        texts = []
        for k in range(count):
            self.count()
            own = data[k * kind.size : (k + 1) * kind.size]
            texts.append(text_of(own.split(b"\0", 1)[0] if kind.text == "fixed" else self.elsewhere(own)))
        return texts if shape else texts[0]

    def room(self, kind: Kind, shape: tuple[int, ...], name: str) -> int:
        """How many elements these are; ValueError where memory for them is more than the file may ask for."""
        count = math.prod(shape)
        self.memory -= count * kind.size
        if self.memory < 0:
            raise ValueError(f"{name} takes more memory than {MOST_MEMORY} times the file")
        return count

    def elsewhere(self, data: bytes) -> bytes:
        """A text of the global heap, by its length, the address of a collection and its number there."""
        length, address, number = self.parsed("IQI", data)
        if length == 0:
            return b""
        if address not in self.heaps:
            self.heaps[address] = dict(self.collection(address))
        if number not in self.heaps[address]:
            raise ValueError("it is damaged: a text is missing")
        start, size = self.heaps[address][number]
        return self.once(start, min(length, size))

    def collection(self, address: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """The objects of a collection of the global heap: number, where it begins, how many bytes it has."""
        if self.take(address, 4) != b"GCOL":
            raise ValueError("it is damaged: a text is missing")
        end = address + self.numbers("Q", address + 8)[0]
        start = address + 16
        while start + 16 <= end:
            self.count()
            number, size = self.numbers("H6xQ", start)
            if number == 0:
                break
            yield number, (start + 16, size)
            start += 16 + (size + 7) // 8 * 8

    def array(self, found: dict[int, bytes], name: str, said: Any) -> Array:
        """The array of a header's messages; what its attribute `dtype` said is needed for bfloat16."""
        kind, shape = self.kind(found.get(DATATYPE, b"")), self.shape(found.get(DATASPACE, b""))
        if kind.dtype == "V2" and said == torch.BFLOAT16:
            kind = Kind(torch.BFLOAT16, 2)
        if kind.text or kind.dtype == "V2" or shape is None:
            raise ValueError(f"{name} is no array of numbers")
        length = math.prod(shape) * kind.size
        layout = found[LAYOUT]
        version, form = self.parsed("BB", layout)
        if version not in (3, 4):
            raise ValueError(f"{name} lies in the file as in version {version} of a layout, expected 3")
        if form == 0:
            data = layout[4 : 4 + self.parsed("H", layout, 2)[0]]
        elif form == 1:
            address, size = self.parsed("QQ", layout, 2)
            if length and address == UNDEFINED:
                raise ValueError(f"{name} has never been written")
            data = self.once(address, size) if length else b""
        elif form == 2 and version == 3:
            return self.chunked(kind, shape, layout, found.get(FILTERS), name)
        else:
            raise ValueError(
                f"{name} lies in the file in a way that is not read here: write it with h5py's usual libver"
            )
        array: Array = self.values(kind, shape, data, name)
        return array

    def chunked(self, kind: Kind, shape: tuple[int, ...], layout: bytes, filters: bytes | None, name: str) -> Array:
        """An array that lies in pieces of one shape."""
        rank = self.parsed("B", layout, 2)[0] - 1
        address = self.parsed("Q", layout, 3)[0]
        piece = self.parsed(f"{rank}I", layout, 11) if rank >= 0 else ()
        if rank != len(shape) or not all(piece):
            raise ValueError(f"{name} of shape {shape} lies in pieces of shape {piece}")
        self.room(kind, shape, name)
        whole = np.zeros(shape, kind.number())
        steps = self.undone(filters, name)
        length = math.prod(piece) * kind.size
        waiting = [] if address == UNDEFINED else [address]
        if whole.size and not waiting:
            raise ValueError(f"{name} has never been written")
        left = whole.size
        while waiting:
            node = waiting.pop(0)
            self.enter(node, f"a node of {name}")
            signature, _, level, count = self.numbers("4sBBH", node)
            if signature != b"TREE":
                raise ValueError(f"it is damaged: a node of {name} is none")
            key = 8 + 8 * (rank + 1)
            for k in range(count):
                self.count()
                start = node + 24 + k * (key + 8)
                where = self.numbers("Q", start + key)[0]
                if level:
                    waiting.append(where)
                    continue
                size, skipped, *corner = self.numbers(f"II{rank}Q", start)
                self.room(kind, piece, name)
                data = self.once(where, size)
                for number, undo in steps:
                    if not skipped >> number & 1:
                        data = undo(data, length, kind.size)
                if len(data) != length or any(c >= n for c, n in zip(corner, shape, strict=True)):
                    raise ValueError(f"it is damaged: a piece of {name} is none")
                target = whole[tuple(slice(c, c + n) for c, n in zip(corner, piece, strict=True))]
                part = np.frombuffer(data, whole.dtype).reshape(piece)
                target[...] = part[tuple(slice(n) for n in target.shape)]
                left -= target.size
        if left:
            raise ValueError(f"{name} has never been written as a whole")
        return kind.known(whole)

    def undone(self, filters: bytes | None, name: str) -> list[tuple[int, Any]]:
        """How what compresses an array is undone, last first, each with its number."""
        if filters is None:
            return []
        version, count = self.parsed("BB", filters)
        start, steps = 8 if version == 1 else 2, []
        for number in range(count):
            self.count()
            own = self.parsed("H", filters, start)[0]
            start += 2
            length = 0
            if version == 1 or own >= 256:
                length = self.parsed("H", filters, start)[0]
                start += 2
            values = self.parsed("HH", filters, start)[1]
            start += 4 + (length + 7) // 8 * 8 + 4 * values + 4 * (version == 1 and values % 2)
            if own not in UNDO:
                raise ValueError(f"{name} is compressed by filter {own}, which is not undone here")
            steps.append((number, UNDO[own]))
        return steps[::-1]


def _inflated(data: bytes, length: int, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, length + 1)


def _unshuffled(data: bytes, length: int, size: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(size, -1).T.tobytes()


UNDO = {DEFLATE: _inflated, SHUFFLE: _unshuffled}


def text_of(name: bytes) -> str:
    """A text of the file; ValueError where it is none."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{shown(name)} is no text") from None
