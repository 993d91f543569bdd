"""pyrnn.read_weights: what other systems' files hold, and files that are damaged or mean harm."""

import importlib.util
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mutations import mutated, told

import pyrnn

GOLDEN = Path(__file__).parent / "golden"

# tests/golden/torch.pt and torch_legacy.pt: torch.save of this by torch 2.13.
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)
SAVED = {
    "rnn.weight_ih_l0": BASE,
    "rnn.turned": BASE.T,
    "part": BASE[1:, 1::2],  # three views of one storage
    "scale": np.array([1.5, -2], np.float32),  # bfloat16
    "steps": np.array(7),
    "flags.0": np.array([True, False]),
}


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Of every form, by what reads it."""
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", a=BASE)
    np.save("a.npy", BASE)
    Path("a.pkl").write_bytes(pickle.dumps(BASE))
    Path("a.json").write_text("{}")
    Path("a.onnx").write_bytes(b"")
    pyrnn.save("own.safetensors", pyrnn.GRU(2, 3))
    read_weights = [GOLDEN / "torch.pt", GOLDEN / "torch_legacy.pt", "a.npz", "a.npy", "a.pkl"]
    keras = [GOLDEN / "keras3_chain.keras", GOLDEN / "keras3_chain.weights.h5"]
    return {"read_weights": read_weights, "from_keras": keras, "from_onnx": ["a.onnx"], "from_json": ["a.json"],
            "load": ["own.safetensors"]}  # fmt: skip


def test_what_reads_a_file_is_told(files):
    calls = [pyrnn.load, pyrnn.from_keras, pyrnn.from_json]
    if importlib.util.find_spec("onnx"):
        calls.append(pyrnn.from_onnx)
    for reader, paths in files.items():
        for path in paths:
            for call in calls:
                if call.__name__ != reader:
                    with pytest.raises(ValueError, match=rf"\. It is .*: pyrnn\.{reader}\(path\) reads such$"):
                        call(path)
    Path("text").write_text("to be")
    for call in calls:
        with pytest.raises(ValueError, match="text") as caught:
            call("text")
        assert "reads such" not in str(caught.value)
    with pytest.raises(TypeError, match=r"source is 'a\.npz', .*, such as pyrnn\.read_weights\(path\) reads$"):
        pyrnn.from_torch("a.npz")


@pytest.mark.parametrize("form", ["torch.pt", "torch_legacy.pt"])
def test_torch(form):
    same(pyrnn.read_weights(GOLDEN / form), SAVED)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves(legacy, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {
        **{str(dtype): torch.ones(3, dtype=dtype) for dtype in (torch.float64, torch.float16, torch.int8, torch.uint8)},
        "empty": torch.zeros(0, 3),
        "expanded": torch.arange(3).expand(4, 3),
        "complex": torch.tensor([1 + 2j]),
        **{f"model.{name}": value for name, value in torch.nn.LSTM(3, 4, 2, proj_size=2).state_dict().items()},
    }
    path = tmp_path / "x.pth"
    others = {"epoch": 3, "name": "n", "rate": 0.1, "none": None, "size": torch.Size([1, 2]), "dtype": torch.float32}
    torch.save({**tensors, **others}, path, _use_new_zipfile_serialization=not legacy)
    same(pyrnn.read_weights(path), {name: tensor.contiguous().numpy() for name, tensor in tensors.items()})
    layer = torch.nn.GRU(2, 3)
    torch.save(layer, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"x\.pth: .*torch\.nn\.modules\.rnn\.GRU, which is not run.*whole module"):
        pyrnn.read_weights(path)


def test_numpy(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(BASE), "c": np.array(3), "d": np.zeros((0, 2))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        same(pyrnn.read_weights(tmp_path / "x.npz"), arrays)
    np.save(tmp_path / "x.npy", BASE)
    same(pyrnn.read_weights(tmp_path / "x.npy"), {"": BASE})
    np.savez(tmp_path / "x.npz", a=np.array([None, 1], dtype=object))
    with pytest.raises(ValueError, match=r"x\.npz: it holds objects"):
        pyrnn.read_weights(tmp_path / "x.npz")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickled_arrays(protocol, tmp_path):
    arrays = {
        "lstm.weight": BASE,
        "lstm.turned": np.asfortranarray(BASE),
        "heads.0": np.arange(3, dtype=">i2"),
        "heads.1": np.array(2.5),
        "empty": np.zeros((0, 3)),
    }
    nested = {
        "lstm": {"weight": BASE, "turned": arrays["lstm.turned"]},
        "heads": [arrays["heads.0"], arrays["heads.1"]],
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({**nested, "empty": arrays["empty"], "rate": np.float64(0.1), "n": 7}, protocol))
    same(
        pyrnn.read_weights(path),
        {n: np.ascontiguousarray(a).reshape(a.shape).astype(a.dtype.newbyteorder("=")) for n, a in arrays.items()},
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": np.array(["x"])}, "expected numbers"),
        ({"a": np.array([{}], object)}, "expected numbers"),
        ({"a": print}, r"builtins\.print, which is not run.*numpy\.savez"),
        ({"a": 1}, "holds no arrays"),
        ([np.ones(3, [("x", "f4")])], "expected numbers"),
    ],
)
def test_pickles_of_other_things(value, message, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, 4))
    with pytest.raises(ValueError, match=rf"x\.pkl: .*{message}"):
        pyrnn.read_weights(path)


def test_pickled_arrays_have_the_numbers_that_they_say(tmp_path):
    path = tmp_path / "x.pkl"
    whole = pickle.dumps({"a": np.ones(3)}, 3)
    path.write_bytes(whole.replace(b"K\x03\x85", b"K\x05\x85"))
    with pytest.raises(ValueError, match=r"x\.pkl: an array of shape \(5,\) and dtype float64 has 24 bytes"):
        pyrnn.read_weights(path)


def test_safetensors(tmp_path):
    layer = pyrnn.LSTM(2, 3, rng=0)
    pyrnn.save(tmp_path / "x", layer)
    same(pyrnn.read_weights(tmp_path / "x"), dict(sorted(layer.state_dict().items())))
    header = json.dumps({"scale": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    halves = np.array([0x3FC0, 0xC000], "<u2")  # 1.5 and -2
    (tmp_path / "y").write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    same(pyrnn.read_weights(tmp_path / "y"), {"scale": SAVED["scale"]})


def test_what_is_no_file_of_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="x: no such file"):
        pyrnn.read_weights(tmp_path / "x")
    with pytest.raises(IsADirectoryError, match="is a directory, expected a file of weights"):
        pyrnn.read_weights(tmp_path)
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", pickle.dumps({"a": 1})):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="x: "):
            pyrnn.read_weights(tmp_path / "x")
    with pytest.raises(TypeError, match=r"^read_weights: path is 3\.5, expected a file name"):
        pyrnn.read_weights(3.5)


def torch_zip(path, pickled, **others):
    """A file as torch.save makes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in others.items():
            archive.writestr(f"archive/{name}", content)


