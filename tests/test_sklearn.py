"""scikit-learn's estimators: its own checks, the forms of X, and forecasts that are what their parts say."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from cells import python

import pyrnn
from pyrnn.cells import CELLS

DOCS = Path(__file__).parents[1] / "docs" / "series.md"


def test_nothing_heavy_is_imported_and_a_missing_one_is_named():
    code = """
import sys
sys.modules["sklearn"] = None
import pyrnn
from pyrnn.cells import CELLS
assert "pandas" not in sys.modules
try:
    import pyrnn.sklearn
except ImportError as error:
    print(error)
"""
    said = python(code)
    assert "[sklearn]" in said
    assert "pip install scikit-learn" in said


pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from pyrnn.sklearn import RNNClassifier, RNNForecaster, RNNRegressor  # noqa: E402


@parametrize_with_checks([RNNClassifier(random_state=0), RNNRegressor(random_state=0)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own(estimator, check):
    check(estimator)


OF_ENSEMBLES = (
    "estimators_pickle",
    "estimators_overwrite_params",
    "fit_idempotent",
    "methods_sample_order_invariance",
    "methods_subset_invariance",
)


@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor])
@pytest.mark.parametrize("check", OF_ENSEMBLES)
def test_some_of_them_with_several_models(kind, check):
    model = kind(n_models=2, hidden_size=4, epochs=5, random_state=0)
    getattr(estimator_checks, f"check_{check}")(kind.__name__, model)


# Sequences -------------------------------------------------------------------------------------------------------


def ragged(rng, count=60, features=2):
    """Sequences of 3 to 9 steps whose class is where in them the largest number is."""
    sequences = [rng.normal(size=(n, features)) for n in rng.integers(3, 10, count)]
    late = np.array([np.argmax(s[:, 0]) >= len(s) / 2 for s in sequences])
    return sequences, np.where(late, "late", "early")


def small(kind, **options):
    return kind(hidden_size=8, epochs=4, random_state=0, **options)


def test_every_form_of_x_is_the_same(rng):
    sequences, y = ragged(rng)
    lengths = [len(sequence) for sequence in sequences]
    whole = np.concatenate(sequences)
    one, other = small(RNNClassifier).fit(sequences, y), small(RNNClassifier).fit(whole, y, lengths)
    expected = one.predict_proba(sequences)
    np.testing.assert_array_equal(other.predict_proba(whole, lengths), expected)
    np.testing.assert_array_equal(one.predict_proba([s.tolist() for s in sequences]), expected)
    objects = np.empty(len(sequences), object)
    objects[:] = sequences
    np.testing.assert_array_equal(one.predict_proba(objects), expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-12)
    assert list(one.classes_) == ["early", "late"]
    np.testing.assert_array_equal(one.predict(sequences), one.classes_[expected.argmax(axis=1)])
    assert one.score(sequences, y) == other.score(whole, y, lengths) == np.mean(one.predict(sequences) == y)
    cube = rng.normal(size=(20, 5, 1))
    labels = np.arange(20) % 2
    of_cube, of_table = small(RNNClassifier).fit(cube, labels), small(RNNClassifier).fit(cube[:, :, 0], labels)
    np.testing.assert_array_equal(of_cube.predict_proba(cube), of_table.predict_proba(cube[:, :, 0]))
    np.testing.assert_array_equal(of_cube.predict_proba(cube[:, :3]), of_cube.predict_proba(cube[:, :3, 0]))


def test_a_sequence_is_judged_by_itself(rng):
    """The same bits alone and among others, more than are taken at once."""
    sequences, y = ragged(rng, 300)
    model = small(RNNClassifier, cell="lstm", bidirectional=True, num_layers=2, dropout=0.2).fit(sequences, y)
    together = model.predict_proba(sequences)
    alone = np.concatenate([model.predict_proba([sequence]) for sequence in sequences[::37]])
    np.testing.assert_array_equal(together[::37], alone)


@pytest.mark.parametrize("cell", [cell for cell, record in CELLS.items() if "eps" not in record.options])
def test_the_gradient_of_the_summary(rng, cell):
    """By finite differences in a random direction (norms are too curved for float32)."""
    from pyrnn.sklearn.network import Summary, recurrent

    net = Summary(recurrent("test", cell, 3, 4, 2, 0.0, bidirectional=True), 2, 0.0, rng)
    x, lengths, dy = rng.normal(size=(5, 3, 3)).astype("f4"), np.array([5, 0, 2]), rng.normal(size=(3, 2))
    y, pullback = net.vjp(x, lengths=lengths)
    pullback(dy.astype("f4"))
    steps = {name: rng.normal(size=value.shape) for name, value in net.params.items()}
    slope = sum(np.sum(net.grads[name] * step) for name, step in steps.items())
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        for name, step in steps.items():
            moved.params[name] += sign * 1e-3 * step
        ends.append(np.sum(moved(x, lengths=lengths).astype("f8") * dy))
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(slope, rel=0.02, abs=0.02)  # float32, and curvature
    if cell == "gru":
        alone, _ = net.vjp(x[:2, 2:], lengths=lengths[2:])
        np.testing.assert_array_equal(alone, y[2:])


def test_it_learns(rng):
    sequences, y = ragged(rng, 400)
    classifier = RNNClassifier(random_state=0).fit(sequences[:300], y[:300])
    assert classifier.score(sequences[300:], y[300:]) > 0.85
    numbers = np.array([[s[:, 0].sum(), s[:, 1].max()] for s in sequences])
    regressor = RNNRegressor(random_state=0).fit(sequences[:300], numbers[:300])
    assert regressor.predict(sequences[:5]).shape == (5, 2)
    assert regressor.score(sequences[300:], numbers[300:]) > 0.85
    assert regressor.network_.num_parameters == 3 * 32 * (2 + 32 + 2) + 2 * (3 * 32 + 1)


@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor, RNNForecaster])
def test_the_same_bits_for_any_threads(rng, kind):
    if kind is RNNForecaster:
        arguments = (rng.normal(size=(150, 2)),)
    else:
        sequences, y = ragged(rng)
        arguments = sequences, y == "late"

    def run(threads, seed=0):
        with pyrnn.threads(threads):
            model = kind(epochs=3, random_state=seed, dropout=0.1).fit(*arguments)
            return model.predict() if kind is RNNForecaster else model._outputs(arguments[0], None)

    expected = run(1)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(threads), expected)
    assert not np.array_equal(run(1, seed=1), expected)


def test_partial_fit_goes_on(rng):
    sequences, y = ragged(rng, 200)
    classifier = RNNClassifier(random_state=0)
    for _ in range(15):
        for part in range(0, 200, 50):
            rows = slice(part, part + 50)
            assert classifier.partial_fit(sequences[rows], y[rows], classes=["early", "late"]) is classifier
    assert classifier.score(sequences, y) > 0.85
    again = pickle.loads(pickle.dumps(classifier))
    for model in (classifier, again):  # with the optimiser's state
        model.partial_fit(sequences, y)
    np.testing.assert_array_equal(classifier.predict_proba(sequences), again.predict_proba(sequences))
    with pytest.raises(ValueError, match="y has the label 'never', expected those of"):
        classifier.partial_fit(sequences[:1], ["never"])
    with pytest.raises(ValueError, match=r"classes are .* expected those of the first call"):
        classifier.partial_fit(sequences[:1], ["late"], classes=["late", "never"])
    regressor = RNNRegressor(random_state=0)
    losses = [regressor.partial_fit(sequences, y == "late").history_.train[0] for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(ValueError, match=r"partial_fit: y has shape \(200, 2\), expected 1 outputs"):
        regressor.partial_fit(sequences, np.zeros((200, 2)))


def test_pipelines_and_searches(rng):
    x, y = rng.normal(size=(60, 6)), np.arange(60) % 2
    x[y == 1] += np.linspace(0, 2, 6)
    pipeline = make_pipeline(StandardScaler(), RNNClassifier(hidden_size=8, epochs=10, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.7
    sequences, labels = ragged(rng)
    search = GridSearchCV(small(RNNClassifier), {"hidden_size": [4, 8], "cell": ["gru", "lstm"]}, cv=3)
    search.fit(sequences, labels)
    assert len(search.cv_results_["params"]) == 4
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))


SEQUENCES = [np.zeros((3, 2)), np.zeros((4, 2))]


@pytest.mark.parametrize(
    ("x", "lengths", "match"),
    [
        ([np.zeros((3, 2)), np.zeros((4, 3))], None, r"RNNClassifier: X\[1\] has shape \(4, 3\), expected \(T, 2\)"),
        ([np.zeros(3), np.zeros(4)], None, r"RNNClassifier: X\[0\] has shape \(3,\), expected \(T, features\)"),
        (np.zeros((2, 3, 4, 5)), None, "dim 4|array with dim"),
        (np.zeros((7, 2)), [3, 3], "lengths are .*, expected .*, 7 in all"),
        (np.zeros((7, 2)), [3.0, 4.0], "lengths are .* integers"),
        (np.zeros((7, 2)), [-1, 8], "lengths are .* from 0 up"),
        ([np.zeros((3, 2)), np.full((4, 2), np.nan)], None, "NaN"),
        ([], None, "RNNClassifier: X is empty, expected at least one sequence"),
        ([np.zeros((0, 2)), np.zeros((0, 2))], None, "RNNClassifier: X has no steps in any of its sequences"),
        ([np.zeros((3, 2))], None, "inconsistent numbers of samples"),
    ],
)
def test_wrong_sequences(x, lengths, match):
    with pytest.raises(ValueError, match=match):
        small(RNNClassifier).fit(x, [0, 1], lengths)


@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor])
def test_what_is_masked_is_refused(kind):
    x, y = np.ones((4, 5, 2)), np.array([0, 1, 0, 1])
    hidden = np.ma.array(x, mask=x > 2)
    hidden[1, 2, 0] = np.ma.masked
    for form, name in ((hidden, "X"), (list(hidden), r"X\[1\]")):
        with pytest.raises(ValueError, match=f"{kind.__name__}: {name} is a masked array that hides 1"):
            small(kind).fit(form, y)
    with pytest.raises(ValueError, match=f"{kind.__name__}: y is a masked array that hides 2"):
        small(kind).fit(x, np.ma.masked_equal(y, 1))


def test_another_number_of_features():
    model = small(RNNClassifier).fit(SEQUENCES, [0, 1])
    with pytest.raises(ValueError, match="X has 3 features, but RNNClassifier is expecting 2 features"):
        model.predict(np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match="RNNClassifier: X has no steps"):
        model.predict([np.zeros((0, 2))])
    with pytest.raises(ValueError, match="cell is 'gnu', expected one of"):
        small(RNNClassifier, cell="gnu").fit(SEQUENCES, [0, 1])


# Forecasts -------------------------------------------------------------------------------------------------------


def waves(steps=240, series=2):
    t = np.arange(steps)[:, None]
    rng = np.random.default_rng(0)
    return 10 + np.sin(2 * np.pi * t / 12 + np.arange(series)) + 0.01 * t + 0.1 * rng.normal(size=(steps, series))


def forecaster(**options):
    return RNNForecaster(**{"horizon": 6, "hidden_size": 8, "epochs": 8, "random_state": 0} | options)


def test_a_forecast_is_better_than_that_nothing_changes():
    y = waves()
    model = forecaster(quantiles=(0.9, 0.1))
    errors = model.backtest(y, folds=2)
    assert list(errors) == ["model", "persistence", "seasonal_persistence"]
    assert all(error.shape == (6, 2) for error in errors.values())
    assert np.all(errors["model"].mean(axis=0) < errors["seasonal_persistence"].mean(axis=0))
    assert np.all(errors["model"].mean(axis=0) < 0.5 * errors["persistence"].mean(axis=0))
    assert not hasattr(model, "network_")
    lines = str(errors).splitlines()
    assert len(lines) == 8
    assert lines[-1].split()[0] == "all"
    assert float(lines[1].split()[1]) == pytest.approx(np.sqrt(np.mean(errors["model"][0] ** 2)), rel=1e-3)
    model.fit(y)
    assert model.season_ == 12
    quantiles = model.predict_quantiles(4)
    assert list(quantiles) == [0.9, 0.1]
    assert np.all(quantiles[0.1] < model.predict(4))
    assert np.all(model.predict(4) < quantiles[0.9])


def test_quantiles_do_not_cross(monkeypatch):
    """They are in order where the network's are not, each by its own name."""
    model = forecaster(quantiles=(0.5, 0.9, 0.1), epochs=1).fit(waves(series=1)[:, 0])
    given = np.array([[9.0, 3, 1, 2], [9, 1, 2, 3]])[None, :, None]  # (P, h, series, the forecast and three quantiles)
    monkeypatch.setattr(model, "_forecasts", lambda call, h, x: given)
    found = {quantile: np.ravel(values).tolist() for quantile, values in model.predict_quantiles(2).items()}
    assert found == {0.5: [2, 2], 0.9: [3, 3], 0.1: [1, 1]}


