"""Learning-rate schedules: each sets `optimizer.lr` when it is made and at every `step()`.

A step is what the caller makes it: an epoch or an update. A schedule starts from the `lr` that the optimiser has.

    optimizer = pyrnn.Adam(model, lr=1e-3)
    schedule = pyrnn.schedules.Cosine(optimizer, total=1000, warmup=50)
    for batch in batches:
        ...
        optimizer.step()
        schedule.step()
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..core.checks import integer, real
from .optim import BELOW_1, Optimizer

MOST_STEPS = 2**63 - 1


class Schedule:
    """What most schedules share: `optimizer.lr` is `base_lr` times a factor that depends on the number of steps.

    TypeError for what is no optimiser. ValueError at a step whose learning rate is more than a float can hold; then it
    is not taken.

        schedule = pyrnn.schedules.Linear(optimizer, total=1000)
        schedule.step()
        print(schedule.steps, optimizer.lr)
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _optimizer(type(self).__name__, optimizer)
        self.base_lr = optimizer.lr
        self.steps = 0

    @property
    def steps(self) -> int:
        """How many steps there were. A resumed run sets it, which sets the learning rate too."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        call = type(self).__name__
        steps = integer(call, "steps", steps, 0, MOST_STEPS)
        self.optimizer.lr = _finite(
            f"{call}: the learning rate after {steps} steps", lambda: self.base_lr * self._factor(steps)
        )
        self._steps = steps

    def step(self) -> None:
        """Go one step on.

        schedule.step()
        """
        self.steps += 1

    def _factor(self, steps: int) -> float:
        raise NotImplementedError


class Step(Schedule):
    """Times `gamma` after each `every` steps: torch.optim.lr_scheduler.StepLR. ValueError for a negative gamma.

    schedule = pyrnn.schedules.Step(optimizer, every=10, gamma=0.5)
    """

    def __init__(self, optimizer: Optimizer, every: int, gamma: float = 0.1) -> None:
        self.every = integer("Step", "every", every, 1, MOST_STEPS)
        self.gamma = real("Step", "gamma", gamma, 0)
        super().__init__(optimizer)

    def _factor(self, steps: int) -> float:
        return float(self.gamma ** (steps // self.every))


class Exponential(Schedule):
    """Times `gamma` at each step: torch.optim.lr_scheduler.ExponentialLR. ValueError for a negative gamma.

    schedule = pyrnn.schedules.Exponential(optimizer, gamma=0.98)
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = real("Exponential", "gamma", gamma, 0)
        super().__init__(optimizer)

    def _factor(self, steps: int) -> float:
        return float(self.gamma**steps)


class Decay(Schedule):
    """What Linear and Cosine share: up on a line over `warmup` steps, then down to `end` until `total`, then level."""

    def __init__(self, optimizer: Optimizer, total: int, warmup: int = 0, end: float = 0.0) -> None:
        call = type(self).__name__
        self.total = integer(call, "total", total, 1, MOST_STEPS)
        self.warmup = integer(call, "warmup", warmup, 0, self.total)
        self.end = real(call, "end", end, 0)
        super().__init__(optimizer)

    def _factor(self, steps: int) -> float:
        if steps < self.warmup:
            return (steps + 1) / (self.warmup + 1)
        part = (steps - self.warmup) / max(self.total - self.warmup, 1)
        return self.end + (1 - self.end) * self._left(min(part, 1.0))

    def _left(self, part: float) -> float:
        """From 1 at 0 to 0 at 1."""
        raise NotImplementedError


class Linear(Decay):
    """Down on a line, from the optimiser's lr to `end` times it after `total` steps: torch.optim.lr_scheduler.LinearLR
    with start_factor 1.

    Before, `warmup` steps (part of the `total`) lead up to it on a line, the first with lr / (warmup + 1). ValueError
    for a negative argument and for a warm-up longer than `total`.

        schedule = pyrnn.schedules.Linear(optimizer, total=1000)
    """

    def _left(self, part: float) -> float:
        return 1 - part


class Cosine(Decay):
    """Down on half a cosine, from the optimiser's lr to `end` times it after `total` steps: Loshchilov & Hutter 2017,
    arXiv:1608.03983, without restarts; torch.optim.lr_scheduler.CosineAnnealingLR, but level after `total`.

    Warm-up and errors as in `Linear`.

        schedule = pyrnn.schedules.Cosine(optimizer, total=1000, warmup=50)
    """

    def _left(self, part: float) -> float:
        return (1 + math.cos(math.pi * part)) / 2


class Plateau:
    """Times `gamma` each time a loss has not fallen for more than `patience` steps:
    torch.optim.lr_scheduler.ReduceLROnPlateau, without cooldown.

    The loss is as a rule the validation loss of an epoch; it has fallen when it is below the best so far by the
    fraction `threshold` of it. A resumed run sets `best`, `waited` and the optimiser's lr. TypeError and ValueError for
    arguments that make no schedule.

        schedule = pyrnn.schedules.Plateau(optimizer, patience=3)
        schedule.step(valid_loss)
    """

    def __init__(self, optimizer: Optimizer, gamma: float = 0.1, patience: int = 10, threshold: float = 1e-4) -> None:
        self.optimizer = _optimizer("Plateau", optimizer)
        self.gamma = real("Plateau", "gamma", gamma, 0)
        self.patience = integer("Plateau", "patience", patience, 0)
        self.threshold = real("Plateau", "threshold", threshold, 0, BELOW_1)
        self.best = math.inf
        self.waited = 0

    def step(self, loss: float) -> None:
        """Take the loss of one more step. TypeError and ValueError for what is no number, NaN among them.

        schedule.step(valid_loss)
        """
        loss = real("Plateau.step", "loss", loss, -math.inf)
        if loss < self.best * (1 - math.copysign(self.threshold, self.best)):
            self.best, self.waited = loss, 0
            return
        if self.waited < self.patience:
            self.waited += 1
            return
        self.optimizer.lr = _finite("Plateau: the learning rate", lambda: self.optimizer.lr * self.gamma)
        self.waited = 0


def _finite(what: str, rate: Callable[[], float]) -> float:
    """The learning rate that `rate` works out."""
    try:
        found = rate()
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{what} is more than a float can hold")
    return found


def _optimizer(call: str, optimizer: Optimizer) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{call}: optimizer is {type(optimizer).__name__}, expected an optimiser")
    return optimizer
