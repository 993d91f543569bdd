"""HDF5 files are read within their bytes: the same as h5py where that writes them, errors for the rest."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from mutations import mutated, told

import pyrnn
from pyrnn.formats import hdf5

h5py = pytest.importorskip("h5py")


def written(fill, **options):
    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        fill(file)
    return content.getvalue()


def many(file):
    """More entries than a node has room for, and attributes of all kinds."""
    file.attrs["text"] = "ü"
    file.attrs["bytes"] = np.bytes_(b"x" * 30_000)
    file.attrs["names"] = np.array([b"a", b"bbb"])
    file.attrs["texts"] = np.array(["a", "bü", ""], h5py.string_dtype())
    file.attrs["layers"] = [f"layer_{k}" for k in range(200)]
    file.attrs["number"] = 3
    file.attrs["numbers"] = np.arange(3.0)
    file.attrs["nothing"] = h5py.Empty("f")
    file.attrs["none"] = np.zeros(0, "S1")
    file.attrs["compound"] = np.zeros(2, [("a", "f4")])
    for k in range(40):
        file.create_group(f"deep/er/g{k}")["a"] = np.arange(k, dtype=np.float32)


def kinds(file):
    for dtype in ("f2", "f4", "f8", ">f4", ">f8", "i1", "<i2", ">i4", "i8", "u1", "u2", "u4", ">u8"):
        file[dtype] = np.arange(6).astype(dtype).reshape(2, 3)
    file["flags"] = np.array([True, False])
    file["single"] = np.float32(1.5)
    file["empty"] = np.zeros((0, 3))
    file.create_dataset("compact", data=np.arange(3.0), dcpl=compact())


def compact():
    """How h5py is told to put numbers into the header."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    return plist


def few(file):
    file["b/a"] = np.arange(6.0).reshape(2, 3)
    file["c"] = np.arange(3)
    file.attrs["text"] = "x"


def pieces(file):
    array = np.random.default_rng(0).normal(size=(23, 17)).astype(np.float32)
    for name, options in [
        ("plain", {}),
        ("small", {"compression": "gzip", "shuffle": True}),
        ("sums", {"shuffle": True}),
    ]:
        file.create_dataset(name, data=array, chunks=(10, 7), **options)
    file.create_dataset("many", data=np.arange(3000), chunks=(10,), compression="gzip")


@pytest.mark.parametrize(
    ("fill", "options"),
    [
        (many, {}),
        (kinds, {}),
        (few, {}),
        (few, {"libver": "latest"}),
        (few, {"libver": ("earliest", "v110")}),
        (pieces, {}),
    ],
)
def test_what_h5py_reads(fill, options):
    content = written(fill, **options)
    root = hdf5.read(content)
    with h5py.File(io.BytesIO(content)) as file:
        names = []
        file.visititems(lambda name, thing: names.append(name) if isinstance(thing, h5py.Dataset) else None)
        found = {"/".join(path): array for path, array in root.arrays()}
        assert sorted(found) == sorted(names)
        for name, array in found.items():
            expected = np.asarray(file[name])
            assert (array.dtype, array.shape) == (expected.dtype.newbyteorder("="), expected.shape)
            np.testing.assert_array_equal(array, expected)
        assert root.attributes.keys() == file.attrs.keys()


