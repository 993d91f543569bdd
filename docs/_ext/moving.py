"""The directive `moving`, which shows a page that moves, and these pages, made with the site: a character model and an
attention head, trained here, and digits."""

from pathlib import Path

import numpy as np
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import pyrnn
from pyrnn.app import charmodel, show

FOLDER = "moving"  # of the site
# Without scripts as high as most; moving.js makes it as high as the page is.
FRAME = "width: 100%; height: 66rem; border: 1px solid var(--pst-color-border); border-radius: .4rem"
VOWELS = "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 24  # places of a sequence
DIGITS = (  # five by seven
    "01110 10001 10011 10101 11001 10001 01110", "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111", "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010", "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110", "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110", "01110 10001 10001 01111 00001 00010 01100",
)  # fmt: skip


def characters() -> str:
    """An LSTM that reads Python's language reference a few times."""
    corpus = pyrnn.text.Corpus(pyrnn.text.language_reference())
    model = charmodel.CharModel(corpus.vocabulary, "lstm", embed=16, hidden=64, rng=0)
    adam = pyrnn.Adam(model, lr=5e-3)
    rows, steps = 32, 50
    ids = corpus.train[: len(corpus.train) // rows * rows].reshape(rows, -1).T  # (T, N)
    for _ in range(4):
        state = None
        for start in range(0, len(ids) - steps, steps):
            model.zero_grad()
            (logits, state), pullback = model.vjp(ids[start : start + steps], state)
            pullback(pyrnn.cross_entropy(logits, ids[start + 1 : start + steps + 1])[1])
            pyrnn.clip_grad_norm(model, 1.0)
            adam.step()
    return show.characters(model, "for name in names:\n    return the value of the expression")


def recall() -> str:
    """Ten digits in a net with the pseudo-inverse rule."""
    small = np.array([[[c == "1" for c in line] for line in digit.split()] for digit in DIGITS])
    images = np.pad(np.kron(small, np.ones((2, 2))), ((0, 0), (1, 1), (1, 1)))  # (10, 16, 12)
    net = pyrnn.Hopfield(images[0].size)
    net.store(np.where(images.reshape(10, -1) > 0, 1, -1), rule="pseudo_inverse")
    return show.recall(net, images[0].shape)


def attention() -> str:
    """One layer that has learned to name, at every place of random letters, the last vowel before."""
    rng = np.random.default_rng(0)
    encode = pyrnn.PositionalEncoding(32)
    model = pyrnn.Model(
        embed=pyrnn.Embedding(len(LETTERS), 32, rng=1),
        attention=pyrnn.MultiheadAttention(32, 1, rng=1),
        head=pyrnn.Linear(32, len(VOWELS) + 1, rng=1),
    )
    adam = pyrnn.Adam(model, lr=5e-3)
    vowels = np.array([VOWELS.find(letter) for letter in LETTERS])  # -1 for consonants
    chances = np.where(vowels >= 0, 0.3 / len(VOWELS), 0.7 / (len(LETTERS) - len(VOWELS)))
    for _ in range(1000):
        ids = rng.choice(len(LETTERS), (LONGEST, 32), p=chances)
        there = vowels[ids]
        last = np.maximum.accumulate(np.where(there >= 0, np.arange(LONGEST)[:, None], -1))
        targets = np.where(last < 0, len(VOWELS), np.take_along_axis(there, np.maximum(last, 0), axis=0))
        model.zero_grad()
        x, pull_embed = model.embed.vjp(ids)
        y, pull_attention = model.attention.vjp(encode(x), is_causal=True)
        logits, pull_head = model.head.vjp(y)
        pull_embed(pull_attention(pull_head(pyrnn.cross_entropy(logits, targets)[1]))[0])
        adam.step()
    table = encode.table(range(LONGEST))
    return show.attention(model.attention, LETTERS, model.embed.params["weight"], table, "programmersinlisbon", True)


PAGES = {"characters": characters, "recall": recall, "attention": attention}


class Moving(SphinxDirective):
    """All pages that have it lie in the first folder."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        file, title = f"{FOLDER}/{name}.html", PAGES[name].__doc__
        frame = f'<iframe src="{file}" title="{title}" loading="lazy" style="{FRAME}"></iframe>'
        fit = '<script src="_static/moving.js"></script>'
        return [nodes.raw("", f'<p>{frame}{fit}<a href="{file}">In a window of its own</a></p>', format="html")]


def finished(app, error):
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / FOLDER
        folder.mkdir(exist_ok=True)
        for name, page in PAGES.items():
            (folder / f"{name}.html").write_text(page(), encoding="utf-8")


def setup(app):
    app.add_directive("moving", Moving)
    app.connect("build-finished", finished)
    return {"parallel_read_safe": True}
