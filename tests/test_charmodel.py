"""The character model: against models worked out by hand, and training that goes on where it stopped, to the bit."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

import pyrnn
from pyrnn import charmodel, files
from pyrnn.charmodel import CharModel, Length, Resumed, Settings, Trainer
from pyrnn.text import Corpus, Vocabulary

TEXT = "".join(f"line {k}: the {'quick' if k % 3 else 'lazy'} fox jümps over {k * 7919 % 97} dogs\n" for k in range(40))
SMALL = Settings(cell="lstm", hidden=12, layers=1, embed=5, batch=4, steps=16, lr=0.01, seed=3)


def bigram_model(text):
    """A model made by hand that predicts each character from the one before, with the text's own frequencies (+1).

    The state is one-hot: tanh(20) is 1 in float32. Returned with the probabilities, worked out in plain Python.
    """
    vocabulary = Vocabulary.of(text)
    size = len(vocabulary)
    counts = Counter(itertools.pairwise(text))
    totals = Counter(text[:-1])
    probability = {
        (a, b): (counts[a, b] + 1) / (totals[a] + size) for a in vocabulary.characters for b in vocabulary.characters
    }
    table = [[math.log(probability[a, b]) for a in vocabulary.characters] for b in vocabulary.characters]
    model = CharModel(vocabulary, "rnn", embed=size, hidden=size)
    zero = np.zeros(size)
    model.load_state_dict({
        "embed.weight": np.eye(size),
        "rnn.weight_ih_l0": 20 * np.eye(size),
        "rnn.weight_hh_l0": np.zeros((size, size)),
        "rnn.bias_ih_l0": zero,
        "rnn.bias_hh_l0": zero,
        "head.weight": table,
        "head.bias": zero,
    })  # fmt: skip
    return model, probability


# ---------------------------------------------------------------------------------------------------- using a model


@pytest.mark.parametrize("cell", charmodel.CELLS)
def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary(cell):
    vocabulary = Vocabulary.of(TEXT)
    model = CharModel(vocabulary, cell, 4, 8, rng=0)
    model.params["head.weight"] = np.zeros((len(vocabulary), 8))
    model.params["head.bias"] = np.zeros(len(vocabulary))
    for streams in (1, 7):
        bits = charmodel.bits_per_character(model, vocabulary.encode(TEXT), streams)
        assert bits == pytest.approx(math.log2(len(set(TEXT))), rel=1e-6)
    assert charmodel.uniform_bits(model) == math.log2(len(set(TEXT)))


def test_bits_of_a_model_made_by_hand():
    model, probability = bigram_model(TEXT)
    expected = -sum(math.log2(probability[pair]) for pair in itertools.pairwise(TEXT)) / (len(TEXT) - 1)
    numbers = model.vocabulary.encode(TEXT)
    assert charmodel.bits_per_character(model, numbers) == pytest.approx(expected, rel=1e-6)
    # This model looks one character back, and every part begins with a character that is read: any cut is exact.
    for streams in (2, 7, 100, len(TEXT) - 2, len(TEXT) + 5):
        assert charmodel.bits_per_character(model, numbers, streams) == pytest.approx(expected, rel=1e-6)


def test_one_stream_is_the_text_read_step_by_step():
    model = CharModel(Vocabulary.of(TEXT), "gru", 4, 8, layers=2, rng=0)
    numbers = model.vocabulary.encode(TEXT)
    step, nats = model.stream(), 0.0
    for before, after in itertools.pairwise(numbers):
        logits = step(before).astype(np.float64)
        nats += np.log(np.sum(np.exp(logits))) - logits[after]
    assert len(numbers) > 512  # more than one chunk
    assert charmodel.bits_per_character(model, numbers) == pytest.approx(nats / (len(TEXT) - 1) / math.log(2), rel=1e-6)


def test_streams_are_parts_read_from_zero():
    model = CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0)
    numbers = model.vocabulary.encode(TEXT[:100])
    bits = [charmodel.bits_per_character(model, numbers[k : k + 26]) * len(numbers[k : k + 25]) for k in (0, 25, 50)]
    bits.append(charmodel.bits_per_character(model, numbers[75:]) * 24)
    assert charmodel.bits_per_character(model, numbers, 4) == pytest.approx(sum(bits) / 99, rel=1e-6)


def test_bits_refuse_a_short_text():
    model, _ = bigram_model("ab")
    for length in (0, 1):
        with pytest.raises(ValueError, match=f"it has {length} characters, at least two"):
            charmodel.bits_per_character(model, np.zeros(length, np.int32))


def test_dropout_acts_in_training_alone():
    model = CharModel(Vocabulary.of(TEXT), "gru", 4, 8, layers=2, dropout=0.5, rng=0)
    numbers = model.vocabulary.encode(TEXT)[:40, None]
    (first, _), _ = model.vjp(numbers)
    (second, _), _ = model.vjp(numbers)
    assert not np.array_equal(first, second)
    assert np.array_equal(model(numbers)[0], model(numbers)[0])
    # Its mean over masks is the model without, as far as the head goes: that one is linear.
    model.params["rnn.weight_ih_l1"] = np.zeros((24, 8))
    mean = np.mean([model.vjp(numbers)[0][0] for _ in range(400)], axis=0)
    np.testing.assert_allclose(mean, model(numbers)[0], atol=0.05)


def test_a_gradient_step_lowers_the_loss_as_much_as_it_says():
    corpus = Corpus(TEXT)
    for cell in charmodel.CELLS:
        model = CharModel(corpus.vocabulary, cell, 5, 12, layers=2, rng=0)
        inputs, targets = corpus.train[:240].reshape(4, 60).T, corpus.train[1:241].reshape(4, 60).T

        def loss(model=model, inputs=inputs, targets=targets):
            return pyrnn.cross_entropy(model(inputs)[0].astype(np.float64), targets)[0]

        (logits, _), pullback = model.vjp(inputs)
        np.testing.assert_array_equal(logits, model(inputs)[0])
        before, dlogits = pyrnn.cross_entropy(logits, targets)
        model.zero_grad()
        pullback(dlogits)
        ((params, grads),) = model.buffers.values()
        squared = float(np.sum(grads.astype(np.float64) ** 2))
        params -= 0.02 / squared * grads
        assert before - loss() == pytest.approx(0.02, rel=0.1)


def test_the_likeliest_character_follows_at_temperature_0():
    model, _ = bigram_model("abcabcabcabc")
    assert "".join(charmodel.sample(model, "ab", 7, 0)) == "cabcabc"
    assert "".join(charmodel.sample(model, "", 4, 0)) == "bcab"  # no line end here: it begins after the first character
    assert "".join(charmodel.sample(model, "ab", 0, 0)) == ""
    model, _ = bigram_model("x\nax\nax\na")
    assert "".join(charmodel.sample(model, "", 4, 0)) == "ax\na"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_have_the_frequencies_of_the_model(temperature):
    text = "aab" * 10 + "abc" * 10
    model, probability = bigram_model(text)
    written = "a" + "".join(charmodel.sample(model, "a", 6000, temperature, rng=1))
    follows = Counter(itertools.pairwise(written))
    for a in "abc":
        powers = {b: probability[a, b] ** (1 / temperature) for b in "abc"}
        total = sum(follows[a, b] for b in "abc")
        for b in "abc":
            expected = powers[b] / sum(powers.values())
            deviation = math.sqrt(expected * (1 - expected) / total)
            assert follows[a, b] / total == pytest.approx(expected, abs=5 * deviation + 1e-9)


def test_samples_follow_the_seed():
    model = CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0)
    first, again, other = ("".join(charmodel.sample(model, "the", 50, 1.0, rng=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert "".join(charmodel.sample(model, "fox", 50, 1e-30, rng=1)) == "".join(charmodel.sample(model, "fox", 50, 0))


def test_sample_refuses():
    model, _ = bigram_model("ab")
    for temperature in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            charmodel.sample(model, "a", 1, temperature)
    with pytest.raises(ValueError, match=r"prompt: .*'Ж'"):
        charmodel.sample(model, "aЖ", 1)
    model.params["head.bias"] = [math.nan, 0]
    with pytest.raises(ValueError, match="not finite"):
        list(charmodel.sample(model, "a", 1))


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("cell", charmodel.CELLS)
def test_a_model_file_holds_the_model(tmp_path, cell):
    model = CharModel(Vocabulary.of(TEXT), cell, 4, 8, layers=3, rng=0)
    charmodel.save_model(tmp_path / "m", model, {"lr": 1})
    read = charmodel.load_model(tmp_path / "m")
    assert read.vocabulary.characters == model.vocabulary.characters
    assert read.sizes == model.sizes
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(read.params[name], array)


def test_load_model_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "m"
    weights, description = charmodel.model_file(CharModel(Vocabulary.of("abc"), "lstm", 4, 8, rng=0), {})
    model = description["model"]
    for change, message in [
        ({"version": 2}, "version 2"),
        ({"model": model | {"cell": "elman"}}, "elman"),
        ({"model": model | {"hidden": 10**12}}, "sizes"),
        ({"model": model | {"layers": 10**12}}, "missing"),
        ({"model": model | {"layers": "1"}}, "m: "),
        ({"model": model | {"more": 1}}, "more"),
        ({"model": None}, "m: "),
        ({"vocabulary": "abcd"}, "sizes"),
        ({"vocabulary": "acb"}, "not sorted"),
        ({"vocabulary": 7}, "m: "),
    ]:
        files.save(path, weights, description | change)
        with pytest.raises(ValueError, match=message):
            charmodel.load_model(path)
    del description["model"]
    files.save(path, weights, description)
    with pytest.raises(ValueError, match="'model' is missing"):
        charmodel.load_model(path)


# ---------------------------------------------------------------------------------------------------- training


class StopAfter:
    """A `stop` that says so from its n-th call on."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self):
        self.calls -= 1
        return self.calls < 0


