"""The character model: against models worked out by hand, and training that goes on where it stopped, to the bit."""

import dataclasses
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

import pyrnn
from pyrnn.app import charmodel, run
from pyrnn.app import trainer as training
from pyrnn.app.charmodel import CharModel
from pyrnn.app.trainer import Length, Resumed, Settings, Trainer
from pyrnn.core import files
from pyrnn.text.corpus import Corpus, Vocabulary

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
        step = 1e-4  # so short that the loss falls in a straight line, through norms too
        params -= step / squared * grads
        assert before - loss() == pytest.approx(step, rel=0.1)


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
        ({"model": model | {"layers": 10**12}}, "sizes"),
        ({"model": model | {"embed": 5, "hidden": 7}}, "sizes"),
        ({"model": model | {"hidden": -8}}, "hidden is -8, expected at least 1"),
        ({"model": model | {"embed": 4.0}}, "embed is 4.0, expected an integer"),
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


@pytest.mark.parametrize("extra", ["\ud800", "\ud83d\ude00", "\ud83d\U0001f600"])
def test_halves_of_surrogate_pairs_in_a_vocabulary(tmp_path, extra):
    """A high and a low one beside each other stay two characters."""
    model = CharModel(Vocabulary.of("abc" + extra), "gru", 4, 8, rng=0)
    charmodel.save_model(tmp_path / "m", model, {})
    read = charmodel.load_model(tmp_path / "m")
    assert read.vocabulary.characters == model.vocabulary.characters
    assert len(read.vocabulary) == 3 + len(extra)


def resume_file(path, layers=2):
    """A training in the middle of its second pass; what its state file holds, without the checksums."""
    trainer = Trainer(Corpus(TEXT), Settings(**(vars(SMALL) | {"layers": layers})), Length(epochs=3), path)
    trainer.run(StopAfter(len(trainer.batches) + 9))
    return files.load(run.resume_path(path), run.RESUME_KIND)


def changed(value, keys, new):
    """A nested description with one entry changed."""
    first, *rest = keys
    return value | {first: changed(value[first], rest, new) if rest else new}


HUGE = 10**12


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ("settings.cell", ["elman", 7, None, "gru", "rnn"]),
        ("settings.hidden", [13, 20_000, HUGE, 0, -12, 12.0, "12", None, True, [12]]),
        ("settings.layers", [1, 3, 60_000, HUGE, 0, "2"]),
        ("settings.embed", [6, 10**9, 0, [1, 2]]),
        ("settings.batch", [0, -4, 3, 8, HUGE, "4", 1e30, None]),
        ("settings.steps", ["x", 0, -1, None, 16.5, 5]),
        ("settings.lr", ["x", 0, -1, math.nan, math.inf, None]),
        ("settings.dropout", [-0.1, 1.5, math.nan, "0"]),
        ("settings.seed", [-1, "0", 0.5]),
        ("settings.shards", [0, -1, HUGE, 1.5, "2", None, True]),
        ("settings.more", [1]),
        ("settings", [None, [], "x", 7]),
        ("length", [{}, None, {"epochs": 1, "seconds": 1.0}, {"epochs": 0}, {"seconds": math.nan}, {"epochs": "3"}]),
        ("sources", [None, 7, "text", [7], {}]),
        ("progress", [None, {}, [], "x"]),
        ("progress.done", [-5, 0, HUGE, 1e300, "1", None]),
        ("progress.validated", [-1, HUGE, 0, None]),
        ("progress.characters", [-1, HUGE, 7, None]),
        ("progress.seconds", [-1, math.nan, math.inf, None, "x"]),
        ("progress.validating", [-1, math.nan, None]),
        ("progress.best_bits", [-1, math.nan, None, "x", 1e9, [3]]),
        ("progress._loss", [None, math.nan, -1, "x"]),
        ("progress._weight", [None, math.nan, -1, 2]),
        ("progress.rng", [None, {}, 7, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": {}}]),
        ("progress.rng.state.state", [-1, 2**200, 2**128, 1.5, "x", None]),
        ("progress.rng.state.inc", [-1, 2**128, 1.5, True, None]),
        ("progress.rng.has_uint32", ["x", None, 2**70, -1, 2]),
        ("progress.rng.uinteger", [-1, 2**32, 1.5, None]),
        ("curve", [None, [], {}, {"stretch": 1}]),
        ("curve.stretch", [0, -1, 2, HUGE, "x", None]),
        ("curve.train", [None, 7, [1], [[1]], [["x", 1.0]], [[1, math.nan]], []]),
        ("curve.valid", [None, [], [[1, -1.0]], [[1, 1.0], [0, 1.0]], [[1, 2, 3]]]),
        ("curve.pending", [None, [None], [math.nan], [1.0], 7]),
        ("version", [2, None, "1"]),
        ("more", [1]),
    ],
)
def test_nonsense_in_a_training_state_is_refused(tmp_path, keys, values):
    """In a word that names the file, before memory is asked for: sizes are compared with the arrays."""
    path = tmp_path / "m"
    arrays, description = resume_file(path)
    corpus = Corpus(TEXT)
    model = path.read_bytes()
    for value in values:
        files.save(run.resume_path(path), arrays, changed(description, keys.split("."), value))
        with pytest.raises(ValueError, match=re.escape(run.resume_path(path))) as caught:
            Trainer.resume(Resumed.read(path), corpus, Length(epochs=3), path)
        assert len(str(caught.value)) < 1000
        assert path.read_bytes() == model


