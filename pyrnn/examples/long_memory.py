"""Long memory: what a network saw hundreds of steps ago decides its answer now.

    python -m pyrnn.examples.long_memory --plot long_memory.png

adding   x (T, N, 2)      numbers between 0 and 1 and, beside them, marks: two are 1
         y (1, N, 1)      after the last step, the sum of the two marked numbers
copying  x (T + 20, N, 10) ten letters out of eight, then T - 1 blanks, a bell, and blanks again
         y (10, N, 8)     from the bell on, the ten letters in their order

Both go back to Hochreiter & Schmidhuber 1997, here as in Le, Jaitly & Hinton 2015 (arXiv:1504.00941) and Arjovsky et
al. 2016 (arXiv:1511.06464). Who does not remember can do no better than to answer 1, an error of 0.167, and to guess
letters, ln 8 = 2.08. The relu network starts from the identity, the gates of LSTM and GRU from biases with which units
remember for 1 to T steps (`pyrnn.init.chrono`); from a forget gate's bias of 3 or 6 the LSTM did not solve T = 400.
A model stops when it has solved its problem, or after 2000 updates (8000 of the relu network): a minute and a half.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import data, plots

from . import count_option, lesson

Task = namedtuple("Task", ["name", "draw", "loss", "unit", "inputs", "outputs", "guess", "solved"])
ADDING = Task("adding", data.make_adding, pyrnn.mean_squared_error, "mean squared error", 2, 1, 1 / 6, solved=0.01)
COPYING = Task("copying", data.make_copying, pyrnn.cross_entropy, "nats per letter", 10, 8, np.log(8), solved=0.02)
PROBLEMS = (
    (ADDING, 150, ("tanh RNN", "identity relu RNN", "LSTM", "GRU")),
    (ADDING, 400, ("tanh RNN", "LSTM", "GRU")),
    (ADDING, 1000, ("LSTM", "GRU")),
    (COPYING, 100, ("tanh RNN", "LSTM", "GRU")),
)


def network(cell: str, task: Task, steps: int, hidden: int, rng: np.random.Generator) -> pyrnn.Model:
    """A recurrent layer with the first values that let it remember, and a head that reads it."""
    if cell in ("LSTM", "GRU"):
        rnn = getattr(pyrnn, cell)(task.inputs, hidden, rng=rng)
        pyrnn.init.chrono(rnn, steps, rng)
    else:
        rnn = pyrnn.RNN(task.inputs, hidden, nonlinearity="relu" if "relu" in cell else "tanh", rng=rng)
    if cell == "identity relu RNN":
        rnn.params["weight_ih_l0"] = rng.normal(0, 0.01, (hidden, task.inputs))
        pyrnn.init.identity(rnn)
    return pyrnn.Model(rnn=rnn, head=pyrnn.Linear(hidden, task.outputs, rng=rng))


def learn(model: pyrnn.Model, task: Task, steps: int, updates: int, rng: np.random.Generator) -> list[float]:
    """The error of each update, to the last or until the mean of 100 is well below solved."""
    adam = pyrnn.Adam(model, lr=1e-3 if isinstance(model.rnn, pyrnn.RNN) else 5e-3)
    errors: list[float] = []
    for _ in tqdm(range(updates), desc=f"{task.name}, T = {steps}", leave=False):
        x, targets = task.draw(steps, 32, rng)
        model.zero_grad()
        (h, _), pull_rnn = model.rnn.vjp(x)
        y, pull_head = model.head.vjp(h[-len(targets) :])
        error, dy = task.loss(y, targets)
        before = np.zeros_like(h[: -len(targets)])  # the gradient comes in at the last steps and goes back to the first
        pull_rnn(np.concatenate([before, pull_head(dy)]))
        pyrnn.clip_grad_norm(model, 1.0)
        adam.step()
        errors.append(error)
        if len(errors) >= 100 and np.mean(errors[-100:]) < task.solved / 2:
            break
    return errors


@lesson(__doc__)
@count_option("--hidden", 64, "Hidden units.")
@count_option("--updates", 2000, "At most, of each model.")
def main(hidden: int, updates: int, plot: str | None, seed: int) -> None:
    panels = []
    print(f"{'':<20}{'':<20}{'error':>8}{'without memory':>16}{'updates':>9}")
    for task, steps, cells in PROBLEMS:
        title, curves = f"{task.name}, T = {steps}", {}
        for cell in cells:
            rng = np.random.default_rng(seed)
            model = network(cell, task, steps, hidden, rng)
            curves[cell] = learn(model, task, steps, updates * (4 if "relu" in cell else 1), rng)
            x, targets = task.draw(steps, 500, rng)  # new sequences
            error, _ = task.loss(model.head(model.rnn(x)[0][-len(targets) :]), targets)
            print(f"{title:<20}{cell:<20}{error:>8.4f}{task.guess:>16.4f}{len(curves[cell]):>9}", end="")
            print("  solved" if error < task.solved else "", flush=True)
        panels.append(plots.Learning(title, curves, task.solved, task.guess, task.unit))
    if plot:
        plots.learning_curves(plot, panels, "What was seen T steps ago")


if __name__ == "__main__":
    main()
