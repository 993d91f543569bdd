"""The pictures: what their parts are and where they lie."""

import inspect
import re

import numpy as np
import pytest

import pyrnn
from pyrnn import plots
from pyrnn.app import gallery
from pyrnn.plots import style
from pyrnn.training.gradient_flow import GradientFlow

pytest.importorskip("matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """Those that are made, of fewer pixels than usual."""
    made, make = [], style.new_figure
    monkeypatch.setattr(style, "DPI", 50)
    monkeypatch.setattr(style, "new_figure", lambda *size: made.append(make(*size)) or made[-1])
    return made


few_pixels = pytest.mark.usefixtures("figures")


def drawn(figures, path, valid):
    """The axes of a loss curve."""
    train = [(1000 * k, 2 + 4 / k) for k in range(1, 200)]
    plots.loss_curve(path, train, valid, "LSTM", {"all equally likely": 6.0, "5-gram": 2.5})
    return figures[0].axes[0]


@pytest.mark.parametrize("best", [0, 1, 30, 56, 57, 58, 59])
def test_the_label_of_the_best_stays_inside(tmp_path, figures, best):
    valid = [(4000 * (k + 1), 3.0 if k == best else 3.5) for k in range(60)]
    axes = drawn(figures, tmp_path / "a.png", valid)
    (label,) = (text for text in axes.texts if text.get_text() == "best: 3.000")
    inside, box = axes.get_window_extent(), label.get_window_extent()
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1


@pytest.mark.parametrize(("count", "marked"), [(1, True), (style.MARKERS, True), (style.MARKERS + 1, False)])
def test_many_validations_have_no_markers(figures, count, marked):
    axes = drawn(figures, None, [(3000 * (k + 1), 3.0) for k in range(count)])
    lines = {line.get_label(): line for line in axes.lines}
    assert (lines["held-out tenth"].get_marker() == "o") == marked
    assert lines["training"].get_zorder() > lines["held-out tenth"].get_zorder()


def test_attention_map(tmp_path, figures):
    weights = np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    plots.attention_map(tmp_path / "map.png", weights, ["a", "\n"], ["x", "y", "z"], "head 0")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "\\n"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x", "y", "z"]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert (tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"weights has shape \(2, 3\), expected \(3, 3\)"):
        plots.attention_map(tmp_path / "map.png", weights, "xyz", "xyz")


def test_a_row_of_an_attention_map_is_a_query(figures):
    """Where there are as many queries as keys too."""
    weights = np.array([[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.5, 0.25, 0.25]])
    plots.attention_map(None, weights, ["a", "b", "c"], ["x", "y", "z"])
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x", "y", "z"]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first query on top


def test_gradient_flow(figures, rng):
    x = rng.standard_normal((7, 2, 3))
    layers = {"RNN": pyrnn.RNN(3, 4, rng=0), "LSTM": pyrnn.LSTM(3, 4, rng=0)}
    flows = {name: pyrnn.gradient_flow(layer, x[:, 0]) for name, layer in layers.items()}
    plots.gradient_flow(None, flows, "Flow")
    left, right = figures[0].axes
    norms = flows["RNN"].norms[::-1, 0]
    np.testing.assert_allclose(left.lines[0].get_ydata(), norms, rtol=1e-5)
    np.testing.assert_allclose(left.lines[2].get_ydata(), flows["LSTM"].cell_norms[-2::-1, 0], rtol=1e-5)
    np.testing.assert_allclose(right.lines[1].get_ydata(), flows["LSTM"].singular_values[0], rtol=1e-5)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["RNN", "LSTM"]
    with pytest.raises(ValueError, match="gradient_flow: RNN has no Jacobian"):
        plots.gradient_flow(None, {"RNN": pyrnn.gradient_flow(layers["RNN"], x, steps=())})


def test_forecasts(figures):
    values = np.arange(30.0)
    row = plots.Forecast("tides", values, {5: values[:3], 20: values[21:24]}, {"last": np.ones(3), "GRU": np.zeros(3)})
    plots.forecasts(None, [row, row], shown=15)
    left, right = figures[0].axes[:2]
    np.testing.assert_array_equal(left.lines[0].get_xdata(), np.arange(15, 30))
    np.testing.assert_array_equal(left.lines[1].get_xdata(), left.lines[1].get_ydata())  # from the origin on
    assert len(left.lines) == 3  # the forecast from before what is shown is not drawn
    assert [line.get_label() for line in right.lines] == ["last", "GRU"]
    assert len(figures[0].axes) == 4


def test_tracks(figures, rng):
    seen, true, thought = rng.random((5, 2)), rng.random((3, 2)), rng.random((3, 2))
    panels = [plots.Track(seen, true, {"line": true, "GRU": thought})] * 5
    plots.tracks(None, panels, (0, 1, 0, 1), "Tracks")
    axes = figures[0].axes
    assert [a.axison for a in axes] == [True] * 5 + [False] * 3
    lines = {line.get_label(): line.get_xydata() for line in axes[0].lines}
    assert list(lines) == ["seen", "what came", "line", "GRU"]
    np.testing.assert_array_equal(lines["GRU"], [seen[-1], *thought])
    np.testing.assert_array_equal(lines["what came"], true)


def test_confusion_matrix(tmp_path, figures):
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


def test_spans(tmp_path, figures):
    chances = np.linspace(0, 1, 50)
    plots.spans(tmp_path / "s.png", {"a": (chances, [(30, 50)]), "b": (chances[:9], [])}, "spans", "step")
    first, second = figures[0].axes
    np.testing.assert_array_equal(first.lines[0].get_ydata(), chances)
    assert first.collections[1].get_paths()[0].get_extents().intervalx.tolist() == [30, 50]
    assert second.get_xlim() == (0, 9)
    assert second.get_xlabel() == "step"
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_swings(figures, rng):
    best, heights = rng.random(30), rng.uniform(-1, 1, (20, 3))
    plots.swings(None, {"best": best, "mean": best[:9]}, 0.9, heights, 0.5, "up")
    left, right = figures[0].axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), np.column_stack([np.arange(1, 31), best]))
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["best", "mean", "solved"]
    np.testing.assert_array_equal(right.lines[2].get_xydata(), np.column_stack([np.arange(20) / 2, heights[:, 2]]))
    assert right.get_title("left") == "height of the tip, 3 fresh starts"


def test_pictures(tmp_path, figures, rng):
    images, titles = rng.random((5, 4, 6, 3)), list("abcde")
    plots.pictures(tmp_path / "p.png", images, titles, [True, True, False, True, True], "five")
    shown = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title() for axes in shown] == titles
    assert [axes.title.get_color() for axes in shown] == [style.VALID if k == 2 else style.INK for k in range(5)]
    np.testing.assert_array_equal(shown[4].images[0].get_array(), images[4])
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_films(tmp_path, figures, rng):
    frames, chances = rng.random((3, 4, 4)), rng.random((3, 2))
    chances /= chances.sum(axis=1, keepdims=True)
    film = plots.Film(frames, chances, "up, said: up")
    plots.films(tmp_path / "f.png", [film, film._replace(title="down", right=False), film], ["up", "down"], "three")
    shown = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title("left") for axes in shown] == ["up, said: up", "down", "up, said: up"]
    assert [axes._left_title.get_color() for axes in shown] == [style.INK, style.VALID, style.INK]
    np.testing.assert_array_equal(shown[2].images[1].get_array(), frames[1])
    heights = np.array([bar.get_height() for bar in shown[0].patches]).reshape(2, 3)
    np.testing.assert_allclose(heights / heights.sum(axis=0), chances.T)
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["up", "down"]
    assert figures[0].get_supxlabel() == "red: not right"


def test_alignments(figures):
    """The peaks have names, the aligned ids have theirs where they lie, once for each time they are said."""
    chances = np.full((9, 3), 0.01)
    chances[[1, 4, 6], [1, 2, 2]] = 0.9
    path = np.array([0, 1, 1, 0, 2, 0, 2, 2, 2])
    sound = np.ones((30, 5))
    plots.alignments(None, [plots.Alignment(sound, 1.8, chances, path, "abb", seams=[0.6])], ["-", "a", "b"])
    (axes,) = figures[0].axes
    names = {"a": [], "b": []}
    for text in axes.texts:
        names[text.get_text()].append(getattr(text, "xy", text.get_position())[0])
    np.testing.assert_allclose(sorted(names["a"]), [0.3, 0.4])  # its peak in step 1, its place in 1 and 2
    np.testing.assert_allclose(sorted(names["b"]), [0.9, 0.9, 1.3, 1.5])
    np.testing.assert_array_equal(axes.images[0].get_array(), sound.T)
    assert axes.get_xlim() == (0, 1.8)
    assert [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2] == [0.6]


def test_learning_curves(figures):
    errors = [1.0, 3.0, 0.5, 0.1, 0.2]
    panel = plots.Learning("T = 5", {"LSTM": errors, "GRU": errors[:1]}, 0.01, 0.167, "mean squared error")
    plots.learning_curves(None, [panel, panel, panel], "Memory", mean=2)
    assert len(figures[0].axes) == 4  # the last is empty
    lines = {line.get_label(): line for line in figures[0].axes[2].lines}
    np.testing.assert_allclose(lines["LSTM"].get_xydata(), [[2, 2], [4, 0.3], [5, 0.2]])
    np.testing.assert_allclose(lines["GRU"].get_xydata(), [[1, 1]])
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["LSTM", "GRU", "above the axis"]


# What holds for all ----------------------------------------------------------------------------------------------

NASTY = ["$$", "$a$ and $\\frac$", "_hidden", "back\\slash", "漢字", "bell\x07\n", "x" * 1000, ""]
FLOW = GradientFlow(np.ones((4, 1)), None, np.array([0]), np.ones((1, 3)))
NET = pyrnn.Hopfield(16)
NET.store(np.ones((1, 16)))
WAY = gallery.way(NET, np.ones(16), -np.ones(16) + 2 * np.eye(16)[0], np.random.default_rng(0))
SQUARE, POINTS, RATES = np.full((8, 8), 0.1), np.ones((3, 2)), (np.array([0.1, 0.2]), np.array([1.0, 0.5]))

ALL = {  # how many axes it needs, and the picture with these eight names
    "loss_curve": (1, lambda path, names, ax: plots.loss_curve(
        path, [(1, 2.0), (2, 1.5)], [(2, 1.6)], names[1], dict(zip(names, range(1, 9), strict=True)), ax=ax)),
    "learning_curves": (3, lambda path, names, ax: plots.learning_curves(
        path, [plots.Learning(n, {n: [1.0, 0.5], "b": [0.2]}, 0.1, 1.0, n) for n in names[:3]], names[1], ax=ax)),
    "gradient_flow": (2, lambda path, names, ax: plots.gradient_flow(
        path, dict.fromkeys(names, FLOW), names[1], ax=ax)),
    "attention_map": (1, lambda path, names, ax: plots.attention_map(
        path, SQUARE, names, names, names[0], query_label=names[1], key_label=names[2], ax=ax)),
    "attention_maps": (3, lambda path, names, ax: plots.attention_maps(
        path, [(SQUARE, names, names, n) for n in names[:3]], names[0], query_label=names[1], ax=ax)),
    "confusion_matrix": (1, lambda path, names, ax: plots.confusion_matrix(
        path, np.eye(8, dtype=int), names, names[0], true_label=names[1], said_label=names[2], ax=ax)),
    "recalls": (8, lambda path, names, ax: plots.recalls(path, [WAY], (4, 4), names[1], ax=ax)),
    "recall_rates": (1, lambda path, names, ax: plots.recall_rates(
        path, {"hebbian": RATES}, dict(zip(names, np.linspace(0, 1, 8), strict=True)), names[1], ax=ax)),
    "forecasts": (4, lambda path, names, ax: plots.forecasts(
        path, [plots.Forecast(n, np.arange(9.0), {5: np.ones(2)}, dict.fromkeys(names, np.ones(2)), n, step=n)
               for n in names[:2]], ax=ax)),
    "tracks": (2, lambda path, names, ax: plots.tracks(
        path, [plots.Track(POINTS, POINTS, dict.fromkeys(names, POINTS))] * 2, (0, 2, 0, 2), names[1], ax=ax)),
    "spans": (8, lambda path, names, ax: plots.spans(
        path, {n: (np.ones(3), [(1, 2)]) for n in names}, names[0], names[1], span=names[0], ax=ax)),
    "swings": (2, lambda path, names, ax: plots.swings(
        path, dict.fromkeys(names, np.ones(3)), 0.5, SQUARE, 0.1, names[0], ax=ax)),
    "pictures": (8, lambda path, names, ax: plots.pictures(
        path, np.ones((8, 2, 2, 3)), names, [False] * 8, names[0], wrong=names[1], ax=ax)),
    "films": (3, lambda path, names, ax: plots.films(
        path, [plots.Film(SQUARE[:, None], SQUARE, n, False) for n in names[:3]], names, names[0], wrong=names[1],
        ax=ax)),
    "alignments": (3, lambda path, names, ax: plots.alignments(
        path, [plots.Alignment(SQUARE, 2.0, 5 * np.eye(8) * SQUARE, np.arange(8), n, False) for n in names[:3]], names,
        names[0], blank=3, wrong=names[1], ax=ax)),
}  # fmt: skip

drawn_by_all = pytest.mark.parametrize("name", ALL)


def test_all_pictures_are_tried():
    assert {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))} == {*ALL, "check"}


@drawn_by_all
def test_text_is_drawn_as_it_is_without_a_file_in_a_notebook(name, tmp_path, monkeypatch, figures):
    """No formula, no warning, no name hidden, and no picture that a long name makes long."""
    from matplotlib.text import Text

    monkeypatch.chdir(tmp_path)
    count, draw = ALL[name]
    axes = draw(None, NASTY, None)
    assert np.size(axes) == count
    assert axes._repr_png_().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == []
    texts = [text for text in figures[0].findobj(Text) if text.get_text()]
    for text in texts:
        if "$" in text.get_text() and not re.search(r"\$_[tc]|mathdefault", text.get_text()):
            assert text._preprocess_math(text.get_text()) == (text.get_text(), False)
    shown = " ".join(text.get_text() for text in texts)
    assert "$$" in shown or "$a$" in shown
    if name not in ("loss_curve", "attention_map", "attention_maps", "recalls"):
        assert "\x07" not in shown
    assert max(map(len, shown.split())) <= style.TITLE
    assert np.prod(figures[0].get_size_inches()) < 500


@few_pixels
def test_names_that_matplotlib_would_hide_or_warn_of():
    axes = plots.tracks(None, [plots.Track(POINTS, POINTS, {"_hidden": POINTS, "漢\x07": POINTS})], (0, 2, 0, 2))
    legend = axes[0].figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["seen", "what came", "_hidden", "\\u6f22\\x07"]
    axes = plots.attention_map(None, np.eye(3), ["'", "\\", "x" * 30], ["$$", " ", "é"])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["'", "\\", "x" * 23 + "…"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["$$", " ", "é"]
    axes.figure.draw_without_rendering()


@drawn_by_all
def test_a_picture_goes_into_axes_that_are_there(name, tmp_path):
    from matplotlib.figure import Figure

    count, draw = ALL[name]
    figure = Figure(figsize=(30, 6), dpi=20)
    left, right = figure.subfigures(1, 2)
    left.subplots()
    axes = right.subplots(1, count)
    returned = draw(tmp_path / "whole.png", list("abcdefgh"), axes)
    for a, b in zip(np.atleast_1d(returned), np.atleast_1d(axes), strict=True):
        assert a is b
    assert np.atleast_1d(axes)[0].has_data()
    assert (tmp_path / "whole.png").read_bytes().startswith(b"\x89PNG")
    for wrong in (right.subplots(1, count + 1), "axes"):
        with pytest.raises(ValueError, match=rf"{name[:13]}.*: ax holds \d+ objects, expected {count} axes"):
            draw(None, list("abcdefgh"), wrong)


@drawn_by_all
def test_a_file_that_cannot_be_written_is_known_before_anything_is_drawn(name, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "new_figure", None)
    for path, error, message in [
        (tmp_path / "a.txt", ValueError, r"a\.txt: a picture's name ends in one of .*\.png, "),
        (tmp_path / "a", ValueError, "a: a picture's name ends in"),
        (tmp_path / "no" / "a.png", FileNotFoundError, "there is no directory"),
        (tmp_path, ValueError, "a picture's name ends in"),
        ("", FileNotFoundError, "'' is no file name"),
        (3, TypeError, "path is 3, expected a file name"),
    ]:
        with pytest.raises(error, match=message):
            ALL[name][1](path, list("abcdefgh"), None)


@few_pixels
def test_every_ending_that_is_named_can_be_written(tmp_path):
    with pytest.raises(ValueError, match="ends in one of") as caught:
        plots.check(tmp_path / "a.txt")
    for ending in re.findall(r"\.\w+", str(caught.value).split("one of")[1]):
        path = tmp_path / f"a{ending}"
        plots.pictures(str(path).encode() if ending == ".png" else path, np.ones((1, 2, 2, 3)), ["a"], [True])
        assert path.stat().st_size > 0


LEARNING = plots.Learning("t", {"a": [1.0, 0.5]}, 0.1, 1.0, "u")
TRACK = plots.Track(POINTS, POINTS, {"a": POINTS})
FILM = plots.Film(np.ones((2, 3, 3)), np.ones((2, 1)), "t")
ALIGNED = plots.Alignment(np.ones((4, 2)), 1.0, np.ones((3, 1)), np.zeros(3, int), "t")
FORECAST = plots.Forecast("f", np.arange(9.0), {5: np.ones(3)}, {"a": np.ones(3)})


def flow(**changed):
    return lambda: plots.gradient_flow(None, {"a": FLOW._replace(**changed)})


def learning(mean=25, **changed):
    return lambda: plots.learning_curves(None, [LEARNING._replace(**changed)], mean=mean)


def track(box=(0, 1, 0, 1), **changed):
    return lambda: plots.tracks(None, [TRACK._replace(**changed)], box)


def film(**changed):
    return lambda: plots.films(None, [FILM._replace(**changed)], ["a"])


def swing(solved=0.0, **changed):
    return lambda: plots.swings(None, **{"returns": {"a": [1.0]}, "heights": SQUARE, "step": 0.1} | changed,
                                solved=solved)  # fmt: skip


def aligned(blank=0, **changed):
    return lambda: plots.alignments(None, [ALIGNED._replace(**changed)], ["a"], blank=blank)


def forecast(shown=150, **changed):
    return lambda: plots.forecasts(None, [FORECAST._replace(**changed)], shown)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (flow(norms=np.ones((4, 1, 0))), r"gradient_flow: a has no rows, its norms have shape \(4, 1, 0\)"),
        (flow(steps=np.zeros(0)), "gradient_flow: a has no Jacobian"),
        (lambda: plots.gradient_flow(None, FLOW), "gradient_flow: flows is GradientFlow object, expected a dict"),
        (lambda: plots.gradient_flow(None, {"a": 3}), "gradient_flow: a is 3, expected what"),
        (learning(mean=0), "learning_curves: mean is 0, expected at least 1"),
        (learning(mean=1.5), r"learning_curves: mean is 1\.5, expected an integer"),
        (learning(guess=0), "learning_curves: guess of 't' is 0, expected"),
        (learning(guess=np.nan), "learning_curves: guess of 't' is nan, expected"),
        (learning(curves={"a": ["x"]}), "learning_curves: the curve 'a' has dtype <U1, expected real numbers"),
        (track((0, 0, 0, 1)), r"tracks: box is \(0, 0, 0, 1\), expected finite left < right and bottom < top"),
        (track((0, 1, 1, 1)), "tracks: box is"),
        (track((1, 0, 0, 1)), "tracks: box is"),
        (track((0, 1, 0, np.inf)), "tracks: box is"),
        (track((0, np.nan, 0, 1)), "tracks: box is"),
        (track((0, 1)), r"tracks: box has shape \(2,\), expected \(4,\)"),
        (track(seen=np.ones(3)), r"tracks: seen has shape \(3,\), expected \(S, 2\)"),
        (track(true=np.ones((3, 3))), r"tracks: true has shape \(3, 3\), expected \(K, 2\)"),
        (track(ways={"a": np.ones((2, 3))}), r"tracks: the way 'a' has shape \(2, 3\), expected \(K, 2\)"),
        (film(frames=np.ones((2, 3))), r"films: frames has shape \(2, 3\), expected \(T, height, width\)"),
        (film(chances=np.ones((2, 2))), r"films: chances has shape \(2, 2\), expected \(2, 1\)"),
        (swing(heights=np.ones(3)), r"swings: heights has shape \(3,\), expected \(T, N\)"),
        (swing(returns={"a": SQUARE}), r"swings: the curve 'a' has shape \(8, 8\), expected \(K,\)"),
        (swing(np.nan), "swings: solved is nan"),
        (swing(step=-1.0), "swings: step is -1"),
        (aligned(sound=np.ones(4)), r"alignments: sound has shape \(4,\), expected \(F, bands\)"),
        (aligned(seconds=0), "alignments: seconds is 0, expected"),
        (aligned(chances=np.ones((3, 2))), r"alignments: chances has shape \(3, 2\), expected \(T, 1\)"),
        (aligned(path=np.zeros(2, int)), r"alignments: path has shape \(2,\), expected \(3,\)"),
        (aligned(path=np.ones(3, int)), "alignments: path"),
        (aligned(path=np.zeros(3)), "alignments: path has dtype float64, expected integers"),
        (aligned(blank=1), "alignments: blank is 1, expected 0 to 0"),
        (forecast(0), "forecasts: shown is 0, expected at least 1"),
        (forecast(values=np.ones((3, 3))), r"forecasts: values of f has shape \(3, 3\), expected \(T,\)"),
        (forecast(forecasts={9: [1.0]}), "forecasts: an origin of f is 9, expected 0 to 8"),
        (forecast(forecasts={8: [1.0]}), "forecasts: forecast 8 of f has 1 steps, expected at most 0"),
        (
            forecast(intervals={1: np.ones((2, 1))}),
            r"forecasts: interval 1 of f has shape \(2, 1\), expected none without",
        ),
        (forecast(held_out=10), "forecasts: held_out of f is 10, expected 0 to 9"),
        (forecast(dates=np.arange(3)), r"forecasts: dates of f has shape \(3,\), expected \(9,\)"),
        (
            lambda: plots.loss_curve(None, [1, 2, 3], [], "", {}),
            r"loss_curve: train has shape \(3,\), expected \(K, 2\)",
        ),
        (lambda: plots.loss_curve(None, [], [], "", {"a": "b"}), r"loss_curve: levels\['a'\] has dtype <U1"),
        (lambda: plots.attention_map(None, np.zeros((2, 0)), "ab", ""), "attention_map: .* nothing to draw"),
        (lambda: plots.attention_map(None, [["a"]], "a", "a"), "attention_map: weights has dtype <U1, expected real"),
        (lambda: plots.confusion_matrix(None, np.zeros((0, 0)), []), "confusion_matrix: .* nothing to draw"),
        (lambda: plots.recalls(None, [WAY], (4, 5), ""), r"recalls: shape is \(4, 5\), expected one of 16 units"),
        (
            lambda: plots.spans(None, {"a": (np.ones((2, 2)), [])}),
            r"spans: chances of 'a' has shape \(2, 2\), expected",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told(draw, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        draw()


GOOD = {
    "loss_curve": {"train": [(1, 2.0)], "valid": [(2, 1.6)], "levels": {"a": 1.0}, "title": ""},
    "learning_curves": {"panels": [LEARNING]},
    "gradient_flow": {"flows": {"a": FLOW}},
    "attention_map": {"weights": SQUARE, "queries": "abcdefgh", "keys": "abcdefgh"},
    "attention_maps": {"maps": [(SQUARE, "abcdefgh", "abcdefgh", "")]},
    "confusion_matrix": {"counts": SQUARE, "names": "abcdefgh"},
    "recalls": {"ways": [WAY], "shape": (4, 4), "title": ""},
    "recall_rates": {"rates": {"hebbian": RATES}, "estimates": {"a": 0.1}, "title": ""},
    "forecasts": {"rows": [FORECAST]},
    "tracks": {"panels": [TRACK], "box": (0, 1, 0, 1)},
    "spans": {"rows": {"a": (np.ones(3), [(1, 2)])}},
    "swings": {"returns": {"a": np.ones(3)}, "solved": 0.5, "heights": SQUARE, "step": 0.1},
    "pictures": {"images": np.ones((1, 2, 2, 3)), "titles": ["t"], "right": [True]},
    "films": {"panels": [FILM], "names": ["a"]},
    "alignments": {"panels": [ALIGNED], "names": ["a"]},
}


@drawn_by_all
def test_wrong_objects_are_told_by_name(name, monkeypatch):
    """In the place of every argument and of every part of one; what can be drawn, such as a title of any kind, is."""
    monkeypatch.setattr(style, "DPI", 10)
    wrongs = (None, (1, 2), {"a": "b"}, [object()])
    for key, value in GOOD[name].items():
        tried = list(wrongs)
        if isinstance(value, dict):
            tried += [dict.fromkeys(value, wrong) for wrong in wrongs]
        elif isinstance(value, list) and hasattr(value[0], "_replace"):
            tried += [[value[0]._replace(**{field: wrong})] for field in value[0]._fields for wrong in wrongs]
        for wrong in tried:
            try:
                getattr(plots, name)(None, **(GOOD[name] | {key: wrong}))
                said = f"{name}: drawn"
            except (TypeError, ValueError) as error:
                said = str(error)
            assert said.startswith(f"{name}: ")
    with pytest.raises(TypeError, match=f"^{name}: "):
        getattr(plots, name)(None, **(GOOD[name] | {next(iter(GOOD[name])): None}))


@few_pixels
def test_what_is_unusual_is_drawn():
    """Without a warning."""
    for axes in [
        forecast(errors={str(k): np.ones(3) for k in range(12)}, held_out=9, values=list(range(9)))(),
        plots.recall_rates(None, {}, {}, ""),
        plots.recall_rates(None, {"of my own": RATES}, {}, ""),
        plots.spans(None, {"a": (np.zeros(0), [])}),
        plots.loss_curve(None, [(0, 1.0), (-5, 2.0)], [], "", {}),
        plots.learning_curves(None, [LEARNING._replace(curves={"a": []})]),
        track((0, 1, 0, 1e9))(),
    ]:  # fmt: skip
        np.atleast_1d(axes)[0].figure.draw_without_rendering()


# What lies where -------------------------------------------------------------------------------------------------


def box(artist):
    """Left, right, bottom and top in pixels, of an artist in a figure that has been laid out."""
    drawn = artist.get_window_extent()
    return drawn.x0, drawn.x1, drawn.y0, drawn.y1


@pytest.mark.parametrize("levels", [(2.5, 2.6), (2.5, 2.52, 2.54), (2.5, 3.0), (2.5, 2.5)])
def test_names_of_near_levels_do_not_lie_on_each_other(levels):
    names = dict(zip(["5-gram", "trigram", "a bigram"], levels, strict=False))
    axes = plots.loss_curve(None, [(1, 6.0), (9, 2.0)], [], "", {"all equally likely": 6.0, **names})
    axes._repr_png_()
    boxes = [box(text) for text in axes.texts]
    for k, (left, right, bottom, top) in enumerate(boxes):
        for other in boxes[:k]:
            assert right <= other[0] or other[1] <= left or top <= other[2] or other[3] <= bottom


def test_a_single_batch_is_seen():
    axes = plots.loss_curve(None, [(1000, 3.2)], [], "", {"all equally likely": 4.0})
    assert "o" in {line.get_marker() for line in axes.lines}


LONG = "a title of some length, longer than such a picture"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.attention_map(None, np.eye(2), "ab", "cd", LONG),
        lambda: plots.attention_maps(None, [(np.eye(2), "ab", "cd", LONG)] * 2),
        lambda: plots.confusion_matrix(None, np.eye(2), "ab", LONG),
        lambda: plots.tracks(None, [TRACK], (0, 2, 0, 2), LONG),
        lambda: plots.tracks(
            None, [TRACK._replace(ways={"a way of some length": POINTS, "another": POINTS})], (0, 2, 0, 2)
        ),
        lambda: plots.gradient_flow(None, {f"a layer with a name of some length {k}": FLOW for k in range(6)}, LONG),
        lambda: plots.learning_curves(
            None, [LEARNING._replace(curves={f"a model of some length {k}": [1.0] for k in range(9)})]
        ),
    ],
)
def test_titles_and_legends_stay_inside(draw):
    axes = np.atleast_1d(draw())
    figure = axes[0].figure
    axes[0].figure.canvas.draw()
    titles = [figure._suptitle, *(one._left_title for one in axes)]
    seen = [title for title in titles if title is not None and title.get_text()] + figure.legends
    assert seen
    for left, right, _, _ in map(box, seen):
        assert 0 <= left < right <= figure.bbox.width


def test_a_way_of_forecasting_has_one_colour():
    """In all rows, whatever else they have; and the legend has all of them."""
    rows = [FORECAST._replace(errors={name: np.ones(3) for name in names}) for names in (("a", "b"), ("c", "b"))]
    axes = plots.forecasts(None, rows)
    colours = [{line.get_label(): line.get_color() for line in right.lines} for right in axes[1::2]]
    assert colours[0]["b"] == colours[1]["b"]
    assert len({*colours[0].values(), *colours[1].values()}) == 3
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["a", "b", "c"]


# Size ------------------------------------------------------------------------------------------------------------


def pixels(axes):
    figure = np.atleast_1d(axes)[0].figure
    return np.prod(figure.get_size_inches() * figure.dpi)


@pytest.mark.parametrize("shape", [(300, 300), (1, 20_000), (20_000, 2), (3000, 3000)])
def test_a_large_map_is_a_picture_of_its_size(shape):
    axes = plots.attention_map(None, np.ones(shape, "f4"), ["q"] * shape[0], ["key"] * shape[1])
    assert pixels(axes) <= 40e6
    for axis, count in ((axes.yaxis, shape[0]), (axes.xaxis, shape[1])):
        assert min(count, 60) <= len(axis.get_ticklabels()) <= 120
        assert len(axis.get_minorticklocs()) <= 120
    few = plots.attention_map(None, np.ones((20, 20)), ["q"] * 20, ["k"] * 20)
    assert len(few.get_xticklabels()) == 20


@pytest.mark.parametrize("classes", [41, 120, 1000])
def test_a_large_confusion_matrix_has_no_text_in_its_cells(classes):
    counts = np.ones((classes, classes), int)
    axes = plots.confusion_matrix(None, counts, [f"class {k}" for k in range(classes)])
    assert pixels(axes) <= 40e6
    assert len(axes.texts) == 0
    assert len(axes.get_xticklabels()) == len(axes.child_axes[0].get_yticklabels()) <= 120


def test_a_confusion_matrix_of_some_size_has_text_in_its_cells():
    assert len(plots.confusion_matrix(None, np.ones((40, 40), int), list(map(str, range(40)))).texts) == 1600


def test_many_maps_are_one_picture_of_its_size():
    axes = plots.attention_maps(None, [(np.ones((60, 60)), ["q"] * 60, ["k"] * 60, "")] * 8)
    assert pixels(axes) <= 40e6
    with pytest.raises(ValueError, match="pictures: 101 panels are too many for one picture, expected at most 100"):
        plots.pictures(None, np.ones((101, 2, 2, 3)), [""] * 101, [True] * 101)


def test_long_lines_are_thinned_and_keep_their_extremes():
    values = np.full(10**6, 3.0)
    values[[123_456, 777_777]] = 1, 5
    axes = plots.loss_curve(None, np.column_stack([np.arange(1, 10**6 + 1), values]), [], "", {"level": 6.0})
    bits = axes.lines[0].get_ydata()
    assert len(bits) <= style.MOST_POINTS + 2
    assert (bits.min(), bits.max(), bits[0], bits[-1]) == (1, 5, 3, 3)
    spans = plots.spans(None, {"a": (values / 5, [(3, 10**5)])})
    assert len(spans[0].lines[0].get_ydata()) <= style.MOST_POINTS + 2


# What the axes say -----------------------------------------------------------------------------------------------


def beyond(axes):
    return {line.get_gid(): line.get_xdata().tolist() for line in axes.lines if line.get_gid()}


@few_pixels
def test_gradients_beyond_the_axis_are_marked(tmp_path):
    norms = np.array([0.0, 1e-30, 1e-3, 1, np.inf])[:, None, None] * np.ones((1, 1, 2))
    flow = GradientFlow(norms, None, np.array([0]), np.array([[[1e30, 1, 0]]]))
    axes = plots.gradient_flow(tmp_path / "g.png", {"RNN": flow})
    assert beyond(axes[0]) == {"below the axis": [3, 4], "above the axis": [0]}
    assert beyond(axes[1]) == {"below the axis": [3], "above the axis": [1]}
    texts = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert texts == ["RNN", "below the axis", "above the axis"]
    low, high = axes[0].get_ylim()
    assert low >= style.LOW
    assert high <= style.HIGH


@few_pixels
def test_losses_beyond_the_axis_and_none_at_all_are_drawn(tmp_path):
    train = [(k, 3.0 if k < 5 else np.nan) for k in range(1, 9)]
    axes = plots.loss_curve(tmp_path / "a.png", train, [(4, 3.0), (6, 1e9), (8, np.inf)], "diverged", {"all": 6.0})
    assert beyond(axes) == {"above the axis": [6, 8]}
    assert "best: 3.000" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[1] < 7
    plots.loss_curve(tmp_path / "b.png", [(1, np.nan)], [(1, np.nan)], "nothing", {})
    panel = plots.Learning("T", {"GRU": [0.0, 1.0, 9.0]}, 0.01, 1.0, "error")
    (axes,) = plots.learning_curves(None, [panel], mean=1)
    assert beyond(axes) == {"below the axis": [1], "above the axis": [3]}


def test_forecasts_have_dates_units_and_the_held_out_part():
    dates, values = np.datetime64("1950-01") + np.arange(30), np.arange(30.0)
    row = plots.Forecast("tides", values, {20: values[21:24]}, {"GRU": np.ones(3)}, "metres", dates, 18, "month")
    left, right, other, _ = plots.forecasts(None, [row, row._replace(dates=None, held_out=5)], shown=15)
    left.figure.draw_without_rendering()
    assert "1952" in [text.get_text() for text in left.get_xticklabels()]
    assert [text.get_text() for text in left.texts] == ["held out from here"]
    assert left.texts[0].xy[0] == dates[18]
    assert len(left.collections) == 0
    between = np.stack([values[21:24] - 1, values[21:24] + 2])
    shaded = plots.forecasts(None, [row._replace(dates=None, intervals={20: between})], shown=15)[0].collections[0]
    corners = shaded.get_paths()[0].vertices
    assert corners.min(axis=0).tolist() == [21, 20]
    assert corners.max(axis=0).tolist() == [23, 25]
    assert (left.get_ylabel(), right.get_ylabel(), right.get_xlabel()) == ("metres", "metres", "months ahead")
    assert other.get_title(loc="left") == "tides (all of it held out)"
    assert other.get_xlabel() == "month"
    assert other.texts[:] == []


def test_pictures_say_what_red_means():
    images = np.ones((2, 2, 2, 3))
    for right, text in (([True, False], "red: wrong"), ([True, True], "")):
        axes = plots.pictures(None, images, ["a", "b"], right, wrong="red: wrong")
        assert axes[0].figure.get_supxlabel() == text
    with pytest.raises(ValueError, match="pictures: 2 images, 1 titles and 2 right"):
        plots.pictures(None, images, ["a"], [True, True])