def test_arrays_that_do_not_fit_a_training_state(tmp_path):
    path = tmp_path / "m"
    arrays, description = resume_file(path)
    name = "model.rnn.weight_hh_l0"
    for change in (
        {name: arrays[name].T},
        {name: arrays[name][:-1]},
        {"state.0": arrays["state.0"][:, :3]},
        {"state.0": arrays["state.0"].astype(np.float64)},
        {"state.2": arrays["state.0"]},
        {"optimiser.m.float32": arrays["optimiser.m.float32"][1:]},
        {"optimiser.steps": np.array(-1)},
        {"optimiser.steps": np.array(3)},
        {"other": np.zeros(1)},
        {"model.other": np.zeros(0)},
    ):
        files.save(run.resume_path(path), arrays | change, description)
        with pytest.raises(ValueError, match=r"m\.resume\.safetensors: "):
            Trainer.resume(Resumed.read(path), Corpus(TEXT), Length(epochs=3), path)
    for missing in arrays:
        files.save(run.resume_path(path), {n: a for n, a in arrays.items() if n != missing}, description)
        with pytest.raises(ValueError, match=r"m\.resume\.safetensors: "):
            Trainer.resume(Resumed.read(path), Corpus(TEXT), Length(epochs=3), path)


def test_random_damage_of_both_files(tmp_path):
    """Bytes changed anywhere, ends cut off: what is read is what was written, or an error names the file."""
    path, corpus = tmp_path / "m", Corpus(TEXT)
    resume_file(path, layers=1)
    state = tmp_path / "m.resume.safetensors"
    whole, model_whole = state.read_bytes(), path.read_bytes()
    resumed, model = Resumed.read(path), charmodel.load_model(path)
    rng = np.random.default_rng(0)

    def damaged(content):
        content = bytearray(content)
        end = int.from_bytes(content[:8], "little") if rng.random() < 0.7 else len(content)  # the header more often
        for place in rng.integers(end, size=rng.integers(1, 4)):
            content[place] = rng.integers(256) if rng.random() < 0.5 else content[place] ^ 1 << rng.integers(8)
        return content[: rng.integers(len(content))] if rng.random() < 0.1 else content

    refused = 0
    for _ in range(300):
        state.write_bytes(damaged(whole))
        try:
            read = Resumed.read(path)
            Trainer.resume(read, corpus, Length(epochs=3), path)
        except (ValueError, OSError) as error:
            assert str(state) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert (read.settings, read.length, read.progress) == (resumed.settings, resumed.length, resumed.progress)
            assert (read.curve, read.sources, read.digest) == (resumed.curve, resumed.sources, resumed.digest)
            assert all(read.arrays[name].tobytes() == array.tobytes() for name, array in resumed.arrays.items())
    for _ in range(300):
        path.write_bytes(damaged(model_whole))
        try:
            read = charmodel.load_model(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert read.vocabulary.characters == model.vocabulary.characters
            assert read.sizes == model.sizes
            assert read.state_dict().keys() == model.state_dict().keys()
            assert all(np.array_equal(read.params[name], model.params[name]) for name in model.params)
    assert refused > 550


def test_a_training_is_not_resumed_with_a_damaged_best_model(tmp_path):
    path = tmp_path / "m"
    resume_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="m is no safetensors file, or a damaged one"):
        Trainer.resume(Resumed.read(path), Corpus(TEXT), Length(epochs=3), path)


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


