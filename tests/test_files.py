"""Files: what is written is read back, what is damaged is refused in words, and a name never leads to half a file."""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from pyrnn import files

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.scalar": np.float64(0.1),
    "empty": np.zeros((0, 4), np.float32),
    "numbers": np.array([1, -2], np.int64),
}
DESCRIPTION = {"kind": "test", "float": 0.1, "text": "Ж\n\"'\0", "list": [1, None, True]}


def test_round_trip(tmp_path):
    path = tmp_path / "x.safetensors"
    files.save(path, ARRAYS, DESCRIPTION)
    arrays, description = files.load(path, "test")
    assert description == DESCRIPTION
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
        arrays[name][...] = 0  # it is writable, and no view of the file
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_any_layout(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    views = {"turned": array.T, "stepped": array[:, ::2, ::-1]}
    files.save(tmp_path / "x", views, {"kind": "test"})
    for name, read in files.load(tmp_path / "x", "test")[0].items():
        np.testing.assert_array_equal(read, views[name])


def test_the_format_is_safetensors(tmp_path):
    """Read by hand, as the format says: length, header, bytes."""
    files.save(tmp_path / "x", {"a": ARRAYS["a"]}, DESCRIPTION)
    data = (tmp_path / "x").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header["__metadata__"]["pyrnn"]) == DESCRIPTION
    assert header["a"] == {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    np.testing.assert_array_equal(np.frombuffer(data[8 + length :], "<f4").reshape(2, 3), ARRAYS["a"])


def test_equal_content_is_equal_bytes(tmp_path):
    files.save(tmp_path / "x", ARRAYS, DESCRIPTION)
    files.save(tmp_path / "y", ARRAYS, dict(reversed(DESCRIPTION.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_load_refuses(tmp_path):
    import safetensors.numpy

    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors: no such file"):
        files.load(path, "test")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        files.load(tmp_path, "test")
    files.save(path, ARRAYS, DESCRIPTION)
    whole = path.read_bytes()
    for damaged in (b"", b"\0" * 100, whole[:-1], whole[:20], b"\xff" * 8 + whole[8:], whole[:9] + b"!" + whole[10:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.safetensors is no safetensors file, or a damaged one"):
            files.load(path, "test")
    files.save(path, ARRAYS, DESCRIPTION)
    with pytest.raises(ValueError, match=r"x\.safetensors holds no character model of pyrnn"):
        files.load(path, "character model")
    for metadata in (None, {"format": "pt"}, {"pyrnn": "[1]"}):
        path.write_bytes(safetensors.numpy.save({"a": ARRAYS["a"]}, metadata=metadata))
        with pytest.raises(ValueError, match="holds no test of pyrnn"):
            files.load(path, "test")
    path.write_bytes(safetensors.numpy.save({"a": ARRAYS["a"]}, metadata={"pyrnn": "{"}))
    with pytest.raises(ValueError, match="its description is damaged"):
        files.load(path, "test")


def test_random_damage(tmp_path):
    """Bytes of the header changed at random: read or refused, nothing else."""
    path = tmp_path / "x"
    files.save(path, ARRAYS, DESCRIPTION)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = whole.copy()
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            files.load(path, "test")


def test_save_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        files.save(tmp_path / "none" / "x", ARRAYS, DESCRIPTION)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        files.save(tmp_path, ARRAYS, DESCRIPTION)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        files.save(tmp_path / "pipe", ARRAYS, DESCRIPTION)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.save(path, ARRAYS, DESCRIPTION)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.save(path, {"a": np.zeros(1000)}, DESCRIPTION)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_stays_a_link(tmp_path):
    files.save(tmp_path / "x", ARRAYS, DESCRIPTION)
    (tmp_path / "link").symlink_to("x")
    files.save(tmp_path / "link", {"a": np.ones(1)}, DESCRIPTION)
    assert (tmp_path / "link").is_symlink()
    assert files.load(tmp_path / "x", "test")[0].keys() == {"a"}


def test_the_mode_follows_the_umask(tmp_path):
    files.replace(tmp_path / "x", b"")
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_killed_writer_leaves_whole_files(tmp_path):
    path = tmp_path / "x"
    program = (
        "import sys, numpy as np; from pyrnn import files\n"
        "for k in range(10**6): files.save(sys.argv[1], {'a': np.full(200_000, k)}, {'kind': 'test', 'k': k})"
    )
    rng = np.random.default_rng(1)
    for _ in range(3):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=tmp_path)
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(20):  # read while it writes
            arrays, description = files.load(path, "test")
            assert np.all(arrays["a"] == description["k"])
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrays, description = files.load(path, "test")
        assert np.all(arrays["a"] == description["k"])
