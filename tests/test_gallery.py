"""The pictures of `pyrnn hopfield`: what they show, and what is said where an extra or a file is missing."""

import re
import sys

import numpy as np
import pytest

import pyrnn
from pyrnn.app import cli, gallery


def test_way_of_a_recall_is_the_recall():
    rng = np.random.default_rng(0)
    patterns = np.where(rng.random((6, 60)) < 0.5, 1.0, -1.0)
    net = pyrnn.Hopfield(60, threshold=0.5)
    net.store(patterns)
    probe = gallery.corrupted(patterns[0], 0.2, rng)
    assert np.count_nonzero(probe != patterns[0]) == 12
    way = gallery.way(net, patterns[0], probe, np.random.default_rng(1))
    order = np.random.default_rng(1).permutation(60)
    result = net.recall(probe, order=order, record=True)
    np.testing.assert_array_equal(way.states[-1], result.state)
    np.testing.assert_array_equal(way.energies[:: gallery.STOPS], result.energies)
    assert np.all(np.diff(way.energies) <= 0)
    assert way.times[-1] == result.sweeps


def test_rates():
    rates = gallery.recall_rates(60, 1, 0)
    assert set(rates) == {"hebbian", "storkey", "pseudo_inverse"}
    load, rate = rates["hebbian"]
    assert rate[0] == 1
    assert rate[load > 0.5].max() < 0.2
    assert rates["pseudo_inverse"][1].min() == 1
    assert gallery.estimates(64)["n / (2 log2 n)"] == 1 / 12


def test_pictures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(name)
    assert cli.main(["hopfield", "a.png", "b.png", "--size", "8", "--units", "20", "--trials", "1"]) == 0
    assert "2 of 2 recalled exactly" in capsys.readouterr().err
    for name in ("hopfield.png", "hopfield-load.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "missing", "match"),
    [
        ([], "sklearn.datasets", "pip install scikit-learn"),
        (["a.png"], "PIL", "pip install pillow"),
        ([], "matplotlib.figure", "pip install matplotlib"),
        (["a.png", "--out", "a.png"], None, "none of the images"),
        (["--out", "b.png", "--load", "b.png"], None, "must be two files"),
        (["none.png"], None, "No such file"),
        (["a.png"], None, "not an image"),
        (["--noise", "2"], None, "2"),
        (["--out", "b.txt"], None, "a picture's name ends in one of"),
    ],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys, arguments, missing, match):
    if missing != "matplotlib.figure":
        pytest.importorskip("matplotlib")
    if missing is None:
        pytest.importorskip("PIL")
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_text("no image")
    assert cli.main(["hopfield", *arguments]) != 0
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(match, error)
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
