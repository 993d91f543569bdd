"""Data to begin with: two sets that come with the package, and two tasks that are drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.checks import MOST, Array, Rng, generator, integer

LETTERS, COPIED = 8, 10
PASSENGERS = """
    112 118 132 129 121 135 148 148 136 119 104 118 115 126 141 135 125 149 170 170 158 133 114 140
    145 150 178 163 172 178 199 199 184 162 146 166 171 180 193 181 183 218 230 242 209 191 172 194
    196 196 236 235 229 243 264 272 237 211 180 201 204 188 235 227 234 264 302 293 259 229 203 229
    242 233 267 269 270 315 364 347 312 274 237 278 284 277 317 313 318 374 413 405 355 306 271 306
    315 301 356 348 355 422 465 467 404 347 305 336 340 318 362 348 363 435 491 505 404 359 310 337
    360 342 406 396 420 472 548 559 463 407 362 405 417 391 419 461 472 535 622 606 508 461 390 432
"""


def load_names() -> tuple[list[str], list[str]]:
    """Surnames and the language each is from: names, languages, both of (N,) strings, sorted by language.

    11,459 names in 19 languages, of a language 49 to 1000; some are in more than one. They are from Faker
    (https://faker.readthedocs.io, MIT licence), Georgian, Greek and Russian ones in Latin letters. No errors.

        names, languages = pyrnn.data.load_names()
        vocabulary = pyrnn.text.Vocabulary.of("".join(names))
    """
    text = (Path(__file__).parent / "names.txt").read_text(encoding="utf-8")
    _, *blocks = text.strip().split("\n\n")  # the first is the licence
    pairs = [(name, language) for language, *names in map(str.splitlines, blocks) for name in names]
    return [name for name, _ in pairs], [language for _, language in pairs]


def load_passengers() -> Array:
    """Passengers of international airlines in thousands, each month from 1949 to 1960: (T,) float64, T = 144.

    The series G of Box and Jenkins 1976: it grows, and its yearly season grows with it. No errors.

        y = np.log(pyrnn.data.load_passengers())
    """
    return np.array(PASSENGERS.split(), np.float64)


def make_adding(steps: int, rows: int, rng: Rng = None) -> tuple[Array, Array]:
    """The adding problem (Hochreiter & Schmidhuber 1997): remember two numbers of many, and say their sum.

    x (T, N, 2) float32: numbers between 0 and 1 and, beside them, marks: one is 1 in each half of the steps.
    sums (1, N, 1): of the two marked numbers. Who does not remember says 1, with a mean squared error of 1/6.

    T is `steps`, at least 2; N is `rows`; rng as in `minibatches`. TypeError and ValueError for what is no integer or
    too small.

        x, sums = pyrnn.data.make_adding(150, 32, rng=0)  # (150, 32, 2), (1, 32, 1)
    """
    steps, rows = integer("make_adding", "steps", steps, 2, MOST), integer("make_adding", "rows", rows, 0, MOST)
    rng = generator("make_adding", rng)
    x = np.zeros((steps, rows, 2), "f4")
    x[:, :, 0] = rng.random((steps, rows))
    marked = np.stack([rng.integers(0, steps // 2, rows), rng.integers(steps // 2, steps, rows)])
    x[marked, np.arange(rows), 1] = 1
    return x, x[marked, np.arange(rows), 0].sum(axis=0)[None, :, None]


def make_copying(steps: int, rows: int, rng: Rng = None) -> tuple[Array, Array]:
    """The copying problem (Hochreiter & Schmidhuber 1997): say ten letters again, long after they were read.

    x (T + 20, N, 10) float32, one-hot: ten letters out of eight, T - 1 blanks, a bell, and ten blanks.
    letters (10, N) int64: what is to be said from the bell on. Who does not remember loses ln 8 = 2.08 nats a letter.

    T is `steps`, at least 1; N is `rows`; rng as in `minibatches`. TypeError and ValueError for what is no integer or
    too small.

        x, letters = pyrnn.data.make_copying(100, 32, rng=0)  # (120, 32, 10), (10, 32)
    """
    steps, rows = integer("make_copying", "steps", steps, 1, MOST), integer("make_copying", "rows", rows, 0, MOST)
    letters = generator("make_copying", rng).integers(0, LETTERS, (COPIED, rows))
    symbols = np.full((steps + 2 * COPIED, rows), LETTERS)
    symbols[:COPIED] = letters
    symbols[COPIED + steps - 1] = LETTERS + 1
    return np.eye(LETTERS + 2, dtype="f4")[symbols], letters
