"""Whole layers against torch.nn: outputs, states and all gradients; packed sequences; names; initial values."""

import numpy as np
import pytest
from cells import DTYPES, SIZES, TORCH, VARIANTS, assert_same_bits, cases, flat

import pyrnn

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.usefixtures("one_torch_thread"),
]

CELLS = {name: layer for name, layer in TORCH.items() if not VARIANTS[name][2]}  # projections are drawn at random
# What the project promises, of the largest value.
PROMISED = {"float32": 2e-5, "float64": 1e-9}


def pair(cell, inputs, hidden, dtype, seed, **options):
    """The same layer twice, with the same parameters: ours and torch's."""
    name, option = CELLS[cell]
    ours = getattr(pyrnn, name)(inputs, hidden, **option, **options, dtype=dtype, rng=seed)
    theirs = getattr(torch.nn, name)(inputs, hidden, **option, **options, dtype=getattr(torch, dtype))
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()}, strict=True)
    return ours, theirs


def tensors(state):
    return tuple(map(tensors, state)) if isinstance(state, tuple) else torch.from_numpy(state).requires_grad_()


def assert_close(actual, expected, dtype, names):
    for name, a, e in zip(names, flat(*actual), expected, strict=True):
        assert a.shape == e.shape, name
        assert a.dtype == e.dtype == dtype, name
        error, largest = np.max(np.abs(a - e), initial=0), np.max(np.abs(e), initial=0)
        assert error <= PROMISED[dtype] * largest, f"{name} is off by {error:.3g}, its largest value is {largest:.3g}"


class Comparison:
    """One random configuration, run by both sides."""

    def __init__(self, cell, seed, packed=False):
        rng = self.rng = np.random.default_rng([seed, list(CELLS).index(cell), packed])
        self.dtype = str(rng.choice(DTYPES))
        steps, rows = int(rng.choice([1, 2, 3, 5, 9])), int(rng.choice([1, 2, 3, 6, 7, 13]))
        inputs, hidden = (int(n) for n in rng.choice(SIZES, 2))
        options = {
            "num_layers": int(rng.choice([1, 1, 2, 3])),
            "bias": bool(rng.random() < 0.8),
            "batch_first": bool(rng.random() < 0.4),
            "bidirectional": bool(rng.random() < 0.5),
        }
        if cell == "lstm" and hidden > 1 and rng.random() < 0.4:
            options["proj_size"] = int(rng.integers(1, hidden))
        self.ours, self.theirs = pair(cell, inputs, hidden, self.dtype, seed, **options)
        batched = packed or rng.random() < 0.8
        shape = (rows, steps) if self.ours.batch_first else (steps, rows)
        self.fill(shape if batched else (steps,), f"{cell}, seed {seed}, ", state=rng.random() < 0.7)
        self.steps, self.lengths = steps, rng.integers(1, steps + 1, rows) if packed else None

    def fill(self, shape, label, state):
        self.lengths = None
        self.x = self.draw(*shape, self.ours.input_size)
        y, final = self.ours(self.x)
        self.dy, self.dstate = self.draw(*y.shape), self.draw_state(final)
        self.state = self.draw_state(final) if state else None
        entries = ["h", "c"][: len(list(flat((final,))))]
        given = [f"d{e}" for e in entries] if state else []
        self.names = [label + n for n in ("y", *entries, "dx", *given, *self.ours.params)]

    def draw(self, *shape):
        return self.rng.uniform(-1, 1, shape).astype(self.dtype)

    def draw_state(self, like):
        return tuple(self.draw(*s.shape) for s in like) if isinstance(like, tuple) else self.draw(*like.shape)

    def run_ours(self):
        (y, final), pullback = self.ours.vjp(self.x, self.state, lengths=self.lengths)
        dx, dstate = pullback(self.dy, self.dstate)
        return list(flat(y, final, dx, () if self.state is None else dstate, list(self.ours.grads.values())))

    def run_theirs(self):
        x, state = tensors(self.x), None if self.state is None else tensors(self.state)
        if self.lengths is None:
            y, final = self.theirs(x, state)
        else:
            first, rnn = self.ours.batch_first, torch.nn.utils.rnn
            lengths = torch.from_numpy(self.lengths)
            packed = rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
            y, final = self.theirs(packed, state)
            y, _ = rnn.pad_packed_sequence(y, batch_first=first, total_length=self.steps)
        loss = (y * torch.from_numpy(self.dy)).sum()
        for s, d in zip(flat((final,)), flat((self.dstate,)), strict=True):
            loss = loss + (s * torch.from_numpy(d)).sum()
        given = [] if state is None else list(flat((state,)))
        gradients = torch.autograd.grad(loss, [x, *given, *self.theirs.parameters()])
        return [t.detach().numpy() for t in (y, *flat((final,)), *gradients)]

    def check(self):
        assert [n for n, _ in self.theirs.named_parameters()] == list(self.ours.params)
        assert_close(self.run_ours(), self.run_theirs(), self.dtype, self.names)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("cell", CELLS)
