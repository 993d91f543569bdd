"""`pyrnn data` and `pyrnn.data.fetch`: data sets from a server of our own, compared with their checksums."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest

from pyrnn import data
from pyrnn.app import cli
from pyrnn.data import fetched

FILES = {"b.txt": b"to be", "c.txt": "zwölf\n".encode()}


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def kept_in(tmp_path, monkeypatch):
    """An empty folder for data sets."""
    monkeypatch.setenv("PYRNN_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The requests to a server that has the files of the set "texts"."""
    pytest.importorskip("pooch")
    (tmp_path / "served").mkdir()
    for name, content in FILES.items():
        (tmp_path / "served" / name).write_bytes(content)
    handler = type("Handler", (Quiet,), {"asked": []})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=tmp_path / "served")
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        sums = {f"texts/{name}": hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
        remote = f"http://127.0.0.1:{server.server_port}/{{}}"
        texts = fetched.DataSet("texts", "two texts", "MIT", 11, "https://example.org", remote, sums)
        monkeypatch.setitem(fetched.SETS, "texts", texts)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield handler.asked
        server.shutdown()
        thread.join()


def test_a_set_is_fetched_once(kept_in, asked):
    assert fetched.kept("texts") is None
    assert data.fetch("texts") == kept_in / "texts" == fetched.kept("texts")
    assert {path.name: path.read_bytes() for path in (kept_in / "texts").iterdir()} == FILES
    assert asked == ["/b.txt", "/c.txt"]
    (kept_in / "texts" / "b.txt").unlink()
    assert fetched.kept("texts") is None
    data.fetch("texts")
    data.fetch("texts")
    assert asked == ["/b.txt", "/c.txt", "/b.txt"]


def test_another_file_is_refused(kept_in, asked, tmp_path):
    (tmp_path / "served" / "c.txt").write_bytes(b"thirteen")
    with pytest.raises(ValueError, match=r"fetch: http://127.*/c\.txt is not the file that is known: .*hash"):
        data.fetch("texts")
    assert [path.name for path in (kept_in / "texts").iterdir()] == ["b.txt"]
    (kept_in / "texts" / "b.txt").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"texts.b\.txt is not the file of that name of 'texts': move it away"):
        data.fetch("texts")
    assert (kept_in / "texts" / "b.txt").read_bytes() == b"mine"


def test_what_cannot_be_had_is_one_line(kept_in, asked, tmp_path, capsys, monkeypatch):
    (tmp_path / "served" / "b.txt").unlink()
    with pytest.raises(OSError, match=r"fetch: http://127.*/b\.txt cannot be had: 404"):
        data.fetch("texts")
    nobody = fetched.SETS["texts"]._replace(remote="http://127.0.0.1:1/{}")
    monkeypatch.setitem(fetched.SETS, "shakespeare", nobody)
    capsys.readouterr()
    assert cli.main(["data", "shakespeare"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: fetch: http://127.0.0.1:1/b.txt cannot be had: ")
    assert "refused" in err
    assert "Max retries" not in err
    assert err.endswith(f". From elsewhere it goes to {kept_in / 'texts' / 'b.txt'}\n")
    assert err.count("\n") == 1
    assert not list(kept_in.glob("texts/*"))


def test_pooch_is_asked_for(kept_in, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert cli.main(["data", "names"]) == 1
    assert capsys.readouterr().err == "Error: fetch needs pooch, the extra [data]: pip install pooch\n"


def test_unknown_names_and_what_is_made_by_hand(kept_in):
    with pytest.raises(ValueError, match="fetch: name is 'hamlet', expected one of digits, dna, "):
        data.fetch("hamlet")
    with pytest.raises(
        ValueError, match=r"'digits' is made by hand, of what https://\S+ has; its place is .*digits\.npz"
    ):
        data.fetch("digits")
    (kept_in / "speech").mkdir(parents=True)
    (kept_in / "speech" / "spoken-digits.npz").write_bytes(b"")
    assert data.fetch("digits") == kept_in / "speech" / "spoken-digits.npz"


def test_the_list(kept_in, capsys):
    kept_in.mkdir()
    (kept_in / "eng-fra.tsv").write_text("Go.\tVa !\n")
    assert cli.main(["data"]) == 0
    out = capsys.readouterr().out
    assert str(kept_in) in out
    lines = [line for line in out.splitlines()[1:] if line and line[0] != " "]
    assert [line.split()[0] for line in lines] == [*fetched.SETS]
    said = {line.split()[0]: line for line in lines}
    assert said["phrases"].endswith(" here")
    assert said["names"].split() == ["names", "0.2", "MB", "MIT", "pyrnn", "data", "names"]
    assert said["digits"].endswith("by hand: speech/spoken-digits.npz")
    assert all(one.source in out for one in fetched.SETS.values())


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PYRNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetched.folder() == tmp_path / "pyrnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetched.folder() == tmp_path / ".cache" / "pyrnn"


def test_an_example_finds_its_data(kept_in):
    (kept_in / "eng-fra.tsv").parent.mkdir()
    (kept_in / "eng-fra.tsv").write_text("no tab\n")
    command = [sys.executable, "-m", "pyrnn.examples.translation"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=kept_in)  # not among the sources
    assert run.returncode == 1
    assert f"{kept_in / 'eng-fra.tsv'}, line 1" in run.stderr  # it was read


def test_addresses_are_of_one_commit():
    for name, one in fetched.SETS.items():
        if one.remote:
            assert one.remote.startswith("https://raw.githubusercontent.com/"), name
            assert len(one.remote.split("/")[5]) == 40, name
            assert all(len(sha256) == 64 for sha256 in one.files.values()), name
            assert 0 < one.size < 5e6
        else:
            assert not one.size
            assert not any(one.files.values())


@pytest.mark.skipif("PYRNN_DATA" not in os.environ, reason="PYRNN_DATA names no folder with the data")
@pytest.mark.parametrize("name", fetched.SETS)
def test_the_data_at_hand_are_those(name):
    assert data.fetch(name).exists()
    one = fetched.SETS[name]
    assert sum((fetched.folder() / file).stat().st_size for file in one.files) == one.size or not one.remote