class Killed(BaseException):
    """Where it is raised, nothing more is written."""


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_new_run_in_the_place_of_an_old_one_is_killed(tmp_path, monkeypatch, written):
    """After it has written none of its files, the model alone, or both: nothing is lost before there is something new.

    An old state with a new model is noticed.
    """
    old = Trainer(Corpus(TEXT), SMALL, Length(epochs=1), tmp_path / "m")
    old.run()
    before = contents(old)
    new = Trainer(Corpus(TEXT), SMALL, Length(epochs=2), tmp_path / "m")
    replace, left = files.replace, iter(range(written))

    def killed(*arguments):
        if next(left, None) is None:
            raise Killed
        replace(*arguments)

    monkeypatch.setattr(files, "replace", killed)
    if written < 2:
        with pytest.raises(Killed):
            new.run()
    else:
        new.run()
    resumed = Resumed.read(tmp_path / "m")
    assert resumed.length == (old if written < 2 else new).length
    if written == 1:
        with pytest.raises(ValueError, match="m: it is not the best model of the training to resume, but of another"):
            Trainer.resume(resumed, Corpus(TEXT), Length(epochs=3), tmp_path / "m")
    else:
        Trainer.resume(resumed, Corpus(TEXT), Length(epochs=3), tmp_path / "m")
    if written == 0:
        assert contents(old) == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"lr": 0.02}, {"hidden": 13}, {"length": 2}, {"text": TEXT[::-1]}])
def test_a_model_of_another_run_is_not_resumed(tmp_path, change):
    """Nor one of an equal run that is worse than the best this one had; a better one is from just before it died."""
    changed = {"length": 3, "text": TEXT} | {name: change[name] for name in ("length", "text") if name in change}
    settings = dataclasses.replace(SMALL, **{name: change[name] for name in change.keys() - changed.keys()})
    own = Trainer(Corpus(TEXT), SMALL, Length(epochs=3), tmp_path / "own")
    own.run(StopAfter(len(own.batches) + 9))
    Trainer(Corpus(changed["text"]), settings, Length(epochs=changed["length"]), tmp_path / "other").run()
    (tmp_path / "other").replace(tmp_path / "own")
    with pytest.raises(ValueError, match="own: it is not the best model of the training to resume, but of another one"):
        Trainer.resume(Resumed.read(own.path), own.corpus, own.length, own.path)


def test_a_best_model_is_that_of_the_state_or_better(tmp_path):
    models = []
    for name, calls in (("worse", 9), ("state", 60), ("better", 10**9)):
        trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=5), tmp_path / name)
        trainer.run(StopAfter(calls))
        models.append((tmp_path / name).read_bytes())
        if name == "state":
            resumed = Resumed.read(trainer.path)
    assert trainer.best_bits < resumed.progress["best_bits"]
    for content in models:
        (tmp_path / "state").write_bytes(content)
        if content == models[0]:
            with pytest.raises(ValueError, match="state: it is not the best model"):
                Trainer.resume(resumed, Corpus(TEXT), Length(epochs=5), tmp_path / "state")
        else:
            Trainer.resume(resumed, Corpus(TEXT), Length(epochs=5), tmp_path / "state")


def test_files_without_a_name_of_their_training_are_resumed(tmp_path):
    """Those of earlier versions."""
    path = tmp_path / "m"
    arrays, description = resume_file(path)
    weights, model = files.load(path, charmodel.MODEL_KIND)
    del description["progress"]["identity"], model["training"]["identity"]
    files.save(run.resume_path(path), arrays, description)
    files.save(path, weights, model)
    trainer = Trainer.resume(Resumed.read(path), Corpus(TEXT), Length(epochs=4), path)
    trainer.run()
    Trainer.resume(Resumed.read(path), Corpus(TEXT), Length(epochs=5), path)


def test_a_learning_rate_far_too_high_is_said(tmp_path):
    settings = Settings(**(vars(SMALL) | {"lr": 1e38}))
    with pytest.raises(ValueError, match=r"batches: the learning rate 1e\+38 is too high"):
        Trainer(Corpus(TEXT), settings, Length(epochs=3), tmp_path / "m").run()


