"""A character model on its way through its batches: what the scripts that train it share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

import pyrnn
from pyrnn.app.charmodel import CharModel, bits_per_character
from pyrnn.text.corpus import Batches

BATCH, STEPS, LR, MAX_NORM = 32, 64, 0.002, 1.0  # as `pyrnn train`


class Side(ABC):
    """One of the two that are compared: it walks through the batches, and carries its state from each to the next."""

    name: str
    batches: Any  # (inputs, targets), (T, N) integers each
    state: Any = None
    done = 0

    @abstractmethod
    def train(self, inputs: Any, targets: Any) -> float:
        """One update; its loss."""

    @abstractmethod
    def bits(self, valid: np.ndarray) -> float:
        """Per character of the held-out text."""

    def step(self) -> tuple[float, int]:
        """Train on the next batch; its loss and its number of characters."""
        window = self.done % len(self.batches)
        if window == 0:
            self.state = None
        inputs, targets = self.batches[window]
        self.done += 1
        return self.train(inputs, targets), math.prod(inputs.shape)


class Ours(Side):
    """Training with pyrnn."""

    name = f"pyrnn {pyrnn.__version__}"

    def __init__(self, model: CharModel, batches: Batches):
        self.model, self.batches = model, batches
        self.optimiser = pyrnn.Adam(model, lr=LR)

    def train(self, inputs: Any, targets: Any) -> float:
        self.model.zero_grad()
        (logits, self.state), pullback = self.model.vjp(inputs, self.state)
        loss, dlogits = pyrnn.cross_entropy(logits, targets)
        pullback(dlogits)
        pyrnn.clip_grad_norm(self.model, MAX_NORM)
        self.optimiser.step()
        return float(loss)

    def bits(self, valid: np.ndarray) -> float:
        return bits_per_character(self.model, valid, BATCH)
