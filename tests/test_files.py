"""Files: what is written is read back, what is damaged is refused in words, and a name never leads to half a file."""

import contextlib
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pyrnn.core import files

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
    description = json.loads(header["__metadata__"]["pyrnn"])
    assert set(description.pop("crc32")) == {"", "a"}
    assert description == DESCRIPTION
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
        with pytest.raises(ValueError, match="is a safetensors file, but not one of pyrnn's"):
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


def test_random_damage_is_never_taken_for_what_was_written(tmp_path):
    """Anything changed anywhere, the file cut or lengthened: what is read is equal, or refused with the file's name."""
    path = tmp_path / "x"
    files.save(path, ARRAYS, DESCRIPTION)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for k in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] ^= 1 << rng.integers(8)
        if k % 4 == 0:
            damaged = damaged[: rng.integers(len(whole))] if k % 8 else damaged + b"\0" * 8
        path.write_bytes(damaged)
        try:
            arrays, description = files.load(path, "test")
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
            continue
        if description.keys() != DESCRIPTION.keys():  # the damage is in the checksums' own name
            continue
        assert description == DESCRIPTION
        assert arrays.keys() == ARRAYS.keys()
        assert all(arrays[name].tobytes() == np.asarray(array).tobytes() for name, array in ARRAYS.items())
    assert refused > 350


def test_what_is_damaged_is_named(tmp_path):
    path = tmp_path / "x"
    files.save(path, {"left": np.zeros(2), "right": np.ones(2)}, DESCRIPTION)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(ValueError, match="x is damaged: array right is not what was written"):
        files.load(path, "test")
    path.write_bytes(whole.replace(b"0.1", b"0.2"))
    with pytest.raises(ValueError, match="x is damaged: its description is not what was written"):
        files.load(path, "test")


def test_files_without_checksums_are_read(tmp_path):
    """Those of earlier versions."""
    import safetensors.numpy

    content = safetensors.numpy.save({"a": ARRAYS["a"]}, metadata={"pyrnn": json.dumps(DESCRIPTION)})
    (tmp_path / "x").write_bytes(content)
    arrays, description = files.load(tmp_path / "x", "test")
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
    assert description == DESCRIPTION


@pytest.mark.parametrize("text", ["[" * 100_000, '{"kind":' * 100_000, "1" * 100_000])
def test_absurd_descriptions(tmp_path, text):
    import safetensors.numpy

    (tmp_path / "x").write_bytes(safetensors.numpy.save({"a": ARRAYS["a"]}, metadata={"pyrnn": text}))
    with pytest.raises(ValueError, match=r"x: its description is damaged|x holds no test"):
        files.load(tmp_path / "x", "test")


def test_load_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is no regular file"):
        files.load(tmp_path / "pipe", "test")


def test_halves_of_surrogate_pairs(tmp_path):
    """In a description, and in the name of a file, where they stand for bytes that are not UTF-8."""
    path = os.path.join(tmp_path, os.fsdecode(b"m\xff\xe9"))
    description = {"kind": "test", "name": path, "half": "\ud800", "whole": "\U0001f600"}
    files.save(path, ARRAYS, description)
    arrays, read = files.load(path, "test")
    assert read == description
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
    assert os.listdir(os.fsencode(tmp_path)) == [b"m\xff\xe9"]
    with pytest.raises(ValueError, match="holds no model"):
        files.load(path, "model")


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


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777, 0o200])
def test_the_mode_is_kept(tmp_path, mode):
    path = tmp_path / "x"
    path.touch()
    path.chmod(mode)
    files.replace(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    (tmp_path / "link").symlink_to(path)
    files.save(tmp_path / "link", ARRAYS, DESCRIPTION)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_can_read_the_temporary_file_of_a_private_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "x", []
    path.touch()
    path.chmod(0o600)
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(p.stat().st_mode & 0o777 for p in tmp_path.glob(".x.*")))
    files.replace(path, b"secret")
    assert seen
    assert set(seen) == {0o600}


def test_attributes_are_kept(tmp_path):
    path = tmp_path / "x"
    path.touch()
    try:
        os.setxattr(path, "user.origin", b"here")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    files.replace(path, b"new")
    assert os.getxattr(path, "user.origin") == b"here"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path):
    path = tmp_path / "x"
    path.touch()
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    files.replace(path, b"new")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 2345, 0o640)