def contents(trainer):
    """All that a run leaves behind, but for the time it took."""
    resumed = Resumed.read(trainer.path)
    times = ("seconds", "validating")
    progress = {name: value for name, value in resumed.progress.items() if name not in times}
    arrays = {name: (array.dtype, array.shape, array.tobytes()) for name, array in resumed.arrays.items()}
    with open(trainer.path, "rb") as file:
        return arrays, progress, resumed.curve, file.read()


@pytest.mark.parametrize(("cell", "layers", "dropout"), [("lstm", 1, 0.0), ("gru", 2, 0.3), ("rnn", 1, 0.5)])
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(tmp_path, cell, layers, dropout):
    settings = Settings(**(vars(SMALL) | {"cell": cell, "layers": layers, "dropout": dropout}))
    corpus, length = Corpus(TEXT), Length(epochs=3)
    whole = Trainer(corpus, settings, length, tmp_path / "whole")
    whole.run()
    assert whole.finished
    assert whole.epoch == 3
    assert len(whole.curve.valid) == 3
    calls = 3 * len(whole.batches)  # of `stop`, at least: some fall into a validation
    for number, stops in enumerate(([0], [2] * 40, [5, calls // 2, 7, 0, 3], [calls])):
        trainer = Trainer(corpus, settings, length, tmp_path / f"{number}")
        for stop in stops:
            trainer.run(StopAfter(stop))
            trainer = Trainer.resume(Resumed.read(trainer.path), corpus, length, trainer.path)
        trainer.run()
        assert contents(trainer) == contents(whole), stops


def test_a_stop_in_a_validation_loses_nothing(tmp_path):
    corpus, length = Corpus(TEXT), Length(epochs=1)
    trainer = Trainer(corpus, SMALL, length, tmp_path / "m")
    trainer.run(StopAfter(len(trainer.batches) + 1))
    assert trainer.epoch == 1
    assert not trainer.finished
    assert trainer.best_bits is None
    assert charmodel.load_model(tmp_path / "m").sizes["hidden"] == 12  # there is a model from the first stop on
    trainer = Trainer.resume(Resumed.read(tmp_path / "m"), corpus, length, tmp_path / "m")
    trainer.run()
    assert trainer.finished
    assert trainer.best_bits is not None


def test_the_best_model_is_kept(tmp_path):
    """Training on a text whose end is like nothing before it: the held-out loss rises after a while."""
    corpus = Corpus("abcd" * 100 + "dbca" * 11)
    settings = Settings(hidden=16, embed=4, batch=2, steps=16, lr=0.02)
    trainer = Trainer(corpus, settings, Length(epochs=20), tmp_path / "m")
    trainer.run()
    losses = [bits for _, bits in trainer.curve.valid]
    assert len(losses) == 20
    assert trainer.best_bits == min(losses) < losses[-1]
    best = charmodel.load_model(tmp_path / "m")
    assert charmodel.bits_per_character(best, corpus.valid, settings.batch) == trainer.best_bits
    _, description = files.load(tmp_path / "m", charmodel.MODEL_KIND)
    assert description["training"]["valid_bits_per_char"] == trainer.best_bits
    assert description["training"]["epochs"] == losses.index(min(losses)) + 1


def test_training_learns(tmp_path):
    corpus = Corpus("abcdefg" * 60)
    settings = Settings(hidden=16, embed=8, batch=2, steps=16, lr=0.02)
    trainer = Trainer(corpus, settings, Length(epochs=12), tmp_path / "m")
    trainer.run()
    assert trainer.best_bits < 0.2 < trainer.curve.train[0][1]
    assert "".join(charmodel.sample(charmodel.load_model(tmp_path / "m"), "abc", 7, 0)) == "defgabc"


def test_the_state_is_carried_and_zero_at_the_start_of_a_pass(tmp_path, monkeypatch):
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=2), tmp_path / "m")
    before, after, vjp = [], [None], trainer.model.vjp

    def watched(tokens, state):
        before.append(state)
        (logits, state), pullback = vjp(tokens, state)
        after.append(state)
        return (logits, state), pullback

    monkeypatch.setattr(trainer.model, "vjp", watched)
    trainer.run()
    assert len(before) == 2 * len(trainer.batches)
    for k, state in enumerate(before):
        assert state is (None if k % len(trainer.batches) == 0 else after[k])


def test_a_run_of_seconds_ends_and_validates(tmp_path):
    trainer = Trainer(Corpus(TEXT), SMALL, Length(seconds=0.05), tmp_path / "m")
    reports = []
    trainer.run(report=lambda: reports.append(trainer.progress))
    assert trainer.finished
    assert trainer.best_bits is not None
    assert trainer.seconds >= 0.05
    assert reports == sorted(reports)
    assert reports[-1] == 1
    assert trainer.chars_per_second == trainer.characters / (trainer.seconds - trainer.validating) > 0


def test_the_learning_rate_falls_at_the_end(tmp_path):
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=10), tmp_path / "m")
    rates = []
    trainer.run(report=lambda: rates.append(trainer.optimiser.lr))
    assert rates[0] == SMALL.lr
    assert rates == sorted(rates, reverse=True)
    assert rates[int(0.65 * len(rates))] == SMALL.lr
    assert 0.1 < rates[-1] / SMALL.lr < 0.15