class Call:
    """Is pickled as a call of any function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("function", [exec, print, eval, getattr, __import__, io.open, pickle.loads])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_is_run(function, protocol, tmp_path):
    path, written = tmp_path / "x.pt", tmp_path / "written"
    torch_zip(path, pickle.dumps({"a": Call(function, f"open({str(written)!r}, 'w')")}, protocol))
    with pytest.raises(ValueError, match=r"x\.pt: its pickle asks for \w+\.\w+, which is not run"):
        pyrnn.read_weights(path)
    assert not written.exists()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "150"),  # BYTEARRAY8 of a terabyte
        (b"\x80\x02]r\xff\xff\xff\xff.", ""),  # memo number 2**32 - 1: no memory for those before
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", ""),  # an integer of 2 GB
        (b"\x80\x02ctorch\nFloatStorage\n}X\x01\x00\x00\x00aK\x01sb.", ""),  # attributes of a name
        (b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb.", ""),  # of an OrderedDict: harmless
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "something in it holds itself"),  # a dict in itself
        (b"\x80\x02}q\x00X\x10'\x00\x00" + b"a" * 10_000 + b"h\x00s.", "something in it holds itself"),
        (b"\x80\x02]q\x00(" + b"h\x00" * 30 + b"e.", "more entries than bytes|holds itself"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x00K\x00tR.", ""),
    ],
)
def test_pickles_that_mean_harm(pickled, message, tmp_path):
    path = tmp_path / "x.pt"
    torch_zip(path, pickled)
    if message or pickled.count(b"_rebuild") or b"\x8b" in pickled:
        with pytest.raises(ValueError, match=rf"x\.pt: .*{message}"):
            pyrnn.read_weights(path)
    else:
        assert pyrnn.read_weights(path) == {}


DEEP = b")" + b"\x85" * 200_000  # a tuple in a tuple in ...
DOUBLED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # (t, t) of t, 60 times


@pytest.mark.parametrize("value", [DEEP, DOUBLED], ids=["deep", "doubled"])
@pytest.mark.parametrize(
    "around",
    [
        b"}%sNs.", b"}(%sNu.", b"\x8f(%s\x90.", b"ccollections\nOrderedDict\n]%sN\x86a\x85R.", b"%sX\x01\0\0\0a\x93.",
        b"(X\x07\0\0\0storagectorch\nFloatStorage\n%sNNtQ.",
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NNtQK\0%s\x85)tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NNtQK\0%s\x85Nt"
        b"\x85R.",
        b"cnumpy\ndtype\n%s\x85R.",
    ],
)  # fmt: skip
def test_tuples_without_an_end(value, around, tmp_path):
    """Hashing and writing them take a stack as deep, or twice the time for each: neither is done."""
    pickled = b"\x80\x04" + around.replace(b"%s", value)
    torch_zip(tmp_path / "x.pt", pickled)
    (tmp_path / "x.pkl").write_bytes(pickled)
    for name in ("x.pt", "x.pkl"):
        with pytest.raises(ValueError, match=name):
            pyrnn.read_weights(tmp_path / name)


def test_keys(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({("a", 1): BASE, 2: [BASE], None: {"b": BASE}}, 4))
    assert list(pyrnn.read_weights(tmp_path / "x.pkl")) == ["('a', 1)", "2.0", "None.b"]


def tensor_of(size, stride, offset=0):
    """The pickle of {"a": a view of the storage "0", of four float32}."""

    def numbers(values):
        return b"".join(b"J" + struct.pack("<i", value) for value in values)

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    view = numbers([offset]) + b"(" + numbers(size) + b"t(" + numbers(stride) + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\0\0\0a" + call + b"s."


def test_views_stay_inside_their_storage(tmp_path):
    path, numbers = tmp_path / "x.pt", np.arange(4, dtype="<f4")
    for size, stride, offset, expected in [
        ((2, 2), (2, 1), 0, numbers.reshape(2, 2)),
        ((2, 2), (1, 2), 0, numbers.reshape(2, 2).T),
        ((3,), (1,), 1, numbers[1:]),
        ((2, 3), (0, 1), 0, np.stack([numbers[:3]] * 2)),
        ((0, 3), (3, 1), 9, np.zeros((0, 3), np.float32)),
        ((), (), 3, numbers[3]),
    ]:
        torch_zip(path, tensor_of(size, stride, offset), **{"data/0": numbers.tobytes()})
        same(pyrnn.read_weights(path), {"a": np.asarray(expected)})
    for size, stride, offset, message in [
        ((5,), (1,), 0, "a reaches beyond its 4 numbers"),
        ((4,), (1,), 1, "a reaches beyond its 4 numbers"),
        ((2,), (4,), 0, "a reaches beyond its 4 numbers"),
        ((2, 2), (3, 1), 0, "a reaches beyond its 4 numbers"),
        ((), (), 4, "a reaches beyond its 4 numbers"),
        ((4,), (-1,), 3, "cannot be"),
        ((4,), (1,), -1, "cannot be"),
        ((-4,), (1,), 0, "cannot be"),
        ((4,), (1, 1), 0, "not described as torch does it"),
        ((10**9,), (0,), 0, "a takes more memory than 8 times the file"),
        ((2**31 - 1,) * 9, (0,) * 9, 0, "a takes more memory than 8 times the file"),
    ]:
        torch_zip(path, tensor_of(size, stride, offset), **{"data/0": numbers.tobytes()})
        with pytest.raises(ValueError, match=rf"x\.pt: .*{message}"):
            pyrnn.read_weights(path)
    torch_zip(path, tensor_of((1,), (1,)))
    with pytest.raises(ValueError, match="the numbers of a are missing"):
        pyrnn.read_weights(path)


def test_more_memory_than_the_file_has(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1).expand(10**9)}, path)
    with pytest.raises(ValueError, match="a takes more memory than 8 times the file"):
        pyrnn.read_weights(path)
    with zipfile.ZipFile(tmp_path / "y.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**8))
    with pytest.raises(ValueError, match=r"y\.npz: "):
        pyrnn.read_weights(tmp_path / "y.npz")


def test_lengths_that_a_file_only_claims(tmp_path):
    """Take no memory: of a text in a pickle, of numbers behind one."""
    whole = (GOLDEN / "torch_legacy.pt").read_bytes()
    numbers = whole.rindex(b".") + 1  # behind the last pickle
    for content in (
        b"\x80\2B" + struct.pack("<I", 2**32 - 1) + b"x",
        b"\x80\4\x8d" + struct.pack("<Q", 2**40) + b"x",
        whole[:numbers] + struct.pack("<q", 2**34) + whole[numbers + 8 :],
    ):
        (tmp_path / "x.pt").write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"x\.pt: (EOFError|it ends before its numbers do|pickle data was trunc)"):
            pyrnn.read_weights(tmp_path / "x.pt")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 10**7


def forms(tmp_path):
    """A file of each form."""
    for name in ("torch.pt", "torch_legacy.pt"):
        yield name, (GOLDEN / name).read_bytes()
    np.savez(tmp_path / "x.npz", a=BASE, b=BASE.T)
    np.save(tmp_path / "x.npy", BASE)
    pyrnn.save(tmp_path / "x.safetensors", pyrnn.GRU(2, 3, rng=0))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": BASE, "b": [BASE[0]]}, 4))
    for path in sorted(tmp_path.iterdir()):
        yield path.name, path.read_bytes()


def test_damaged_files(tmp_path):
    """Bytes changed, cut and added: arrays, or an error that names the file."""
    for name, whole in list(forms(tmp_path)):
        messages = {told(tmp_path / "damaged", content, pyrnn.read_weights) for content in mutated(whole, 300)}
        assert messages - {""}, name
