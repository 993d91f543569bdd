"""The training loop: it is the loop written out, keeps the best parameters, and gives the same bits from a seed."""

import copy
import math

import numpy as np
import pytest

import pyrnn


def ragged(rng, count=40, features=3):
    """Sequences of 1 to 12 steps, and whether the sum of their first feature is above 0."""
    sequences = [rng.normal(size=(n, features)).astype("f4") for n in rng.integers(1, 13, count)]
    return sequences, np.array([sequence[:, 0].sum() > 0 for sequence in sequences]).astype(int)


def classifier(seed=0, dropout=0.0):
    return pyrnn.Sequential(pyrnn.GRU(3, 8), pyrnn.LastStep(), pyrnn.Dropout(dropout), pyrnn.Linear(8, 2), rng=seed)


def values(model):
    return np.concatenate([param.ravel() for param in model.params.values()])


def test_it_is_the_loop_written_out(rng):
    sequences, classes = ragged(rng)
    model, other = classifier(), classifier()
    history = pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, epochs=3, batch_size=16, rng=7)
    adam, order, losses = pyrnn.Adam(other), np.random.default_rng(7), []
    schedule = pyrnn.schedules.Cosine(adam, total=9)
    for _ in range(3):
        total = 0.0
        for rows in pyrnn.data.minibatches(40, 16, order):
            x, lengths = pyrnn.data.pad([sequences[n] for n in rows])
            other.zero_grad()
            logits, pullback = other.vjp(x, lengths=lengths)
            loss, dlogits = pyrnn.cross_entropy(logits, classes[rows])
            pullback(dlogits)
            pyrnn.clip_grad_norm(other, 1.0)
            adam.step()
            schedule.step()
            total += loss * len(rows)
        losses.append(total / 40)
    np.testing.assert_array_equal(values(model), values(other))
    np.testing.assert_allclose(history.train, losses, rtol=1e-14)
    assert (history.valid, history.best) == ([], 2)


def test_targets_by_step_count_the_steps(rng):
    """The mean over an epoch is that over its steps, whatever the batches; padding counts nowhere."""
    sequences, _ = ragged(rng)
    targets = [np.cumsum(sequence, axis=0) for sequence in sequences]
    model = pyrnn.Sequential(pyrnn.GRU(3, 8), pyrnn.Linear(8, 3), rng=0)
    errors = np.concatenate([(model(x) - t) ** 2 for x, t in zip(sequences, targets, strict=True)])
    still = pyrnn.SGD(model, lr=0.0)
    history = pyrnn.fit(model, sequences, targets, pyrnn.mean_squared_error, valid=(sequences, targets), epochs=1,
                        batch_size=7, optimizer=still, schedule=None, rng=0)  # fmt: skip
    np.testing.assert_allclose([*history.train, *history.valid], errors.mean(), rtol=1e-5)
    adam = pyrnn.Adam(model, lr=1e-2)
    history = pyrnn.fit(model, sequences, targets, pyrnn.mean_squared_error, epochs=30, optimizer=adam, rng=0)
    assert history.train[-1] < 0.7 * history.train[0]


def test_a_layer_and_an_array_of_sequences(rng):
    x = rng.normal(size=(20, 6, 3))  # (N, T, I)
    layer = pyrnn.GRU(3, 2, rng=0)
    history = pyrnn.fit(layer, x, list(np.tanh(x[..., :2])), pyrnn.mean_squared_error, epochs=4,
                        optimizer=pyrnn.Adam(layer, lr=0.02), rng=0)  # fmt: skip
    assert history.train[-1] < history.train[0]


def test_the_best_parameters_are_kept(rng):
    sequences, classes = ragged(rng, 30)
    wrong = 1 - classes[20:]  # what is learned makes it worse, sooner or later
    model, seen = classifier(), []
    history = pyrnn.fit(
        model, sequences[:20], classes[:20], pyrnn.cross_entropy, valid=(sequences[20:], wrong), epochs=40,
        optimizer=pyrnn.Adam(model, lr=0.03), schedule=None, patience=4, rng=0,
        callback=lambda history: seen.append((list(history.valid), values(model).copy())),
    )  # fmt: skip
    assert len(history.valid) == history.best + 1 + 4 < 40
    assert history.best == int(np.argmin(history.valid))
    np.testing.assert_array_equal(values(model), seen[history.best][1])
    x, lengths = pyrnn.data.pad(sequences[20:])
    loss, _ = pyrnn.cross_entropy(model(x, lengths=lengths), wrong)
    assert loss == pytest.approx(history.valid[history.best], rel=1e-6)


