"""Training a character model with pyrnn and with torch: characters per second, and loss after equal time.

The model of `pyrnn train --hidden 256 --embed 64 --layers 1 --batch 32 --steps 64 --lr 0.002`: embedding, one recurrent
layer, linear head, Adam, gradient norm clipped at 1, state carried from batch to batch. Both start from the same
weights and read the same batches. Before anything is timed the losses of the first batches must agree.

    python -m bench.train_vs_torch --data TEXT [--cell CELL]                      speed: blocks of batches in turns
    python -m bench.train_vs_torch --data TEXT [--cell CELL] --loss --seconds 60  held-out loss after so long each

Speed is the median over pairs of blocks, of each and of their ratio: what disturbs the machine for a while disturbs
both. The learning rate is constant here, for both.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import numpy as np
import torch

import pyrnn
from pyrnn.app.charmodel import CharModel
from pyrnn.cells import CELLS
from pyrnn.text.corpus import Batches, Corpus, read_all

from .training import BATCH, LR, MAX_NORM, STEPS, Ours, Side

EMBED, HIDDEN = 64, 256
WARM_UP = 3  # batches


class Torch(Side):
    """The same with torch, from the same weights."""

    name = f"torch {torch.__version__}"

    def __init__(self, model: CharModel, batches: Batches):
        self.batches = [[torch.from_numpy(part.astype(np.int64)) for part in batches[k]] for k in range(len(batches))]
        self.embed = torch.nn.Embedding(len(model.vocabulary), EMBED)
        self.rnn = getattr(torch.nn, model.sizes["cell"].upper())(EMBED, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, len(model.vocabulary))
        for name in ("embed", "rnn", "head"):
            weights = {key: torch.from_numpy(array) for key, array in getattr(model, name).state_dict().items()}
            getattr(self, name).load_state_dict(weights)
        self.parameters = [p for part in (self.embed, self.rnn, self.head) for p in part.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=LR)

    def train(self, inputs: Any, targets: Any) -> float:
        self.optimiser.zero_grad()
        y, state = self.rnn(self.embed(inputs), self.state)
        loss = torch.nn.functional.cross_entropy(self.head(y).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        self.optimiser.step()
        self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        return loss.item()

    def bits(self, valid: np.ndarray) -> float:
        """As charmodel.bits_per_character: BATCH streams side by side, each from a zero state."""
        length = (len(valid) - 1) // BATCH
        used = length * BATCH
        inputs, targets = (torch.from_numpy(valid[start : start + used].astype(np.int64).reshape(BATCH, length).T)
                           for start in (0, 1))  # fmt: skip
        with torch.no_grad():
            y, _ = self.rnn(self.embed(inputs))
            return torch.nn.functional.cross_entropy(self.head(y).flatten(0, 1), targets.flatten()).item() / math.log(2)


def block(side: Side, count: int) -> float:
    """Characters per second over so many batches, after a few that are not timed: the threads of the other side spin
    for some milliseconds after their last work, and the caches are full of its arrays."""
    for _ in range(WARM_UP):
        side.step()
    start = time.perf_counter()
    characters = sum(side.step()[1] for _ in range(count))
    return characters / (time.perf_counter() - start)


def agree(sides: list[Side], count: int = 10) -> None:
    """Train both for some batches and stop the program if their losses differ."""
    for k in range(count):
        ours, theirs = (side.step()[0] for side in sides)
        if not abs(ours - theirs) < 2e-4 * theirs:
            raise SystemExit(f"the losses differ at batch {k}: {ours:.6f} and {theirs:.6f}; nothing was timed")
    print(f"losses agree over the first {count} batches (the last: {ours:.5f} and {theirs:.5f} nats)")


def compare_speed(sides: list[Side], blocks: int, count: int) -> None:
    """Blocks in turns, in the order ours, theirs, theirs, ours, ..."""
    rates: list[list[float]] = [[], []]
    for k in range(blocks):
        for who in (0, 1) if k % 2 == 0 else (1, 0):
            rates[who].append(block(sides[who], count))
    for side, rate in zip(sides, rates, strict=True):
        blocks_from = f"blocks from {min(rate):,.0f} to {max(rate):,.0f}"
        print(f"{side.name:>16}: {statistics.median(rate):9,.0f} characters/s   ({blocks_from})")
    ratios = sorted(ours / theirs for ours, theirs in zip(*rates, strict=True))
    pairs_from = f"pairs from {ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"{'ratio':>16}: {statistics.median(ratios):9.2f}                ({pairs_from})")


def compare_loss(sides: list[Side], seconds: float, count: int, valid: np.ndarray) -> None:
    """Blocks in turns until each has trained for so long; validation is not in the time."""
    spent, characters = [0.0, 0.0], [0, 0]
    while min(spent) < seconds:
        for who, side in enumerate(sides):
            if spent[who] < seconds:
                start = time.perf_counter()
                characters[who] += sum(side.step()[1] for _ in range(count))
                spent[who] += time.perf_counter() - start
    for side, read, time_taken in zip(sides, characters, spent, strict=True):
        print(f"{side.name:>16}: {side.bits(valid):.3f} bits per character held out, after {time_taken:.1f} s "
              f"and {read:,} characters")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a UTF-8 text (default: Python's language reference)")
    parser.add_argument("--cell", choices=[k for k, v in CELLS.items() if "torch" in v.orders], default="lstm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=15, help="pairs of blocks")
    parser.add_argument("--batches", type=int, default=20, help="batches in a block")
    parser.add_argument("--loss", action="store_true", help="compare the loss after equal time, not the speed")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each, with --loss")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    pyrnn.set_num_threads(options.threads)
    corpus = Corpus(read_all([options.data] if options.data else []))
    batches = Batches(corpus.train, BATCH, STEPS)
    model = CharModel(corpus.vocabulary, options.cell, EMBED, HIDDEN, rng=0)
    print(f"{options.cell}, {HIDDEN} units, {STEPS} steps x {BATCH} rows, {model.num_parameters:,} parameters, "
          f"{options.threads} threads, {pyrnn.kernels.isa()}")  # fmt: skip
    sides = [Ours(model, batches), Torch(model, batches)]
    agree(sides)
    if options.loss:
        compare_loss(sides, options.seconds, options.batches, corpus.valid)
    else:
        compare_speed(sides, options.blocks, options.batches)


if __name__ == "__main__":
    main()