def test_equal_seeds_give_equal_files(tmp_path):
    data = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        Trainer(Corpus(TEXT), Settings(**(vars(SMALL) | {"seed": seed})), Length(epochs=1), tmp_path / name).run()
        data.append((tmp_path / name).read_bytes())
    assert data[0] == data[1] != data[2]


def test_resume_refuses(tmp_path):
    length = Length(epochs=1)
    with pytest.raises(FileNotFoundError, match=r"m\.resume\.safetensors: no such file"):
        Resumed.read(tmp_path / "m.safetensors")
    trainer = Trainer(Corpus(TEXT), SMALL, length, tmp_path / "m.safetensors")
    trainer.run()
    resumed = Resumed.read(trainer.path)
    with pytest.raises(ValueError, match="not the one that the training"):
        Trainer.resume(resumed, Corpus(TEXT + "."), length, trainer.path)
    (tmp_path / "n.resume.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes())
    with pytest.raises(ValueError, match="holds no character model training"):
        Resumed.read(tmp_path / "n.safetensors")
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="it is the best model"):
        Trainer.resume(resumed, Corpus(TEXT), length, trainer.path)


def test_a_new_run_drops_the_state_of_an_old_one_before_its_model(tmp_path, monkeypatch):
    """Else a run killed between the two would be resumed as the old one, with the new one's model."""
    Trainer(Corpus(TEXT), SMALL, Length(epochs=1), tmp_path / "m").run()
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=2), tmp_path / "m")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    with pytest.raises(FileNotFoundError):
        Resumed.read(tmp_path / "m")