def test_the_baselines_of_a_backtest():
    y = waves(series=1)[:, 0]
    errors = forecaster(season=5).backtest(y, folds=3)
    true = pyrnn.baselines.ahead(y, 6)[191:]  # from the last step before the last fifth
    last = pyrnn.baselines.persistence(y, 6)[191:]
    np.testing.assert_allclose(errors["persistence"], np.sqrt(np.mean((true - last) ** 2, axis=0)), rtol=1e-12)
    ago = np.arange(191, 234)[:, None] + np.array([1, 2, 3, 4, 5, 1]) - 5
    season = np.sqrt(np.mean((true - y[ago]) ** 2, axis=0))
    np.testing.assert_allclose(errors["seasonal_persistence"], season, rtol=1e-12)


@pytest.mark.parametrize("known", [0, 2])
def test_update_is_the_series_as_a_whole(known, rng):
    """In pieces, step by step, after a copy and a pickle: the same bits; what was forecast before has no part in it."""
    y, x = waves(), rng.normal(size=(260, known)) if known else None
    part = (lambda a, b: None) if x is None else lambda a, b: x[a:b]
    model = forecaster(quantiles=(0.1, 0.5)).fit(y[:200], part(0, 200))
    ways = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    ways[0].update(y[200:], part(200, 240))
    for t in range(200, 240):
        ways[1].predict(9, part(t, t + 9))
        ways[1].update(y[t : t + 1], part(t, t + 1))
    for start in (200, 217):
        ways[2].update(y[start : start + 17 + 6 * (start > 200)], part(start, 217 if start == 200 else 240))
    expected = ways[0].predict(20, part(240, 260))
    for way in ways:
        np.testing.assert_array_equal(way.predict(20, part(240, 260)), expected)
        np.testing.assert_array_equal(way.predict(3, part(240, 243)), expected[:3])
    assert not np.array_equal(model.predict(3, part(240, 243)), expected[:3])