def test_random_configurations(cell, part):
    for seed in range(part * 1000, part * 1000 + cases(20)):
        Comparison(cell, seed).check()


@pytest.mark.parametrize("cell", CELLS)
def test_lengths_are_packed_sequences(cell):
    for seed in range(cases(40)):
        Comparison(cell, seed, packed=True).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_larger_sizes(cell, dtype):
    """Where threads share the work."""
    comparison = Comparison(cell, 0)
    comparison.dtype = dtype
    comparison.ours, comparison.theirs = pair(cell, 70, 129, dtype, 1, num_layers=2, bidirectional=True)
    comparison.fill((12, 17), "", state=True)
    comparison.check()


# ---- state dicts


@pytest.mark.parametrize("cell", CELLS)
def test_state_dicts_are_interchangeable(cell):
    for options in (
        {},
        {"bias": False},
        {"num_layers": 3, "bidirectional": True},
        *([{"num_layers": 2, "bidirectional": True, "proj_size": 3}] if cell == "lstm" else []),
    ):
        ours, theirs = pair(cell, 5, 7, "float64", 0, **options)
        mine, other = ours.state_dict(), theirs.state_dict()
        assert list(mine) == list(other)
        for name, value in other.items():
            assert mine[name].shape == tuple(value.shape)
        theirs.reset_parameters()
        ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
        assert_same_bits(list(ours.params.values()), [p.detach().numpy() for p in theirs.parameters()])
        ours.load_state_dict(theirs.state_dict())  # tensors are array-likes
        theirs.load_state_dict({name: torch.tensor(value) for name, value in mine.items()}, strict=True)


@pytest.mark.parametrize("name", ["Linear", "Embedding"])
def test_other_layers(name):
    sizes = (5, 7)
    ours, theirs = getattr(pyrnn, name)(*sizes, rng=0), getattr(torch.nn, name)(*sizes)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()}, strict=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 5)).astype("float32") if name == "Linear" else rng.integers(0, 5, (4, 3))
    y, pullback = ours.vjp(x)
    dy = rng.standard_normal(y.shape).astype("float32")
    dx = pullback(dy)
    given = torch.from_numpy(x)
    given = given.requires_grad_() if name == "Linear" else given
    expected = theirs(given)
    expected.backward(torch.from_numpy(dy))
    gradients = [p.grad.numpy() for p in theirs.parameters()]
    names = ["y", *ours.params]
    assert_close([y, *ours.grads.values()], [expected.detach().numpy(), *gradients], "float32", names)
    if name == "Linear":
        assert_close([dx], [given.grad.numpy()], "float32", ["dx"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["LayerNorm", "LogSoftmax"])
def test_layers_between(name, dtype):
    size = 9
    ours = pyrnn.LayerNorm(size, dtype=dtype) if name == "LayerNorm" else pyrnn.LogSoftmax(dtype=dtype)
    theirs = torch.nn.LayerNorm(size, dtype=getattr(torch, dtype)) if name == "LayerNorm" else torch.nn.LogSoftmax(-1)
    rng = np.random.default_rng(0)
    for params, _ in ours.buffers.values():
        params[:] = rng.standard_normal(params.size)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()}, strict=True)
    x, dy = rng.standard_normal((2, 4, 3, size)).astype(dtype)
    y, pullback = ours.vjp(x)
    dx = pullback(dy)
    given = tensors(x)
    expected = theirs(given)
    expected.backward(torch.from_numpy(dy))
    gradients = [given.grad, *(p.grad for p in theirs.parameters())]
    names = ["y", "dx", *ours.params]
    assert_close([y, dx, *ours.grads.values()], [expected.detach().numpy(), *map(np.asarray, gradients)], dtype, names)


# ---- initial values


@pytest.mark.parametrize("cell", CELLS)
def test_default_initial_values(cell):
    """The same law as torch: the range, the mean, the spread, every array by itself."""
    name, option = CELLS[cell]
    options = {**option, "num_layers": 2, "bidirectional": True, **({"proj_size": 40} if cell == "lstm" else {})}
    hidden, bound = 100, 0.1
    torch.manual_seed(0)
    theirs = {k: p.detach().numpy() for k, p in getattr(torch.nn, name)(60, hidden, **options).named_parameters()}
    ours = getattr(pyrnn, name)(60, hidden, **options, rng=0).state_dict()
    for values in (theirs, ours):
        for key, value in values.items():
            assert np.abs(value).max() <= bound * (1 + 1e-6), key
            assert np.abs(value).max() > 0.9 * bound, key
            assert np.abs(value.mean()) < 5 * bound / (3 * value.size) ** 0.5, key
            assert abs(np.abs(value).mean() / (bound / 2) - 1) < 5 / (3 * value.size) ** 0.5, key
    assert len({value.tobytes() for value in ours.values()}) == len(ours)  # no array twice


def test_default_initial_values_of_weight_ch():
    values = pyrnn.LSTM(60, 100, peephole=True, rng=0).params["weight_ch_l0"]
    assert 0.09 < np.abs(values).max() <= 0.1