def test_a_learning_rate_far_too_high_is_said(tmp_path):
    settings = Settings(**(vars(SMALL) | {"lr": 1e38}))
    with pytest.raises(ValueError, match=r"batches: the learning rate 1e\+38 is too high"):
        Trainer(Corpus(TEXT), settings, Length(epochs=3), tmp_path / "m").run()


@pytest.mark.parametrize("reason", ["a number", "a report"])
def test_what_ends_a_training_does_not_lose_its_best_model(tmp_path, reason):
    Trainer(Corpus(TEXT), SMALL, Length(epochs=1), tmp_path / "m").run()
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=9), tmp_path / "m")

    def report():
        if trainer.epoch > 3 and reason == "a number":
            trainer.model.params["head.bias"] = np.full(len(trainer.corpus.vocabulary), math.nan)
        elif trainer.epoch > 3:
            raise RuntimeError("no report")

    with pytest.raises((ValueError, RuntimeError), match=r"has run off|no report"):
        trainer.run(report=report)
    best = charmodel.load_model(tmp_path / "m")
    assert charmodel.bits_per_character(best, trainer.corpus.valid, SMALL.batch) == trainer.best_bits
    assert trainer.saved_bits == trainer.best_bits
    with pytest.raises(FileNotFoundError):  # the state of the first run does not belong to this model
        Resumed.read(tmp_path / "m")