def test_a_forecast_is_the_network_at_the_end(rng):
    """What is seen is what its parts say, and the stream is the network on the whole series."""
    y = waves(series=1)
    model = forecaster().fit(y[:200])
    net, view = model.network_, model.network_.view
    z = model._y_scale(y[:200]).astype("f8")
    seen, unit = view(np.pad(z, ((view.reach, 0), (0, 0)), constant_values=np.nan), np.zeros((200, 0)), 0)
    inputs = np.concatenate([seen, unit[..., None]], axis=2).astype("f4")
    whole = net(inputs)[-1, 0]
    (running,) = model._running
    np.testing.assert_allclose(running.forecast(np.zeros((0, 0)))[:, 0, 0], z[-1, 0] + whole, rtol=1e-6)
    for t in (150, 199):  # by hand
        place = view.lags - 1
        np.testing.assert_allclose(seen[t, 0, 0], z[t, 0], rtol=1e-6)
        np.testing.assert_allclose(seen[t, 0, 1 : 1 + place], z[t - np.arange(1, 1 + place), 0] - z[t, 0], atol=1e-6)
        ago = z[t + np.arange(1, 7) - 12, 0] - z[t, 0]
        np.testing.assert_allclose(seen[t, 0, 1 + place : 7 + place], ago, atol=1e-6)
        angle = 2 * np.pi * t / 12
        np.testing.assert_allclose(seen[t, 0, -2:], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_the_gradient_of_the_network(rng):
    from pyrnn.sklearn.network import recurrent
    from pyrnn.sklearn.series import Network, View

    view = View(3, 2, 4, 2)
    net = Network(recurrent("test", "gru", view.features, 4, 1, 0.0), view, 2, 0.0, rng)
    for value in net.params.values():
        value[:] = 0.3 * rng.normal(size=value.shape)
    x, dy = rng.normal(size=(5, 3, view.features + 5)).astype("f4"), rng.normal(size=(5, 3, 6)).astype("f4")
    dy.reshape(5, 3, 2, 3)[..., 1:] = 0  # quantiles do not move the change, so theirs is no gradient of a loss
    _, pullback = net.vjp(x)
    pullback(dy)
    learned = [name for name in net.params if name.split(".")[0] in ("rnn", "head", "learned")]
    steps = {name: rng.normal(size=net.params[name].shape) for name in learned}
    slope, ends = sum(np.sum(net.grads[name] * step) for name, step in steps.items()), []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        for name, step in steps.items():
            moved.params[name] += sign * 1e-3 * step
        ends.append(np.sum(moved(x).astype("f8") * dy))
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(slope, rel=0.02, abs=0.02)
    assert not any(net.grads[name].any() for name in net.params if name not in learned)


def test_a_regression_finds_what_is_linear(rng):
    from pyrnn.sklearn.series import Regression

    seen, x = rng.normal(size=(2000, 4)), rng.normal(size=(2000, 3, 2))
    weights, effect = rng.normal(size=(4, 3)), rng.normal(size=2)
    found = Regression(seen, x, seen @ weights + x @ effect + [1, 2, 3])
    np.testing.assert_allclose(found.weights, weights, atol=0.01)
    np.testing.assert_allclose(found.effect, effect, atol=0.01)
    np.testing.assert_allclose(found.bias, [1, 2, 3], atol=0.01)
    assert np.abs(found.rest).max() < 0.05


def test_known_covariates_are_used(rng):
    x = rng.uniform(-1, 1, (300, 1))
    y = 3 * x[:, 0] + 0.1 * rng.normal(size=300)
    blind = forecaster().backtest(y)["model"]
    assert np.all(forecaster().backtest(y, X=x)["model"] < 0.3 * blind)


def test_seasons(rng):
    from pyrnn.sklearn.series import season_of

    t = np.arange(200)[:, None]
    assert season_of(np.sin(2 * np.pi * t / 7) + 0.05 * t) == 7
    assert season_of(rng.normal(size=(200, 1))) == 1
    assert season_of(np.zeros((50, 1))) == 1


def test_pandas_goes_in_and_comes_out():
    pandas = pytest.importorskip("pandas")
    y = waves()
    expected = forecaster(quantiles=(0.5,)).fit(y)
    plain = expected.predict(7)
    starts = {
        "D": pandas.date_range("2020-01-01", periods=240),
        "MS": pandas.date_range("2020-01-01", periods=240, freq="MS"),
        "M": pandas.period_range("2020-01", periods=240, freq="M"),
        "integers": pandas.RangeIndex(100, 340),
        "tens": pandas.Index(np.arange(0, 2400, 10)),
        "read": pandas.DatetimeIndex(pandas.date_range("2020-01-01", periods=240).astype(str)),  # without a freq
    }
    for name, index in starts.items():
        frame = pandas.DataFrame(y, index, columns=["a", "b"])
        model = forecaster(quantiles=(0.5,)).fit(frame)
        ahead = model.predict(7)
        assert isinstance(ahead, pandas.DataFrame), name
        np.testing.assert_array_equal(ahead.to_numpy(), plain)
        assert list(ahead.columns) == ["a", "b"]
        longer = index[-1] + (index[-1] - index[-2]) if name in ("tens", "integers", "read", "D") else index[-1]
        assert ahead.index[0] == longer or name in ("MS", "M")
        assert len(set(ahead.index[1:].append(ahead.index[:1]))) == 7
        assert model.predict_quantiles(2)[0.5].index.equals(ahead.index[:2])
        more = pandas.DataFrame(y[:3], ahead.index[:3], columns=["a", "b"])
        assert model.update(more).predict(1).index[0] == ahead.index[3]
        with pytest.raises(ValueError, match=r"update: the index of y is .* at step 0, expected "):
            model.update(more)
    months = forecaster().fit(pandas.Series(y[:, 0], starts["MS"], name="tide")).predict()
    assert months.name == "tide"
    assert list(months.index.strftime("%Y-%m-%d"))[:2] == ["2040-01-01", "2040-02-01"]
    with pytest.raises(ValueError, match=r"the index of y, .*, does not say how it goes on"):
        forecaster().fit(pandas.Series(y[:, 0], [f"step {k}" for k in range(240)]))


def test_an_index_with_a_gap_is_refused(rng):
    pandas = pytest.importorskip("pandas")
    y = waves()
    dates = pandas.date_range("2020-01-01", periods=250)
    irregular = [np.delete(np.arange(250), range(100, 110)), np.r_[0:100, 99, 100:239], rng.permutation(240)]
    for places in irregular:
        for index in (dates, dates.to_period("D"), pandas.RangeIndex(250)):
            with pytest.raises(ValueError, match=r"RNNForecaster: the index of y, .*, does not say how it goes on"):
                forecaster().fit(pandas.DataFrame(y, index[places]))
    with pytest.raises(ValueError, match=r"index of y, 2020-01-01 00:00:00, 2020-01-02 .* array; y\.asfreq\('D'\)"):
        forecaster().fit(pandas.DataFrame(y, dates[irregular[0]]))
    for index in (dates, dates.to_period("D"), pandas.RangeIndex(250)):
        x = pandas.DataFrame(y, index[:240])
        with pytest.raises(ValueError, match=r"RNNForecaster.fit: the index of X is .* at step 0, expected .*"):
            forecaster().fit(x, x.set_axis(index[1:241]))
        model = forecaster(epochs=1).fit(x, x)
        covariates = pandas.DataFrame(y[:6], index[240:246])
        before = model.predict(X=covariates)
        assert before.index.equals(index[240:246])
        with pytest.raises(ValueError, match=r"RNNForecaster.predict: the index of X is .* at step 0, expected"):
            model.predict(X=covariates.set_axis(index[:6]))
        for places in ([240, 242, 243], [240, 241, 241], [241, 242, 243], [240, 242, 241]):
            wrong = covariates[:3].set_axis(index[places])
            for given in ((wrong, covariates[:3]), (covariates[:3], wrong)):
                with pytest.raises(ValueError, match=r"update: the index of [Xy] is .* at step [012], expected"):
                    model.update(*given)
        pandas.testing.assert_frame_equal(model.predict(X=covariates), before)
        assert model.update(covariates[:3], covariates[:3]).predict(1, y[:1]).index[0] == index[243]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m, y: forecaster().fit(y[:15]), "y has 15 steps, expected at least"),
        (lambda m, y: forecaster().fit(np.where(y > 11, np.nan, y)), "NaN"),
        (lambda m, y: forecaster(horizon=0).fit(y), "RNNForecaster: horizon is 0"),
        (lambda m, y: forecaster(quantiles=(1.5,)).fit(y), r"RNNForecaster: quantiles\[0\] is 1.5"),
        (lambda m, y: m.fit(np.ma.masked_greater(y, 11)), "RNNForecaster: y is a masked array that hides"),
        (lambda m, y: m.fit(y, np.ma.masked_greater(y, 11)), "RNNForecaster.fit: X is a masked array that hides"),
        (lambda m, y: forecaster(validation_fraction=0.99).fit(y), "too few to hold"),
        (lambda m, y: m.predict(0), "predict: h is 0"),
        (lambda m, y: m.predict(6, np.zeros((6, 1))), r"X has shape \(6, 1\), expected \(6, 0\)"),
        (lambda m, y: m.predict_quantiles(3), "none were trained"),
        (lambda m, y: forecaster(quantiles=[0.1]).fit(y).predict_quantiles(7), "h is 7, expected 1 to 6"),
        (lambda m, y: m.update(y[:3, :1]), r"update: y has shape \(3, 1\), expected 2 series"),
        (lambda m, y: m.backtest(y[:29]), "too few for 6 within its last fifth"),
        (lambda m, y: forecaster().fit(y, y[:-1]), r"fit: X has shape \(239, 2\), expected \(240, 2\)"),
        (lambda m, y: forecaster().fit(y, y).predict(), r"predict: X is missing, expected \(6, 2\)"),
    ],
)
def test_wrong_forecasts(call, match):
    y = waves()
    model = forecaster(epochs=1).fit(y)
    before = model.predict()
    with pytest.raises(ValueError, match=match):
        call(model, y)
    np.testing.assert_array_equal(model.predict(), before)