def test_the_models_of_a_population_are_fitted_as_if_alone(rng):
    """Each keeps what was best for it; the last of them ends the training."""
    sequences, classes = ragged(rng, 30)
    many = pyrnn.Population(classifier(dropout=0.2), size=3, rng=0)
    alone = [copy.deepcopy(model) for model in many]
    options = {"valid": (sequences[20:], classes[20:]), "schedule": None, "rng": 7}
    arguments = sequences[:20], classes[:20], pyrnn.cross_entropy
    history = pyrnn.fit(
        many, *arguments, epochs=60, patience=3, optimizer=pyrnn.Adam(many, lr=0.03), max_norm=0.3, **options
    )
    epochs = len(history.valid)
    assert epochs == history.best.max() + 1 + 3 < 60
    assert len(set(history.best.tolist())) > 1
    for k, model in enumerate(alone):
        own = pyrnn.fit(model, *arguments, epochs=epochs, optimizer=pyrnn.Adam(model, lr=0.03), max_norm=0.3, **options)
        np.testing.assert_array_equal(own.train, np.array(history.train)[:, k])
        np.testing.assert_array_equal(own.valid, np.array(history.valid)[:, k])
        assert own.best == history.best[k]
        np.testing.assert_array_equal(values(model), values(many[k]))


def test_targets_by_step_of_a_population(rng):
    sequences, _ = ragged(rng, 12)
    many = pyrnn.Population(pyrnn.GRU(3, 2), size=2, rng=0)
    targets = [np.tanh(sequence[:, :2]) for sequence in sequences]
    history = pyrnn.fit(many, sequences, targets, pyrnn.mean_squared_error, epochs=3, rng=0)
    assert np.array(history.train).shape == (3, 2)
    assert history.best.tolist() == [2, 2]
    with pytest.raises(ValueError, match="fit: the loss is nan in epoch 0"):
        pyrnn.fit(many, sequences, [np.nan * own for own in targets], pyrnn.mean_squared_error)
    with pytest.raises(ValueError, match="fit: the GRU has batch_first=True"):
        pyrnn.fit(pyrnn.Population(pyrnn.GRU(3, 2, batch_first=True), 2), sequences, targets, pyrnn.mean_squared_error)


def test_the_first_of_equal_epochs_is_the_best(rng):
    sequences, classes = ragged(rng)
    model = classifier()
    still = pyrnn.SGD(model, lr=0.0)
    history = pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, valid=0.2, epochs=9, optimizer=still,
                        schedule=None, patience=3, rng=0)  # fmt: skip
    assert (history.best, len(history.valid)) == (0, 4)


@pytest.mark.parametrize("how", ["callback", "interrupt"])
def test_the_end_comes_early(rng, how):
    """A callback that returns True, and Ctrl-C: the best parameters are there."""
    sequences, classes = ragged(rng)
    model, seen = classifier(), []

    def callback(history):
        seen.append(values(model).copy())
        if len(history.train) < 5:
            return len(seen)  # truthy, but not True
        if how == "interrupt":
            raise KeyboardInterrupt
        return True

    losses = iter([3.0, 1.0, 2.0, 4.0, 5.0])

    def loss(y, targets):
        value, dy = pyrnn.cross_entropy(y, targets)
        return (next(losses) if len(y) == 8 else value), dy

    arguments = (model, sequences[:32], classes[:32], loss)
    options = {"valid": (sequences[32:], classes[32:]), "callback": callback, "rng": 0}
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            pyrnn.fit(*arguments, **options)
    else:
        history = pyrnn.fit(*arguments, **options)
        assert history.valid == [3, 1, 2, 4, 5]
        assert history.best == 1
    np.testing.assert_array_equal(values(model), seen[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_bits_from_a_seed(rng, seed):
    sequences, classes = ragged(rng, 60)

    def run(count):
        with pyrnn.threads(count):
            model = classifier(seed, dropout=0.3)
            history = pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, valid=0.2, epochs=4, rng=seed)
        return values(model), history

    expected, history = run(1)
    for count in (1, 2, 3):
        found, other = run(count)
        np.testing.assert_array_equal(found, expected)
        assert other == history
    assert len(history.valid) == 4


def test_a_held_out_part_is_not_trained_on(rng):
    sequences, classes = ragged(rng)
    _, held_out = pyrnn.data.held_out(40, 0.25, np.random.default_rng(3))
    dirty = [sequence + (100.0 if n in held_out else 0) for n, sequence in enumerate(sequences)]
    models = [classifier(), classifier()]
    histories = [
        pyrnn.fit(model, x, classes, pyrnn.cross_entropy, valid=0.25, epochs=1, rng=3)
        for model, x in zip(models, (sequences, dirty), strict=True)
    ]
    assert histories[0].train == histories[1].train
    assert histories[0].valid != histories[1].valid
    np.testing.assert_array_equal(values(models[0]), values(models[1]))


def test_learning_rate(rng):
    sequences, classes = ragged(rng)
    rates = []
    for schedule in (None, pyrnn.schedules.Cosine, lambda adam, total: pyrnn.schedules.Step(adam, every=total // 2)):
        model = classifier()
        adam = pyrnn.Adam(model, lr=1e-2)
        pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, epochs=2, batch_size=10, optimizer=adam,
                  schedule=schedule, rng=0)  # fmt: skip
        rates.append(adam.lr)
    np.testing.assert_allclose(rates, [1e-2, 0, 1e-4], atol=1e-18)


def test_a_part_that_learns(rng):
    sequences, classes = ragged(rng)
    model = classifier()
    before = model.state_dict()
    pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, epochs=1, optimizer=pyrnn.Adam(model[3]), rng=0)
    moved = {
        name.split(".")[0] for name, value in model.state_dict().items() if not np.array_equal(value, before[name])
    }
    assert moved == {"3"}


def test_no_epochs(rng):
    sequences, classes = ragged(rng)
    model = classifier()
    before = values(model).copy()
    assert pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, epochs=0).best == -1
    np.testing.assert_array_equal(values(model), before)