def test_attributes():
    found = hdf5.read(written(many)).attributes
    assert found.pop("bytes") == "x" * 30_000
    np.testing.assert_array_equal(found.pop("numbers"), np.arange(3.0))
    assert found.pop("layers") == [f"layer_{k}" for k in range(200)]
    assert found == {
        **{"text": "ü", "names": ["a", "bbb"], "texts": ["a", "bü", ""], "number": 3},
        **{"nothing": None, "none": [], "compound": None},
    }


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.5, -2, 0.1], ml_dtypes.bfloat16)

    def fill(file):
        file["a"] = values
        file["a"].attrs["dtype"] = "bfloat16"

    found = hdf5.read(written(fill)).entries["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def links(file):
    file["a"] = np.arange(3)
    file["b"] = h5py.SoftLink("/a")


def twice(file):
    file["a"] = np.arange(3)
    file["b"] = file["a"]


def outside(file):
    file.create_dataset("a", shape=(3,), dtype="f4", external=[("/etc/passwd", 0, 12)])


REFUSED = {
    "many in the newest form": (many, {"libver": "latest"}, "more links or attributes than are read"),
    "pieces in the newest form": (pieces, {"libver": "latest"}, "plain lies in the file in a way that"),
    "a link": (links, {}, "the root group holds a symbolic link"),
    "a link in the newest form": (links, {"libver": "latest"}, "the root group holds a symbolic or external link"),
    "two names": (twice, {}, "b is met twice"),
    "texts": (lambda file: file.create_dataset("a", data=["x", "y"]), {}, "a is no array of numbers"),
    "complex numbers": (lambda file: file.create_dataset("a", data=np.ones(2, complex)), {}, "elements of class 6"),
    "never written": (lambda file: file.create_dataset("a", (3,), "f4"), {}, "a has never been written"),
    "never written in pieces": (lambda file: file.create_dataset("a", (3,), "f4", chunks=(2,)), {}, "a has never been"),
    "another file's bytes": (outside, {}, "a"),
    "another filter": (
        lambda file: file.create_dataset("a", data=np.ones(9), chunks=(3,), fletcher32=True), {}, "by filter 3",
    ),
    "small for its size": (
        lambda file: file.create_dataset("a", data=np.zeros(10**6), chunks=(10**5,), compression="gzip"), {}, "8 times",
    ),
    "larger than all": (lambda file: file.create_dataset("a", (2**40,), "f4", chunks=(2**20,)), {}, "8 times"),
    "user block": (few, {"userblock_size": 512}, "it is no HDF5 file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read(case):
    fill, options, message = REFUSED[case]
    content = written(fill, **options)
    with pytest.raises(ValueError, match=message):
        hdf5.read(content)


def test_circles():
    """A group in itself, a node of a tree in itself: each is met once."""
    content = bytearray(written(few))
    tree = content.index(b"TREE")
    header = struct.unpack_from("<Q", content, 64)[0]
    node = content.index(b"SNOD")
    struct.pack_into("<Q", content, node + 16, header)  # an entry of the root is the root
    with pytest.raises(ValueError, match="is met twice"):
        hdf5.read(bytes(content))
    content = bytearray(written(few))
    struct.pack_into("<Q", content, tree + 32, tree)
    with pytest.raises(ValueError, match="is met twice"):
        hdf5.read(bytes(content))


SUPERBLOCK = b"\x89HDF\r\n\x1a\n" + struct.pack("<8BHHIQQQQQQII16x", *[0] * 5, 8, 8, 0, 4, 16, 0, 0, 2**64 - 1, 0,
                                                  2**64 - 1, 0, 96, 0, 0)  # fmt: skip


def header(*messages):
    """An old header, of (kind, content)."""
    block = b"".join(struct.pack("<HHB3x", kind, len(data), 0) + data for kind, data in messages)
    return struct.pack("<BBHIII", 1, 0, len(messages), 1, len(block), 0) + block


def overlapping_blocks(count=300, size=40_000):
    """Continuations that begin 8 bytes one behind the other."""
    base = 96 + 16 + 24 * count
    found = header(*((0x10, struct.pack("<QQ", base + 8 * k, 8 + size)) for k in range(count)))
    return SUPERBLOCK + found + struct.pack("<HHB3x", 0, size, 0) * (count + size // 8 + 2)


def overlapping_names(count=1000):
    """Entries of a group that all have one long name."""
    heap = 96 + 16 + 24 + 8 + 40 * count
    node = b"SNOD" + struct.pack("<BBH", 1, 0, count) + struct.pack("<QQIIQQ", 0, 5, 0, 0, 0, 0) * count
    names = b"b" * 40_000 + b"\0"
    found = header((0x11, struct.pack("<QQ", 96 + 16 + 24, heap)))
    return SUPERBLOCK + found + node + b"HEAP\0\0\0\0" + struct.pack("<QQQ", len(names), 0, heap + 32) + names


def dataset(*messages):
    """A file with one array, "a", whose header says this."""
    root = header((6, b"\1\0\1a" + struct.pack("<Q", 96 + 16 + 8 + 12)))
    return SUPERBLOCK + root + header(*messages)


def of_bytes(shape, layout, *more):
    """An array of bytes."""
    space = struct.pack(f"<BBBB{len(shape)}Q", 2, len(shape), 0, 1, *shape)
    return dataset((1, space), (3, struct.pack("<BBBBI4x", 0x10, 0, 0, 0, 1)), (8, layout), *more)


def in_pieces(shape, piece, *pieces, filters=None):
    """The same, of pieces: (corner, content, the filters left out), each with room for it behind the tree."""
    rank = len(shape)
    layout = struct.pack(f"<BBBQ{rank + 1}I", 3, 2, rank + 1, 0, *piece, 1)
    more = () if filters is None else ((0x0B, filters),)
    tree = len(of_bytes(shape, layout, *more))
    where = tree + 24 + len(pieces) * (8 + 8 * (rank + 1) + 8)
    node = struct.pack("<4sBBHQQ", b"TREE", 1, 0, len(pieces), 2**64 - 1, 2**64 - 1)
    for corner, content, skipped in pieces:
        node += struct.pack(f"<II{rank}QQQ", len(content), skipped, *corner, 0, where)
        where += len(content)
    layout = struct.pack(f"<BBBQ{rank + 1}I", 3, 2, rank + 1, tree, *piece, 1)
    return of_bytes(shape, layout, *more) + node + b"".join(content for _, content, _ in pieces)


def contiguous(address, size):
    return struct.pack("<BBQQ", 3, 1, address, size)


def nested(depth):
    def fill(file):
        for _ in range(depth):
            file = file.create_group("g")

    return written(fill)


def test_by_hand():
    """What the damaged files below are made of is read where it is whole."""
    compact = struct.pack("<BBH", 3, 0, 3) + b"\1\2\3"
    deflate = struct.pack("<BB6xHHHHIxxxx", 1, 1, 1, 0, 1, 1, 6)
    for content in (
        of_bytes([3], compact),
        of_bytes([3], contiguous(96 + 24 + 12, 3)),
        in_pieces([3], [2], ([0], b"\1\2", 0), ([2], b"\3\0", 0)),
        in_pieces([3], [2], ([0], zlib.compress(b"\1\2"), 0), ([2], b"\3\0", 1), filters=deflate),
    ):
        array = hdf5.read(content).entries["a"]
        assert array.shape == (3,)
    np.testing.assert_array_equal(array, [1, 2, 3])
    assert list(hdf5.read(nested(64)).entries) == ["g"]


DAMAGED = {
    "a contiguous array beyond the end": (of_bytes([3], contiguous(10**6, 3)), "it reaches beyond its end"),
    "a contiguous array that is short": (of_bytes([3], contiguous(96, 2)), "a ends before its 3 elements do"),
    "a compact array that is short": (
        of_bytes([3], struct.pack("<BBH", 3, 0, 3) + b"\1"), "a ends before its 3 elements do",
    ),
    "a message longer than its block": (
        SUPERBLOCK + struct.pack("<BBHIII", 1, 0, 1, 1, 16, 0) + struct.pack("<HHB3x", 6, 100, 0) + bytes(200),
        "a message is longer than its block",
    ),
    "a message that is short": (
        dataset((1, b"\2\1\0\1"), (3, b"\x10\0\0\0\1\0\0\0"), (8, bytes(2))), "a message is too short",
    ),
    "a piece that is short": (in_pieces([3], [3], ([0], b"\1\2", 0)), "a piece of a is none"),
    "a piece that is long": (in_pieces([3], [3], ([0], b"\1\2\3\4", 0)), "a piece of a is none"),
    "a piece outside": (in_pieces([3], [3], ([3], b"\1\2\3", 0)), "a piece of a is none"),
    "a piece that is missing": (in_pieces([3], [2], ([0], b"\1\2", 0)), "a has never been written as a whole"),
    "groups in groups": (nested(65), "lies in more than 64 groups"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged(case):
    content, message = DAMAGED[case]
    with pytest.raises(ValueError, match=message):
        hdf5.read(content)


def test_texts_are_not_sought_again_and_again():
    """A text of a heap that is longer there than its element says ends with it, one that is shorter does too."""
    content = bytearray(written(lambda file: file.attrs.create("texts", ["abc", "de"], dtype=h5py.string_dtype())))
    heap = content.index(b"GCOL")
    first = content.index(struct.pack("<IQI", 3, heap, 2))
    struct.pack_into("<I", content, first, 2)
    struct.pack_into("<I", content, first + 16, 2**30)
    assert hdf5.read(bytes(content)).attributes["texts"] == ["ab", "de"]
    struct.pack_into("<I", content, first + 12, 77)
    with pytest.raises(ValueError, match="a text is missing"):
        hdf5.read(bytes(content))


@pytest.mark.parametrize("content", [overlapping_blocks(), overlapping_names()], ids=["blocks", "names"])
def test_parts_that_overlap(content):
    """Are not kept each as a whole."""
    tracemalloc.start()
    with pytest.raises(ValueError, match="its parts overlap"):
        hdf5.read(content)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * len(content)


@pytest.mark.parametrize(
    ("fill", "libver"), [(many, None), (kinds, None), (few, None), (pieces, None), (few, "latest"), (pieces, "v108")]
)
def test_damaged_files(fill, libver, tmp_path):
    """Bytes changed, cut and added: what is read, or an error."""
    messages = {
        told(tmp_path / "damaged", content, pyrnn.read_weights)
        for content in mutated(written(fill, libver=libver and (libver, "latest")), 150)
    }
    assert "" in messages
    assert len(messages) > 2