@pytest.mark.filterwarnings("error")
def test_the_size_of_numbers(rng):
    """Where it is none that the arithmetic holds it is refused; below that it changes nothing."""
    y, x, targets = waves(80), rng.normal(size=(8, 5, 2)), rng.normal(size=8)
    expected = forecaster(epochs=1).fit(y).predict()
    for size in (2.0**300, 2.0**-300):
        np.testing.assert_array_equal(forecaster(epochs=1).fit(y * size).predict(), expected * size)
    model = small(RNNRegressor).fit(x, targets)
    for size in (1e160, 1e300, 1e-170, 1e-300):
        with pytest.raises(ValueError, match=r"RNNForecaster: y has numbers up to .* in size, expected 1e-100 to 1e"):
            forecaster().fit(y * size)
        with pytest.raises(ValueError, match="RNNForecaster: X has numbers up to"):
            forecaster().fit(y, y * size)
        with pytest.raises(ValueError, match=r"RNNForecaster: y has numbers up to .* in size, expected 1e-30 to 1e"):
            forecaster(standardize=False).fit(y * size)
        for kind in (RNNRegressor, RNNClassifier):
            with pytest.raises(ValueError, match=f"{kind.__name__}: X has numbers up to"):
                small(kind).fit(x * size, targets > 0)
        with pytest.raises(ValueError, match="RNNRegressor: y has numbers up to"):
            small(RNNRegressor).fit(x, targets * size)
    with pytest.raises(ValueError, match=r"RNNRegressor: X has .*, which is beyond a float32 in the scale of fit"):
        model.predict(x * 1e300)
    going = forecaster(epochs=1).fit(y)
    with pytest.raises(ValueError, match=r"RNNForecaster: y has .*, which is beyond a float32"):
        going.update(y[:1] * 1e100)
    with pytest.raises(ValueError, match="RNNForecaster: X has numbers up to"):
        going.fit(2 * y, y * 1e160)
    np.testing.assert_array_equal(going.predict(), expected)