def test_an_owner_that_cannot_be_kept_gives_its_group_no_rights(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.touch()
    path.chmod(0o664)

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    files.replace(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is write-protected")
def test_a_write_protected_file_is_not_replaced(tmp_path):
    path = tmp_path / "x"
    path.touch()
    path.chmod(0o444)
    for write in (lambda: files.check_writable(path), lambda: files.replace(path, b"new")):
        with pytest.raises(PermissionError, match="x is write-protected"):
            write()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["x" * 255, "x" * 240, "漢" * 85, "x" * 256, "漢" * 86])
def test_long_names_are_written_or_refused_before(tmp_path, name):
    path = tmp_path / name
    if len(os.fsencode(name)) > os.pathconf(tmp_path, "PC_NAME_MAX"):
        for write in (lambda: files.check_writable(path), lambda: files.replace(path, b"new")):
            with pytest.raises(OSError, match="File name too long") as caught:
                write()
            assert caught.value.filename == str(path)
    else:
        files.check_writable(path)
        files.replace(path, b"new")
        assert path.read_bytes() == b"new"
        assert os.listdir(tmp_path) == [name]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """Whoever has its process number now; what is still being written, by whatever process, stays."""
    program = (
        "import os, sys, time; from pyrnn.core import files\n"
        "os.fsync = lambda _: (print('writing', flush=True), time.sleep(60))\n"
        "files.replace(sys.argv[1], b'half')"
    )
    path = tmp_path / "x"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)], cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "writing\n"
    assert len(os.listdir(tmp_path)) == 2
    writers[0].kill()
    writers[0].communicate()
    others = [f".x.{os.getpid()}.tmp.txt", ".x.tmp", "x.1.tmp", ".y.1.tmp"]  # not ours
    for name in (f".x.{os.getpid()}.tmp", *others):
        (tmp_path / name).touch()
    files.check_writable(path)
    assert len(os.listdir(tmp_path)) == 1 + len(others)
    files.replace(path, b"whole")
    assert len(os.listdir(tmp_path)) == 2 + len(others)
    writers[1].kill()
    writers[1].communicate()
    files.replace(path, b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "x"])
    assert path.read_bytes() == b"whole"


def test_writers_of_one_name_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "x"
    contents = [bytes([k]) * 10_000 for k in range(4)]

    def write(content):
        for _ in range(20):
            files.replace(path, content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    """Told by a limit to the size of files."""
    program = (
        "import resource, signal, sys; from pyrnn.core import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.replace(sys.argv[1], bytes(100_000))\n"
        "except OSError as error: print(error)"
    )
    path = tmp_path / "x"
    path.write_bytes(b"old")
    said = subprocess.check_output([sys.executable, "-c", program, str(path)], cwd=tmp_path, encoding="utf-8")
    assert said == f"[Errno 27] File too large: '{path}'\n"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_the_mode_follows_the_umask(tmp_path):
    files.replace(tmp_path / "x", b"")
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_killed_writer_leaves_whole_files(tmp_path):
    path = tmp_path / "x"
    program = (
        "import sys, numpy as np; from pyrnn.core import files\n"
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


def test_one_at_a_time(tmp_path):
    """However they take turns; the others are told at once, and nothing stays behind."""
    inside, most, told = [], [], []

    def work(_):
        for _ in range(100):
            try:
                with files.exclusive(tmp_path / "x"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except BlockingIOError as error:
                told.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert set(most) == {1}
    assert set(told) <= {f"{tmp_path / 'x'} is being written already"}
    assert os.listdir(tmp_path) == []
    (tmp_path / ".x.lock").touch()  # a killed process left it
    with files.exclusive(tmp_path / "x"), pytest.raises(BlockingIOError), files.exclusive(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="where"), files.exclusive(tmp_path / "no" / "where"):
        pass


def test_a_file_in_the_place_of_the_lock_stays(tmp_path):
    lock = tmp_path / ".x.lock"
    for make in (lambda: lock.write_text("mine"), lambda: os.mkfifo(lock)):
        make()
        with pytest.raises(FileExistsError, match=r"\.x\.lock is in the way"), files.exclusive(tmp_path / "x"):
            pass
        assert lock.exists()
        lock.unlink()


def test_one_at_a_time_where_there_are_no_locks(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("no locks")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with files.exclusive(tmp_path / "x"), files.exclusive(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []
