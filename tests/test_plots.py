"""The pictures: what their parts are and where they lie."""

import numpy as np
import pytest

import pyrnn
from pyrnn import plots

pytest.importorskip("matplotlib")


def drawn(monkeypatch, path, valid):
    """The axes of a loss curve."""
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    train = [(1000 * k, 2 + 4 / k) for k in range(1, 200)]
    plots.loss_curve(path, train, valid, "LSTM", {"all equally likely": 6.0, "5-gram": 2.5})
    return figures[0].axes[0]


@pytest.mark.parametrize("best", [0, 1, 30, 56, 57, 58, 59])
def test_the_label_of_the_best_stays_inside(tmp_path, monkeypatch, best):
    valid = [(4000 * (k + 1), 3.0 if k == best else 3.5) for k in range(60)]
    axes = drawn(monkeypatch, tmp_path / "a.png", valid)
    (label,) = (text for text in axes.texts if text.get_text() == "best: 3.000")
    inside, box = axes.get_window_extent(), label.get_window_extent()
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1


@pytest.mark.parametrize(("count", "marked"), [(1, True), (plots.MARKERS, True), (plots.MARKERS + 1, False)])
def test_many_validations_have_no_markers(tmp_path, monkeypatch, count, marked):
    axes = drawn(monkeypatch, tmp_path / "a.svg", [(3000 * (k + 1), 3.0) for k in range(count)])
    lines = {line.get_label(): line for line in axes.lines}
    assert (lines["held-out tenth"].get_marker() == "o") == marked
    assert lines["training"].get_zorder() > lines["held-out tenth"].get_zorder()


def test_attention_map(tmp_path, monkeypatch):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    weights = np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    plots.attention_map(tmp_path / "map.png", weights, ["a", "\n"], ["x", "y", "z"], "head 0")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "\\n"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x", "y", "z"]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert (tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"weights has shape \(2, 3\), expected \(3, 3\)"):
        plots.attention_map(tmp_path / "map.png", weights, "xyz", "xyz")


def test_gradient_flow(tmp_path, monkeypatch, rng):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    x = rng.standard_normal((7, 2, 3))
    layers = {"RNN": pyrnn.RNN(3, 4, rng=0), "LSTM": pyrnn.LSTM(3, 4, rng=0)}
    flows = {name: pyrnn.gradient_flow(layer, x[:, 0]) for name, layer in layers.items()}
    plots.gradient_flow(tmp_path / "flow.png", flows, "Flow")
    left, right = figures[0].axes
    norms = flows["RNN"].norms[::-1, 0]
    np.testing.assert_allclose(left.lines[0].get_ydata(), norms, rtol=1e-5)
    np.testing.assert_allclose(left.lines[2].get_ydata(), flows["LSTM"].cell_norms[-2::-1, 0], rtol=1e-5)
    np.testing.assert_allclose(right.lines[1].get_ydata(), flows["LSTM"].singular_values[0], rtol=1e-5)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["RNN", "LSTM"]
    with pytest.raises(ValueError, match="gradient_flow: RNN has no Jacobian"):
        plots.gradient_flow(tmp_path / "flow.png", {"RNN": pyrnn.gradient_flow(layers["RNN"], x, steps=())})


def test_forecasts(tmp_path, monkeypatch):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    values = np.arange(30.0)
    row = plots.Forecast("tides", values, {5: values[:3], 20: values[21:24]}, {"last": np.ones(3), "GRU": np.zeros(3)})
    plots.forecasts(tmp_path / "f.png", [row, row], shown=15)
    left, right = figures[0].axes[:2]
    np.testing.assert_array_equal(left.lines[0].get_xdata(), np.arange(15, 30))
    np.testing.assert_array_equal(left.lines[1].get_xdata(), left.lines[1].get_ydata())  # from the origin on
    assert len(left.lines) == 3  # the forecast from before what is shown is not drawn
    assert [line.get_label() for line in right.lines] == ["last", "GRU"]
    assert len(figures[0].axes) == 4


def test_tracks(tmp_path, monkeypatch, rng):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    seen, true, thought = rng.random((5, 2)), rng.random((3, 2)), rng.random((3, 2))
    panels = [plots.Track(seen, true, {"line": true, "GRU": thought})] * 5
    plots.tracks(tmp_path / "t.png", panels, (0, 1, 0, 1), "Tracks")
    axes = figures[0].axes
    assert [a.axison for a in axes] == [True] * 5 + [False] * 3
    lines = {line.get_label(): line.get_xydata() for line in axes[0].lines}
    assert list(lines) == ["seen", "what came", "line", "GRU"]
    np.testing.assert_array_equal(lines["GRU"], [seen[-1], *thought])
    np.testing.assert_array_equal(lines["what came"], true)


def test_confusion_matrix(tmp_path, monkeypatch):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    plots.confusion_matrix(tmp_path / "c.png", [[8, 2, 0], [1, 3, 0], [0, 0, 0]], ["cat", "dog", "cow"], "animals")
    axes = figures[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0.25, 0.75, 0], [0, 0, 0]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "3"}
    (right,) = axes.child_axes
    assert [t.get_text().strip() for t in right.get_yticklabels()] == ["80% of 10", "75% of 4", "none"]
    assert (tmp_path / "c.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"counts has shape \(1, 2\), expected \(1, 1\)"):
        plots.confusion_matrix(tmp_path / "c.png", [[1, 2]], ["cat"])


def test_spans(tmp_path, monkeypatch):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    chances = np.linspace(0, 1, 50)
    plots.spans(tmp_path / "s.png", {"a": (chances, [(30, 50)]), "b": (chances[:9], [])}, "spans", "step")
    first, second = figures[0].axes
    np.testing.assert_array_equal(first.lines[0].get_ydata(), chances)
    assert first.collections[1].get_paths()[0].get_extents().intervalx.tolist() == [30, 50]
    assert second.get_xlim() == (0, 9)
    assert second.get_xlabel() == "step"
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_pictures(tmp_path, monkeypatch, rng):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    images, titles = rng.random((5, 4, 6, 3)), list("abcde")
    plots.pictures(tmp_path / "p.png", images, titles, [True, True, False, True, True], "five")
    shown = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title() for axes in shown] == titles
    assert [axes.title.get_color() for axes in shown] == [plots.VALID if k == 2 else plots.INK for k in range(5)]
    np.testing.assert_array_equal(shown[4].images[0].get_array(), images[4])
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_learning_curves(tmp_path, monkeypatch):
    figures = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    errors = [1.0, 3.0, 0.5, 0.1, 0.2]
    panel = plots.Learning("T = 5", {"LSTM": errors, "GRU": errors[:1]}, 0.01, 0.167, "mean squared error")
    plots.learning_curves(tmp_path / "a.png", [panel, panel, panel], "Memory", mean=2)
    assert len(figures[0].axes) == 4  # the last is empty
    lines = {line.get_label(): line for line in figures[0].axes[2].lines}
    np.testing.assert_allclose(lines["LSTM"].get_xydata(), [[2, 2], [4, 0.3], [5, 0.2]])
    np.testing.assert_allclose(lines["GRU"].get_xydata(), [[1, 1]])
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["LSTM", "GRU"]