# Several models -------------------------------------------------------------------------------------------------


def with_one_network(model, network):
    """The estimator as if it had this one alone."""
    other = copy.deepcopy(model)
    other.network_ = network
    return other


@pytest.mark.parametrize("how", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_the_mean_of_sequence_models(rng, how):
    sequences, y = ragged(rng)
    numbers = np.array([[s[:, 0].sum(), s[:, 1].max()] for s in sequences])
    options = {"n_models": 3, "cell": "lstm", "bidirectional": True, "dropout": 0.1}
    classifier = how(small(RNNClassifier, **options).fit(sequences, y))
    regressor = how(small(RNNRegressor, **options).fit(sequences, numbers))
    for model, call in ((classifier, classifier.predict_proba), (regressor, regressor.predict)):
        assert isinstance(model.network_, pyrnn.Population)
        assert np.shape(model.history_.train) == (4, 3)
        each = [with_one_network(model, one) for one in model.network_]
        of_each = [getattr(one, call.__name__)(sequences) for one in each]
        mean, std = call(sequences, return_std=True)
        assert not np.array_equal(of_each[0], of_each[1])
        np.testing.assert_allclose(mean, np.mean(of_each, axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, np.std(of_each, axis=0), rtol=1e-9)
        np.testing.assert_array_equal(call(sequences), mean)
        np.testing.assert_array_equal(call(sequences[7:8]), mean[7:8])
        assert model.partial_fit(sequences, y if model is classifier else numbers) is model
    likeliest = classifier.predict_proba(sequences).argmax(axis=1)
    np.testing.assert_array_equal(classifier.predict(sequences), classifier.classes_[likeliest])


def test_the_mean_of_forecasters(rng):
    """Each goes on from its own forecasts."""
    y, x = waves(), rng.normal(size=(260, 1))
    model = forecaster(n_models=3, quantiles=(0.1, 0.9), epochs=3).fit(y[:200], x[:200])
    model = pickle.loads(pickle.dumps(model)).update(y[200:], x[200:240])
    each = [copy.deepcopy(model) for _ in range(3)]
    for k, one in enumerate(each):
        one._running = one._running[k : k + 1]
    for h in (None, 15):
        ahead = x[240 : 240 + (h or 6)]
        of_each = [one.predict(h, ahead) for one in each]
        mean, std = model.predict(h, ahead, return_std=True)
        np.testing.assert_allclose(mean, np.mean(of_each, axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, np.std(of_each, axis=0), rtol=1e-9)
        assert std.min() > 0
        np.testing.assert_array_equal(model.predict(h, ahead), mean)
    quantiles = model.predict_quantiles(X=ahead[:6])
    of_each = [one.predict_quantiles(X=ahead[:6])[0.9] for one in each]
    np.testing.assert_allclose(quantiles[0.9], np.mean(of_each, axis=0), rtol=1e-12)
    errors = model.backtest(y[:150])
    assert np.all(errors["model"].mean(axis=0) < errors["persistence"].mean(axis=0))


def test_several_models_are_cloned_saved_and_loaded(rng, tmp_path):
    sequences, y = ragged(rng)
    model = small(RNNClassifier, n_models=2).fit(sequences, y)
    again = clone(model).set_params(random_state=1).fit(sequences, y)
    assert again.get_params()["n_models"] == len(again.network_) == 2
    expected = model.predict_proba(sequences)
    assert not np.array_equal(again.predict_proba(sequences), expected)
    pyrnn.save(tmp_path / "networks.safetensors", model.network_)
    pyrnn.load(tmp_path / "networks.safetensors", into=again.network_)
    np.testing.assert_array_equal(again.predict_proba(sequences), expected)


def test_spread_where_models_agree_and_pandas():
    pandas = pytest.importorskip("pandas")
    y = pandas.Series(waves(series=1)[:, 0], pandas.RangeIndex(5, 245), name="tide")
    model = forecaster(n_models=2, epochs=0).fit(y)
    mean, std = model.predict(8, return_std=True)  # all of them are the regressions alone
    assert (mean.name, std.name) == ("tide", "tide")
    assert std.index.equals(mean.index)
    assert std[:6].max() == 0
    np.testing.assert_array_equal(mean, forecaster(epochs=0).fit(y).predict(8))


@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor, RNNForecaster])
def test_the_number_of_models(rng, kind):
    arguments = (waves(),) if kind is RNNForecaster else (rng.normal(size=(20, 5)), np.arange(20) % 2)
    model = kind(epochs=1, random_state=0).fit(*arguments)
    call = (lambda m, **given: m.predict_proba(arguments[0], **given)) if kind is RNNClassifier else (
        lambda m, **given: m.predict(*([] if kind is RNNForecaster else arguments[:1]), **given)
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"{kind.__name__}.predict.*: return_std of one model, expected several"):
        call(model, return_std=True)
    with pytest.raises(TypeError, match=rf"{kind.__name__}.predict.*: return_std is 'yes'"):
        call(model, return_std="yes")
    for wrong, error in ((0, ValueError), (2.5, TypeError), ("3", TypeError)):
        with pytest.raises(error, match=f"{kind.__name__}: n_models is"):
            kind(n_models=wrong, epochs=1).fit(*arguments)


def test_before_and_after_a_fit():
    from sklearn.exceptions import NotFittedError

    for call in (RNNForecaster.predict, RNNForecaster.predict_quantiles, lambda m: m.update([1.0])):
        with pytest.raises(NotFittedError):
            call(forecaster())
    with pytest.raises(TypeError, match=r"RNNForecaster: quantiles is 0.5, expected numbers in a row"):
        forecaster(quantiles=0.5).fit(waves())
    model = forecaster(quantiles=(0.5,), epochs=1).fit(waves())
    assert model.set_params(horizon=9).predict_quantiles()[0.5].shape == (6, 2)  # the horizon that was fitted


@pytest.mark.filterwarnings("ignore")
def test_sktimes_own():
    checks = pytest.importorskip("sktime.utils.estimator_checks")
    from pyrnn.sklearn.sktime import SktimeForecaster

    results = checks.check_estimator(SktimeForecaster, verbose=False)
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}


def test_the_guide_runs(monkeypatch, tmp_path):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrnn.plots.style._png", lambda *_: b"")  # what is drawn is for test_plots.py, and takes long
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(DOCS), "exec"), names)
