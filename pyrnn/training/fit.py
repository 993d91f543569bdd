"""The training loop: epochs of minibatches of sequences, validation, and the best parameters kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, Array, Rng, boolean, generator, integer, numbers_array, opened, real, shown
from ..core.layer import Layer
from ..data import held_out, minibatches, pad
from ..layers.population import Population
from ..layers.sequential import Sequential
from .optim import Adam, Optimizer, clip_grad_norm
from .schedules import Cosine, Schedule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass
class History:
    """What `fit` has seen: the mean losses of every epoch, in training and of the validation part, and which epoch's
    parameters the model has. Of a population each is an array (P,).

        history = pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, valid=0.1)
        history.valid[history.best]
    """

    train: list[Any] = field(default_factory=list)
    valid: list[Any] = field(default_factory=list)
    best: Any = -1  # counted from 0; the last one where nothing is validated


class Best:
    """The parameters with the lowest validation loss; of a population each model's own."""

    def __init__(self, model: Layer) -> None:
        self.model = model
        self.lowest = np.full(model.size if isinstance(model, Population) else (), math.inf)
        self.epochs = np.full(self.lowest.shape, -1)
        self.state: dict[str, Array] = {}

    def seen(self, loss: Any, epoch: int) -> None:
        """Keep the parameters where this loss is the lowest so far."""
        better = loss < self.lowest
        if not np.any(better):
            return
        self.lowest, self.epochs = np.where(better, loss, self.lowest), np.where(better, epoch, self.epochs)
        for name, value in self.model.state_dict().items():
            if np.all(better):
                self.state[name] = value
            else:
                self.state[name][better] = value[better]

    @property
    def epoch(self) -> Any:
        """Which they are of: an integer, of a population (P,)."""
        return self.epochs.copy() if self.epochs.ndim else int(self.epochs)


class Examples:
    """Sequences and what is to come out of them: one thing for each sequence, or one for each of its steps."""

    def __init__(self, call: str, sequences: Sequence[ArrayLike], targets: Any) -> None:
        sequences, targets = opened(call, "sequences", sequences), opened(call, "targets", targets)
        for name, value in (("sequences", sequences), ("targets", targets)):
            if (
                isinstance(value, (str, bytes, Mapping))
                or not hasattr(value, "__getitem__")
                or getattr(value, "ndim", 1) == 0
            ):
                raise TypeError(f"{call}: {name} is {shown(value)}, expected an array or a list")
        self.sequences = sequences
        self.by_step = isinstance(targets, (list, tuple)) and np.ndim(targets[0] if targets else 0) > 0
        self.targets: Any = targets if self.by_step else numbers_array(call, "targets", targets)
        if len(self.targets) != len(sequences):
            raise ValueError(f"{call}: targets are {len(self.targets)}, expected one for each of {len(sequences)} "
                             "sequences")  # fmt: skip
        for n in range(len(sequences) if self.by_step else 0):
            if len(targets[n]) != len(sequences[n]):  # type: ignore[arg-type]
                raise ValueError(f"{call}: targets[{n}] has {len(targets[n])} steps, expected those of sequences[{n}], "
                                 f"{len(sequences[n])}")  # type: ignore[arg-type]  # fmt: skip

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: Array) -> Examples:
        """Some of them."""
        part = object.__new__(Examples)
        part.sequences, part.by_step = [self.sequences[n] for n in rows], self.by_step
        part.targets = [self.targets[n] for n in rows] if self.by_step else self.targets[rows]
        return part

    def judged(self, run: Callable[..., Any], loss: Callable[..., Any]) -> tuple[Any, float, Array, Any]:
        """The mean loss, over how many sequences or steps, its gradient, and the rest of what `run` returns."""
        x, lengths = pad(self.sequences)
        y, *rest = run(x, lengths=lengths)
        y = y[0] if isinstance(y, tuple) else y
        if self.by_step:
            value, dy = loss(y, pad(self.targets)[0], lengths=lengths)
        else:
            value, dy = loss(y, self.targets)
        value = np.asarray(value) if np.ndim(value) else float(value)
        return value, float(lengths.sum() if self.by_step else len(self)), dy, rest