def test_linear_initial_range_is_that_of_torch():
    for values in (pyrnn.Linear(100, 50, rng=0).params, torch.nn.Linear(100, 50).state_dict()):
        for value in values.values():
            assert 0.09 < np.abs(np.asarray(value)).max() <= 0.1 * (1 + 1e-6)


# ---- losses

LOSSES = {
    "cross_entropy": "CrossEntropyLoss",
    "negative_log_likelihood": "NLLLoss",
    "hinge": "MultiMarginLoss",
    "mean_squared_error": "MSELoss",
    "binary_cross_entropy": "BCEWithLogitsLoss",
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype):
    """Of the steps that a mask says: their mean."""
    rng = np.random.default_rng(0)
    values, mask = (3 * rng.standard_normal((6, 5, 7))).astype(dtype), rng.random((6, 5)) < 0.7
    of_features = name in ("mean_squared_error", "binary_cross_entropy")
    targets = rng.random((6, 5, 7)).astype(dtype) if of_features else rng.integers(0, 7, (6, 5))
    loss, gradient = getattr(pyrnn, name)(values, targets, mask=mask)
    given = tensors(values)
    expected = getattr(torch.nn, LOSSES[name])()(given[torch.from_numpy(mask)], torch.from_numpy(targets[mask]))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=PROMISED[dtype])
    assert_close([gradient], [given.grad.numpy()], dtype, ["gradient"])


# ---- clipping, optimisers: one training step after another


OPTIMISERS = {
    "SGD": {"lr": 0.3, "weight_decay": 0.01},
    "SGD_momentum": {"lr": 0.1, "momentum": 0.9},
    "SGD_nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.03, "betas": (0.8, 0.95)},
    "Adam_decay": {"lr": 0.03, "weight_decay": 0.1},
    "AdamW": {"lr": 0.03},
    "AdamW_decay": {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    "RMSprop": {"lr": 0.01, "alpha": 0.9},
    "RMSprop_momentum": {"momentum": 0.9, "eps": 1e-3, "weight_decay": 0.1},
    "Adagrad": {},
    "Adagrad_decay": {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1},
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_training_steps(optimiser):
    """Ten steps of a classifier, gradient clipped: the same losses, norms and parameters."""
    ours, theirs = pair("gru", 4, 9, "float64", 3, num_layers=2, bidirectional=True)
    name, options = optimiser.split("_")[0], OPTIMISERS[optimiser]
    mine = getattr(pyrnn, name)(ours, **options)
    other = getattr(torch.optim, name)(theirs.parameters(), **options)
    rng = np.random.default_rng(0)
    for step in range(10):
        x, targets = rng.standard_normal((6, 5, 4)), rng.integers(0, 18, (6, 5))
        max_norm = 1e9 if step % 3 == 0 else 0.05
        ours.zero_grad()
        (y, _), pullback = ours.vjp(x)
        loss, dlogits = pyrnn.cross_entropy(y, targets)
        pullback(dlogits)
        norm = pyrnn.clip_grad_norm(ours, max_norm)
        mine.step()
        other.zero_grad()
        expected, _ = theirs(torch.from_numpy(x))
        expected = torch.nn.functional.cross_entropy(expected.reshape(-1, 18), torch.from_numpy(targets).reshape(-1))
        expected.backward()
        expected_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        other.step()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-12)
        assert norm == pytest.approx(float(expected_norm), rel=1e-9)
        values = [p.detach().numpy() for p in theirs.parameters()]
        assert_close(ours.params.values(), values, "float64", ours.params)


def test_schedules():
    torch_schedules = torch.optim.lr_scheduler
    losses = [3.0, 2.0, 2.5, 1.9999, 2.1, 2.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for ours, theirs in [
        (lambda o: pyrnn.schedules.Step(o, 3, 0.5), lambda o: torch_schedules.StepLR(o, 3, 0.5)),
        (lambda o: pyrnn.schedules.Exponential(o, 0.9), lambda o: torch_schedules.ExponentialLR(o, 0.9)),
        (lambda o: pyrnn.schedules.Linear(o, 8, end=0.1), lambda o: torch_schedules.LinearLR(o, 1.0, 0.1, 8)),
        (lambda o: pyrnn.schedules.Cosine(o, 12), lambda o: torch_schedules.CosineAnnealingLR(o, 12)),
        (lambda o: pyrnn.schedules.Plateau(o, 0.5, 2), lambda o: torch_schedules.ReduceLROnPlateau(o, "min", 0.5, 2)),
    ]:
        mine = pyrnn.SGD(pyrnn.Linear(1, 1, rng=0), lr=0.4)
        other = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.4)
        schedule, expected = ours(mine), theirs(other)
        lrs = []
        for loss in losses:
            lrs.append((mine.lr, other.param_groups[0]["lr"]))
            other.step()
            watched = (loss,) if isinstance(schedule, pyrnn.schedules.Plateau) else ()
            schedule.step(*watched)
            expected.step(*watched)
        np.testing.assert_allclose(*zip(*lrs, strict=True), rtol=1e-12, atol=1e-15)
        assert len(set(lrs)) > 1
