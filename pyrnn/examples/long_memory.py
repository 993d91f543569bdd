"""Long memory: what a network saw hundreds of steps ago decides its answer now.

    python -m pyrnn.examples.long_memory --plot long_memory.png

adding   x (T, N, 2)      numbers between 0 and 1 and, beside them, marks: two are 1
         y (1, N, 1)      after the last step, the sum of the two marked numbers
copying  x (T + 20, N, 10) ten letters out of eight, then T - 1 blanks, a bell, and blanks again
         y (10, N, 8)     from the bell on, the ten letters in their order

Both go back to Hochreiter & Schmidhuber 1997, here as Le, Jaitly & Hinton 2015 (arXiv:1504.00941) and Arjovsky et al.
2016 (arXiv:1511.06464) pose them. Who does not remember can do no better than to answer 1, an error of 0.167, and to
guess letters, ln 8 = 2.08. Sequences are made anew for every batch. The relu network starts from the identity, the
gates of LSTM and GRU from biases with which units remember for 1 to T steps (`pyrnn.init.chrono`); from a forget gate's
bias of 3 or 6 the same LSTM did not solve T = 400. A model stops when it has solved its problem, or after 2000 updates
(8000 of the relu network). It takes five minutes.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import plots

from . import plot_option, seed_option

LETTERS, COPIED = 8, 10


def adding(steps: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (T, N, 2), sums (1, N, 1): one mark in each half."""
    x = np.zeros((steps, rows, 2), "f4")
    x[:, :, 0] = rng.random((steps, rows))
    marked = np.stack([rng.integers(0, steps // 2, rows), rng.integers(steps // 2, steps, rows)])
    x[marked, np.arange(rows), 1] = 1
    return x, x[marked, np.arange(rows), 0].sum(axis=0)[None, :, None]


def copying(steps: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (T + 20, N, 10), letters (10, N): eight letters, blank and bell, one-hot."""
    letters = rng.integers(0, LETTERS, (COPIED, rows))
    symbols = np.full((steps + 2 * COPIED, rows), LETTERS)
    symbols[:COPIED] = letters
    symbols[COPIED + steps - 1] = LETTERS + 1
    return np.eye(LETTERS + 2, dtype="f4")[symbols], letters


class Problem(NamedTuple):
    task: str
    steps: int
    cells: tuple[str, ...]

    @property
    def solved(self) -> float:
        return 0.01 if self.task == "adding" else 0.02

    @property
    def guess(self) -> float:
        return 1 / 6 if self.task == "adding" else float(np.log(LETTERS))

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return (adding if self.task == "adding" else copying)(self.steps, rows, rng)


PROBLEMS = (
    Problem("adding", 150, ("tanh RNN", "identity relu RNN", "LSTM", "GRU")),
    Problem("adding", 400, ("tanh RNN", "LSTM", "GRU")),
    Problem("adding", 1000, ("LSTM", "GRU")),
    Problem("copying", 100, ("tanh RNN", "LSTM", "GRU")),
)
RATES = {"tanh RNN": 1e-3, "identity relu RNN": 1e-3, "LSTM": 5e-3, "GRU": 5e-3}
PATIENCE = {"identity relu RNN": 4}  # its updates are cheap, and it needs more of them


class Memory(pyrnn.Model):
    """x (T, N, I) -> y (K, N, O), what is said at the last K steps."""

    def __init__(self, cell: str, problem: Problem, hidden: int, rng: np.random.Generator) -> None:
        inputs, outputs, self.last = (2, 1, 1) if problem.task == "adding" else (LETTERS + 2, LETTERS, COPIED)
        if cell == "tanh RNN":
            rnn: pyrnn.RNN | pyrnn.LSTM | pyrnn.GRU = pyrnn.RNN(inputs, hidden, rng=rng)
        elif cell == "identity relu RNN":
            rnn = pyrnn.RNN(inputs, hidden, nonlinearity="relu", rng=rng)
            rnn.params["weight_ih_l0"] = rng.normal(0, 0.01, (hidden, inputs))
            pyrnn.init.identity(rnn)
        else:
            rnn = (pyrnn.LSTM if cell == "LSTM" else pyrnn.GRU)(inputs, hidden, rng=rng)
            pyrnn.init.chrono(rnn, problem.steps, rng)
        super().__init__(rnn=rnn, head=pyrnn.Linear(hidden, outputs, rng=rng))

    def error(self, y: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean squared error of sums, nats per letter."""
        return (pyrnn.mean_squared_error if self.last == 1 else pyrnn.cross_entropy)(y, targets)

    def update(self, x: np.ndarray, targets: np.ndarray, adam: pyrnn.Adam) -> float:
        """One step of Adam; the gradient comes in at the last steps and goes back to the first."""
        self.zero_grad()
        (h, _), pull_rnn = self.rnn.vjp(x)
        y, pull_head = self.head.vjp(h[-self.last :])
        loss, dy = self.error(y, targets)
        dh = np.zeros_like(h)
        dh[-self.last :] = pull_head(dy)
        pull_rnn(dh)
        pyrnn.clip_grad_norm(self, 1.0)
        adam.step()
        return loss

    def judge(self, x: np.ndarray, targets: np.ndarray) -> float:
        return self.error(self.head(self.rnn(x)[0][-self.last :]), targets)[0]


def learn(
    problem: Problem, cell: str, hidden: int, updates: int, rng: np.random.Generator
) -> tuple[Memory, np.ndarray, np.ndarray]:
    """Train until the mean error of 100 batches is well below solved, or to the end of the updates: the model, the
    updates (K,) and the errors (K,), each the mean of 25 batches."""
    model = Memory(cell, problem, hidden, rng)
    adam = pyrnn.Adam(model, lr=RATES[cell])
    losses: list[float] = []
    with tqdm(total=updates, desc=f"{problem.task}, T = {problem.steps}, {cell}", leave=False) as bar:
        while len(losses) < updates and not (len(losses) >= 100 and np.mean(losses[-100:]) < problem.solved / 2):
            losses.append(model.update(*problem.draw(32, rng), adam))
            bar.update()
            bar.set_postfix_str(f"error {losses[-1]:.4f}")
    means = np.array([np.mean(losses[k : k + 25]) for k in range(0, len(losses), 25)])
    return model, np.minimum(25 * np.arange(1, len(means) + 1), len(losses)), means


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--hidden", type=click.IntRange(min=1), default=64, show_default=True, help="Hidden units.")
@click.option("--updates", type=click.IntRange(min=1), default=2000, show_default=True, help="At most, of each model.")
@plot_option
@seed_option
def main(hidden: int, updates: int, plot: str | None, seed: int) -> None:
    panels = []
    print(f"{'':<20}{'':<20}{'error':>8}{'without memory':>16}{'updates':>9}{'seconds':>9}")
    for problem in PROBLEMS:
        curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for cell in problem.cells:
            rng, start = np.random.default_rng(seed), time.perf_counter()
            model, *curve = learn(problem, cell, hidden, updates * PATIENCE.get(cell, 1), rng)
            seconds, error = time.perf_counter() - start, model.judge(*problem.draw(500, rng))  # new sequences
            curves[cell] = (curve[0], curve[1])
            print(f"{problem.task + f', T = {problem.steps}':<20}{cell:<20}{error:>8.4f}{problem.guess:>16.4f}", end="")
            print(f"{curve[0][-1]:>9}{seconds:>9.1f}  {'solved' if error < problem.solved else ''}", flush=True)
        unit = "mean squared error" if problem.task == "adding" else "nats per letter"
        title = f"{problem.task}, T = {problem.steps}"
        panels.append(plots.Learning(title, curves, problem.solved, problem.guess, unit))
    if plot:
        plots.learning_curves(plot, panels, "What was seen T steps ago")


if __name__ == "__main__":
    main()