def test_a_training_that_diverges_is_said(tmp_path):
    """Its loss is finite, and it never comes back. The best model until then is kept."""
    path = tmp_path / "m"
    settings = dataclasses.replace(SMALL, lr=1e9)
    with pytest.raises(ValueError, match=r"diverged to \S+ bits per character after \d+ batches: .* 1e\+09 is too"):
        Trainer(Corpus(TEXT), settings, Length(epochs=9), path).run()
    assert not path.exists()
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=9), path)

    def report():
        if trainer.epoch == 3:
            trainer.settings = settings

    with pytest.raises(ValueError, match="has diverged to"):
        trainer.run(report=report)
    best = charmodel.load_model(path)
    assert charmodel.bits_per_character(best, trainer.corpus.valid, SMALL.batch) == trainer.saved_bits < 6


def test_a_high_rate_from_which_a_training_comes_back_is_none_that_runs_off(tmp_path):
    trainer = Trainer(Corpus(TEXT), dataclasses.replace(SMALL, lr=0.5), Length(epochs=5), tmp_path / "m")
    trainer.run()
    assert trainer.finished


def test_an_update_longer_than_the_run_is_refused(tmp_path):
    settings = Settings(hidden=64, batch=1, steps=5_000_000)
    with pytest.raises(ValueError, match=r"one update of \d{5} steps and 1 rows takes at least \S+ seconds, more"):
        Trainer(Corpus(TEXT * 25), settings, Length(seconds=1e-3), tmp_path / "m").run()
    assert not list(tmp_path.iterdir())


def test_rows_of_hardly_a_character_are_refused(tmp_path):
    corpus = Corpus("abcdefghij" * 100)  # 900 characters to train on
    with pytest.raises(ValueError, match=r"batch of 400 rows: each would have 2 .* at least 8; a batch of 112 rows is"):
        Trainer(corpus, Settings(batch=400), Length(epochs=1), tmp_path / "m")
    Trainer(corpus, Settings(batch=112, hidden=4), Length(epochs=1), tmp_path / "m")
    Trainer(corpus, Settings(batch=400, steps=2, hidden=4), Length(epochs=1), tmp_path / "m")


def test_a_state_that_the_next_pass_does_not_use_is_not_written(tmp_path):
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=1), tmp_path / "m")
    trainer.run()
    assert not any(name.startswith("state") for name in Resumed.read(tmp_path / "m").arrays)


@pytest.mark.parametrize("reason", ["a number", "a report"])
def test_what_ends_a_training_does_not_lose_its_best_model(tmp_path, reason):
    Trainer(Corpus(TEXT), SMALL, Length(epochs=1), tmp_path / "m").run()
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=9), tmp_path / "m")

    def report():
        if trainer.epoch > 3 and reason == "a number":
            trainer.model.params["head.bias"] = np.full(len(trainer.corpus.vocabulary), math.nan)
        elif trainer.epoch > 3:
            raise RuntimeError("no report")

    with pytest.raises((ValueError, RuntimeError), match=r"has diverged|no report"):
        trainer.run(report=report)
    best = charmodel.load_model(tmp_path / "m")
    assert charmodel.bits_per_character(best, trainer.corpus.valid, SMALL.batch) == trainer.best_bits
    assert trainer.saved_bits == trainer.best_bits
    with pytest.raises(ValueError, match="but of another one"):  # the state is the first run's
        Trainer.resume(Resumed.read(tmp_path / "m"), trainer.corpus, trainer.length, trainer.path)


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
    monkeypatch.setattr(training, "VALIDATED", 50)
    trainer = Trainer(Corpus(TEXT), SMALL, Length(epochs=2), tmp_path / "m")
    trainer.run()
    assert len(trainer.valid) == 50
    assert len(trainer.curve.valid) > 2 * len(trainer.corpus.valid) // 50


def test_the_curve_stays_small():
    losses = np.random.default_rng(0).random(10_000).tolist()
    curve = run.Curve()
    for k, loss in enumerate(losses):
        curve.add(3 * (k + 1), loss)
        if k % 997 == 0:
            curve = run.Curve(**curve.as_dict())
    assert run.CURVE / 2 <= len(curve.train) < run.CURVE
    for k, (read, bits) in enumerate(curve.train):
        part = losses[k * curve.stretch : (k + 1) * curve.stretch]
        assert read == 3 * (k + 1) * curve.stretch
        assert bits == pytest.approx(sum(part) / len(part))