def test_a_best_model_that_cannot_be_saved_does_not_hide_the_reason(tmp_path, monkeypatch):
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=9), tmp_path / "m")

    def full(*_):
        raise OSError("disk full")

    def report():
        if trainer.epoch > 3:
            raise RuntimeError("no report")

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(RuntimeError, match="no report"):
        trainer.run(report=report)
    assert trainer.saved_bits is None


def test_a_long_held_out_text_is_cut_and_validated_more_often(tmp_path, monkeypatch):
    monkeypatch.setattr(charmodel, "VALIDATED", 50)
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=2), tmp_path / "m")
    trainer.run()
    assert len(trainer.valid) == 50
    assert len(trainer.curve.valid) > 2 * len(trainer.corpus.valid) // 50


def test_the_curve_stays_small():
    losses = np.random.default_rng(0).random(10_000).tolist()
    curve = charmodel.Curve()
    for k, loss in enumerate(losses):
        curve.add(3 * (k + 1), loss)
        if k % 997 == 0:
            curve = charmodel.Curve(**curve.as_dict())
    assert charmodel.CURVE / 2 <= len(curve.train) < charmodel.CURVE
    for k, (read, bits) in enumerate(curve.train):
        part = losses[k * curve.stretch : (k + 1) * curve.stretch]
        assert read == 3 * (k + 1) * curve.stretch
        assert bits == pytest.approx(sum(part) / len(part))