def fit(
    model: Layer, sequences: Sequence[ArrayLike], targets: Any, loss: Callable[..., tuple[Any, Array]],
    *, valid: Any = None, epochs: int = 50, batch_size: int = 32, optimizer: Optimizer | None = None,
    schedule: Callable[[Optimizer, int], Schedule] | None = Cosine, max_norm: float = 1.0, patience: int | None = None,
    callback: Callable[[History], Any] | None = None, progress: bool = True, rng: Rng = None,
) -> History:  # fmt: skip
    """Train a model on sequences of any lengths: minibatches in random order, clipped gradients, a learning rate that
    falls; with a validation part, the parameters of its best epoch are what the model has in the end.

    model       x (T, N, ...) -> y: a layer or a model whose call and `vjp` take `lengths`; or a `Population` of such,
                whose models see the same minibatches, and keep the parameters of the epoch that was best for each
    sequences   N array-likes (T_n, ...); an array (N, T, ...) is N of one length
    targets     an array (N, ...): one for each sequence, the loss is loss(y, targets); or a list of N arrays
                (T_n, ...): one for each step, the loss is loss(y, targets, lengths=lengths) of what is padded
    loss        (y, targets) -> the mean, its gradient: `pyrnn.cross_entropy` and the others
    valid       what to judge by after every epoch: a part of the sequences, 0..1, chosen by rng and not trained on; or
                (sequences, targets); one sequence at least, None is nothing
    optimizer   of the model, or of the part of it that is to learn; None is Adam(model)
    schedule    (optimizer, total) -> one of `pyrnn.schedules`, which takes a step after each of `total` updates; None
                leaves the learning rate alone
    max_norm    of a batch's gradients, see `clip_grad_norm`
    patience    end when the validation loss, of a population that of every model, has not fallen for so many epochs;
                None never does
    callback    called with the history after every epoch; when it returns True, this was the last
    progress    a bar with the losses, on a terminal
    rng         None, a seed or a numpy.random.Generator: the order, and what is held out

    The result is the `History`: `train` and `valid`, losses by epoch, and `best`. From one seed, and one of the model,
    come the same bits, whatever the number of threads. Sequences are not sorted by length: layers read no padding, so
    that would gain little. Where training is broken off, by Ctrl-C say, the model has its
    best parameters too. ValueError for a loss that is not finite, a layer with batch_first, and what does not fit
    together.

        history = pyrnn.fit(model, sequences, classes, pyrnn.cross_entropy, valid=0.1, patience=10, rng=0)
        history.valid[history.best]
    """
    call = "fit"
    if not isinstance(model, Layer):
        raise TypeError(f"{call}: model is {shown(model)}, expected a layer or a model")
    one = model[0] if isinstance(model, Population) else model
    for layer in one if isinstance(one, Sequential) else (one,):
        if getattr(layer, "batch_first", False):
            raise ValueError(f"{call}: the {type(layer).__name__} has batch_first=True, expected one that takes x "
                             "(T, N, ...)")  # fmt: skip
    for name, function in (("loss", loss), ("schedule", schedule), ("callback", callback)):
        if not callable(function) and (function is not None or name == "loss"):
            raise TypeError(f"{call}: {name} is {shown(function)}, expected a function")
    rng = generator(call, rng)
    examples, judges = _split(call, Examples(call, sequences, targets), valid, rng)
    if not len(examples):
        raise ValueError(f"{call}: no sequences are left to train on")
    epochs, batch_size = integer(call, "epochs", epochs, 0), integer(call, "batch_size", batch_size, 1)
    patience = MOST if patience is None else integer(call, "patience", patience, 1)
    optimizer = Adam(model) if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{call}: optimizer is {shown(optimizer)}, expected one such as pyrnn.Adam(model)")
    own = {id(layer) for _, layer in model._leaves()}
    if not all(id(layer) in own for layer in optimizer._layers):
        raise ValueError(f"{call}: the {type(optimizer).__name__} is of another {type(optimizer.model).__name__}, "
                         "expected one of the model or of a part of it")  # fmt: skip
    max_norm, progress = real(call, "max_norm", max_norm, 0), boolean(call, "progress", progress)
    steps = None if schedule is None else schedule(optimizer, max(1, epochs * -(-len(examples) // batch_size)))
    if steps is not None and not isinstance(steps, Schedule):
        raise TypeError(f"{call}: schedule returned {shown(steps)}, expected a pyrnn.schedules.Schedule")
    loss = _of_each(model, loss) if isinstance(model, Population) else loss
    history, best = History(), Best(model)
    bar = _bar(epochs, progress)
    try:
        for epoch in bar:
            total: Any = 0.0
            weight = 0.0
            for rows in minibatches(len(examples), batch_size, rng):
                model.zero_grad()
                value, count, dy, (pullback,) = examples.take(rows).judged(model.vjp, loss)  # type: ignore[attr-defined]
                _check(call, value, epoch, optimizer)
                pullback(dy)
                clip_grad_norm(model, max_norm)
                optimizer.step()
                if steps is not None:
                    steps.step()
                total, weight = total + value * count, weight + count
            history.train.append(total / max(weight, 1))
            if judges is None:
                best.epochs[...] = epoch
            else:
                history.valid.append(_judge(model, judges, loss, batch_size))
                _check(call, history.valid[-1], epoch, optimizer)
                best.seen(history.valid[-1], epoch)
            history.best = best.epoch
            losses = {"loss": history.train, "valid": history.valid}
            bar.set_postfix({name: f"{np.mean(values[-1]):.4g}" for name, values in losses.items() if values})
            if callback is not None and callback(history) is True:
                break
            if epoch - best.epochs.max() >= patience:
                break
    finally:
        bar.close()
        if best.state:
            model.load_state_dict(best.state)
    return history


def _split(call: str, examples: Examples, valid: Any, rng: np.random.Generator) -> tuple[Examples, Examples | None]:
    """What to train on, and what to judge by."""
    if valid is None:
        return examples, None
    if isinstance(valid, (tuple, list)):
        if len(valid) != 2:
            raise ValueError(f"{call}: valid has {len(valid)} entries, expected sequences and targets")
        judges = Examples(f"{call}: valid", *valid)
    else:
        train, rows = held_out(len(examples), real(call, "valid", valid, 0, 1), rng)
        examples, judges = examples.take(train), examples.take(rows)
    if not len(judges):
        raise ValueError(f"{call}: valid selects none of {len(examples)} sequences, expected one at least, or None")
    return examples, judges


def _of_each(many: Population, loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss of each model, with the same targets."""

    def losses(y: Array, targets: Array, **given: Any) -> tuple[Array, Array]:
        return many.loss(loss, y, np.broadcast_to(targets, (many.size, *targets.shape)), **given)

    return losses


def _judge(model: Any, examples: Examples, loss: Callable[..., Any], size: int) -> Any:
    """The mean loss without dropout."""

    def run(x: Array, lengths: Array) -> tuple[Any]:
        return (model(x, lengths=lengths),)

    parts = [examples.take(np.arange(k, min(k + size, len(examples)))) for k in range(0, len(examples), size)]
    judged = [part.judged(run, loss)[:2] for part in parts]
    return sum(value * count for value, count in judged) / max(sum(count for _, count in judged), 1)


def _check(call: str, losses: Any, epoch: int, optimizer: Optimizer) -> None:
    for loss in np.ravel(losses).tolist():
        if not math.isfinite(loss):
            raise ValueError(f"{call}: the loss is {loss} in epoch {epoch}: the sequences or targets are not finite, "
                             f"or the learning rate {optimizer.lr:g} is too high")  # fmt: skip


def _bar(epochs: int, shown: bool) -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped]

    return tqdm(range(epochs), unit="epoch", disable=None if shown else True, leave=False)