X, Y = [np.ones((2, 3)), np.ones((4, 3))], [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"model": "GRU"}, TypeError, "fit: model is 'GRU', expected a layer or a model"),
        ({"targets": [0]}, ValueError, "fit: targets are 1, expected one for each of 2 sequences"),
        ({"targets": [[0, 1], [1, 1]]}, ValueError, r"fit: targets\[1\] has 2 steps, expected those of .*, 4"),
        ({"targets": ["a", "b"]}, TypeError, "fit: targets"),
        ({"sequences": [], "targets": []}, ValueError, "fit: no sequences are left to train on"),
        ({"valid": 1.0}, ValueError, "fit: no sequences are left to train on"),
        ({"valid": 1.5}, ValueError, "fit: valid is 1.5"),
        ({"valid": (X, Y, Y)}, ValueError, "fit: valid has 3 entries, expected sequences and targets"),
        ({"valid": (X, [1])}, ValueError, "fit: valid: targets are 1"),
        ({"valid": 0.1}, ValueError, "fit: valid selects none of 2 sequences, expected one at least, or None"),
        ({"valid": ([], [])}, ValueError, "fit: valid selects none"),
        ({"valid": (5, Y)}, TypeError, "fit: valid: sequences is 5, expected an array or a list"),
        ({"sequences": 5}, TypeError, "fit: sequences is 5, expected an array or a list"),
        ({"sequences": {0: X[0], 1: X[1]}}, TypeError, r"fit: sequences is .*, expected an array or a list"),
        ({"targets": 5}, TypeError, "fit: targets is 5, expected an array or a list"),
        ({"loss": 3}, TypeError, "fit: loss is 3, expected a function"),
        ({"loss": None}, TypeError, "fit: loss is None, expected a function"),
        ({"schedule": 3}, TypeError, "fit: schedule is 3, expected a function"),
        ({"schedule": lambda *_: 3}, TypeError, "fit: schedule returned 3, expected a pyrnn"),
        ({"schedule": lambda adam, _: pyrnn.schedules.Plateau(adam)}, TypeError, r"fit: schedule returned <?.*Plateau"),
        ({"callback": 3}, TypeError, "fit: callback is 3, expected a function"),
        ({"optimizer": 3}, TypeError, r"fit: optimizer is 3, expected one such as pyrnn.Adam\(model\)"),
        (
            {"optimizer": pyrnn.Adam(classifier())},
            ValueError,
            "fit: the Adam is of another Sequential, expected",
        ),
        ({"model": pyrnn.GRU(3, 2, batch_first=True)}, ValueError, "fit: the GRU has batch_first=True, expected one"),
        (
            {"model": pyrnn.Sequential(pyrnn.GRU(3, 2, batch_first=True), pyrnn.LastStep(batch_first=True))},
            ValueError,
            "fit: the GRU has batch_first=True",
        ),
        ({"epochs": -1}, ValueError, "fit: epochs is -1"),
        ({"batch_size": 0}, ValueError, "fit: batch_size is 0"),
        ({"patience": 0}, ValueError, "fit: patience is 0"),
        ({"max_norm": -1}, ValueError, "fit: max_norm is -1"),
        ({"progress": "yes"}, TypeError, "fit: progress"),
        (
            {"sequences": [X[0], np.full((4, 3), np.nan)]},
            ValueError,
            "fit: the loss is nan in epoch 0: .*learning rate",
        ),
    ],
)
def test_wrong_arguments(arguments, error, match):
    model = classifier()
    before = values(model).copy()
    given = {"model": model, "sequences": X, "targets": Y, "loss": pyrnn.cross_entropy} | arguments
    with pytest.raises(error, match=match):
        pyrnn.fit(**given)
    np.testing.assert_array_equal(values(model), before)


def test_a_loss_that_is_not_finite_leaves_the_best(rng):
    sequences, classes = ragged(rng)
    model, seen = classifier(), []

    def loss(y, targets):
        value, dy = pyrnn.cross_entropy(y, targets)
        return (math.inf if len(seen) == 2 else value), dy

    with pytest.raises(ValueError, match="the loss is inf in epoch 2"):
        pyrnn.fit(model, sequences, classes, loss, valid=(sequences, classes), schedule=None, rng=0,
                  callback=lambda history: seen.append(values(model).copy()))  # fmt: skip
    assert any(np.array_equal(values(model), one) for one in seen)
