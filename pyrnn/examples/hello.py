"""The next letter of "hello": the smallest character model there is, drawn with all its numbers.

    python -m pyrnn.examples.hello

    vocabulary   h, e, l, o                              4 letters, each a one-hot vector
    in           "hell"                x (T, 4)          T = 4 steps
    hidden       3 units               h (T, 3)          h_t = tanh(W_xh x_t + W_hh h_t-1 + b)
    out          "ello"                logits (T, 4)     one number for each letter that could be next

After "l" comes "l" the first time and "o" the second: no table of pairs knows which. The hidden state does, it is all
the network remembers. This is the drawing of Stanford's CS231n (lecture on recurrent networks, after Karpathy's "The
Unreasonable Effectiveness of Recurrent Neural Networks", 2015), with numbers that were learned. Under a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import pyrnn

from . import count_option, lesson

LETTERS = "helo"
WORD = "hello"


class Letters(pyrnn.Model):
    """One-hot letters (T, 4) -> logits (T, 4) of the letters that follow."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__(rnn=pyrnn.RNN(len(LETTERS), hidden), head=pyrnn.Linear(hidden, len(LETTERS)), rng=rng)

    def vjp(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], Any]]:
        (h, _), pull_rnn = self.rnn.vjp(x)  # (T, H): the hidden state after every step
        logits, pull_head = self.head.vjp(h)
        return h, logits, lambda dlogits: pull_rnn(pull_head(dlogits))


def one_hot(text: str) -> np.ndarray:
    return np.eye(len(LETTERS), dtype=np.float32)[[LETTERS.index(letter) for letter in text]]


def learn(model: Letters, steps: int) -> float:
    """The loss in nats per letter after so many steps of Adam."""
    x, targets = one_hot(WORD[:-1]), [LETTERS.index(letter) for letter in WORD[1:]]
    adam = pyrnn.Adam(model, lr=0.05)
    loss = np.inf
    for _ in range(steps):
        model.zero_grad()
        _, logits, pullback = model.vjp(x)
        loss, dlogits = pyrnn.cross_entropy(logits, targets)
        pullback(dlogits)
        adam.step()
    return loss


def write(model: Letters, first: str, length: int) -> str:
    """Free running: each letter that comes out is the next one that goes in."""
    text, stream = first, model.rnn.stream()
    while len(text) < length:
        h = stream.step(one_hot(text[-1])[0])  # (4,) -> (3,)
        text += LETTERS[int(np.argmax(model.head(h)))]
    return text


def drawing(model: Letters) -> str:
    """The network unrolled over the word, from the inputs below to the targets above, as the lecture draws it."""
    x = one_hot(WORD[:-1])
    h, logits, _ = model.vjp(x)
    names = [f"t = {t}" for t in range(1, len(x) + 1)]

    def row(label: str, cells: Sequence[str]) -> str:
        return f"{label:<26}" + "".join(f"{cell:>12}" for cell in cells)

    def block(label: str, shape: str, values: np.ndarray, form: str) -> list[str]:
        labels = [label, f"  {shape}"] + [""] * len(values.T)
        return [row(text, [format(v, form) for v in line]) for text, line in zip(labels, values.T, strict=False)]

    weights = {name: tuple(array.shape) for name, array in model.params.items()}
    arrow = ["^"] * len(x)
    lines = [
        row("step", names),
        "",
        row("target letters", [repr(letter) for letter in WORD[1:]]),
        row("likeliest letters", [repr(LETTERS[k]) for k in logits.argmax(axis=1)]),
        *block(f"output layer: {', '.join(LETTERS)}", f"logits {logits.shape}", logits, ".1f"),
        row(f"  W_hy {weights['head.weight']}", arrow),
        *block("hidden layer", f"h {h.shape}", h, ".2f"),
        row(f"  W_hh {weights['rnn.weight_hh_l0']}, to the right", ["----->"] * (len(x) - 1)),
        row(f"  W_xh {weights['rnn.weight_ih_l0']}", arrow),
        *block(f"input layer: {', '.join(LETTERS)}", f"x {x.shape}", x, ".0f"),
        row("input letters", [repr(letter) for letter in WORD[:-1]]),
    ]
    return "\n".join(lines)


@lesson(__doc__)
@count_option("--hidden", 3, "Hidden units.")
@count_option("--steps", 200, "Steps of Adam.")
def main(hidden: int, steps: int, seed: int) -> None:
    model = Letters(hidden, np.random.default_rng(seed))
    print(f"Before: {write(model, WORD[0], len(WORD))}, after: ", end="")
    loss = learn(model, steps)
    print(f"{write(model, WORD[0], len(WORD))} ({loss:.4f} nats per letter, {model.num_parameters} parameters)\n")
    print(drawing(model))


if __name__ == "__main__":
    main()
