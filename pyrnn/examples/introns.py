"""Introns in genes, base by base: which parts of a gene are cut out before it is read (many-to-many, both directions).

    python -m pyrnn.examples.introns --data dna/ --plot introns.png

    in       bases of N genes, padded          ids (T, N), lengths (N,); T up to 5,728
    embed    each base a vector                x (T, N, E); in training some bases are hidden
    rnn      two layers of GRU, both ways      y (T, N, 2H): at each base what is known from either side
    out      above 0 inside an intron          logits (T, N, 1), trained with binary cross-entropy over valid steps

An intron begins with GT and ends with AG, but most GTs and AGs are no ends: what counts is what they look like
together. The data are the 270 genes of yeast that have introns, 280 of them. A fifth of the genes has
chosen the settings, the validation part, another is the test part; near copies of each other stay in one. Beside the
network stand k-mers: log-odds of each base after the k - 1 before it, in introns and outside, averaged over a window,
above a threshold. k and window are the best of the validation part; the threshold is the best of each part.

F1 per base on the 58 genes of the test part: 0.62, k-mers (k = 5, window 181) 0.46. The 53 of validation have 0.80 and
0.63, but they are easier: 24% of their bases are in introns, of the test part's 11%. Of fifty genes a figure says
little more than which of two ways is the better. A minute of computing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pyrnn
from pyrnn import metrics, ngrams, plots, text

from . import count_option, data_option, enough, lesson, parts, reading, table

BASES = text.Vocabulary("ACGT")


class Gene(NamedTuple):
    name: str
    bases: str
    introns: list[tuple[int, int]]  # first base and the one after the last, from 0
    inside: np.ndarray  # (T,) booleans: is the base in an intron?


def read(folder: str | Path) -> list[Gene]:
    """The genes of genes_with_introns.fsa with the introns of introns.txt, whose first and last bases count from 1."""
    path, genes = Path(folder) / "genes_with_introns.fsa", dict[str, Gene]()
    for name, bases in text.read_fasta(path).items():
        BASES.encode(bases.upper(), f"{path}, {name}")
        genes[name] = Gene(name, bases.upper(), [], np.zeros(len(bases), bool))
    enough(path, "genes", len(genes), 10)
    for place, line in text.lines(Path(folder) / "introns.txt"):
        columns = line.split()
        if len(columns) != 4 or not (columns[2] + columns[3]).isdecimal():
            raise ValueError(f"{place}: {line[:40]!r}, expected id, gene, first base, last base")
        name, first, last = columns[1], int(columns[2]), int(columns[3])
        if name not in genes:
            raise ValueError(f"{place}: the gene {name} is not in {path.name}")
        if not 1 <= first <= last <= len(genes[name].bases):
            raise ValueError(f"{place}: {first} to {last}, expected 1 to {len(genes[name].bases)}, bases of {name}")
        genes[name].introns.append((first - 1, last))
        genes[name].inside[first - 1 : last] = True
    enough(Path(folder) / "introns.txt", "introns", sum(len(gene.introns) for gene in genes.values()), 10)
    return list(genes.values())


class Hide(pyrnn.Model):
    """In training a tenth of the bases is hidden."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng = rng

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return ids

    def vjp(self, ids: np.ndarray) -> tuple[np.ndarray, Callable[[None], None]]:
        return np.where(self.rng.random(ids.shape) < 0.1, len(BASES), ids), lambda _: None


def train(genes: Sequence[Gene], epochs: int, rng: np.random.Generator, batch: int = 8) -> pyrnn.Sequential:
    """A network that has learned from these genes: bases (T, N) -> logits (T, N, 1)."""
    network = pyrnn.Sequential(
        Hide(rng),
        pyrnn.Embedding(len(BASES) + 1, 8),  # and a hidden base
        pyrnn.GRU(8, 48, 2, dropout=0.2, bidirectional=True),
        pyrnn.Dropout(0.3),
        pyrnn.Linear(2 * 48, 1),
        rng=rng,
    )
    ids, targets = [BASES.encode(gene.bases) for gene in genes], [gene.inside[:, None] for gene in genes]
    adam = pyrnn.Adam(network, lr=5e-3)
    pyrnn.fit(network, ids, targets, pyrnn.binary_cross_entropy, epochs=epochs, batch_size=batch, optimizer=adam,
              rng=rng)  # fmt: skip
    return network


def chances(network: pyrnn.Sequential, gene: Gene) -> np.ndarray:
    """Of each base to be in an intron, (T,)."""
    sigmoid: np.ndarray = 1 / (1 + np.exp(-network(BASES.encode(gene.bases))[:, 0]))
    return sigmoid


def k_mers(learned: Sequence[Gene], judged: Iterable[Sequence[Gene]], k: int, window: int) -> list[float]:
    """F1 of log-odds averaged over a window, on each of the judged parts at its best threshold."""
    odds = ngrams.LogOdds([BASES.encode(g.bases) for g in learned], [g.inside for g in learned], k, len(BASES))
    return [metrics.best_f1(np.concatenate([odds(BASES.encode(gene.bases), window) for gene in genes]), inside(genes))
            for genes in judged]  # fmt: skip


def inside(genes: Sequence[Gene]) -> np.ndarray:
    """Of all their bases."""
    return np.concatenate([gene.inside for gene in genes])


@lesson(__doc__)
@data_option("dna", "a folder with genes_with_introns.fsa (FASTA) and introns.txt (id, gene, first base, last base)")
@count_option("--epochs", 36)
def main(data: str, plot: str | None, epochs: int, seed: int) -> None:
    with reading():
        genes = read(data)
        groups = pyrnn.data.families([gene.bases for gene in genes], word=20, common=50)
        enough(data, "families of genes", len(groups), 5)
    rng = np.random.default_rng(seed)
    ends = [gene.bases[a : a + 2] + "..." + gene.bases[b - 2 : b] for gene in genes for a, b in gene.introns]
    print(f"{len(genes)} genes, {len(ends)} introns, {ends.count('GT...AG')} of them GT...AG, "
          f"{ends.count('GC...AG')} GC...AG")  # fmt: skip
    split = {part: [genes[n] for k in rows for n in groups[k]]
             for part, rows in parts(len(groups), 0.2, seed).items()}  # fmt: skip
    network, figures = train(split["training"], epochs, rng), list[float]()
    for some in split.values():
        said = [chances(network, gene) for gene in some]
        figures.append(metrics.f1(np.concatenate(said) > 0.5, inside(some)))
    found = {f"best k-mers, k = {k}, window {window}": k_mers(split["training"], split.values(), k, window)
             for k in range(3, 8) for window in (41, 81, 121, 181, 241)}  # fmt: skip
    best = max(found, key=lambda name: found[name][1])
    flat = [metrics.f1(np.ones_like(true), true) for true in map(inside, split.values())]
    print("genes: " + ", ".join(f"{part} {len(some)}" for part, some in split.items()))
    table("F1 per base", {"the network": figures, best: found[best], "all bases are intron": flat}, ".2f")
    if plot:
        shown = sorted(range(len(some)), key=lambda n: -len(some[n].introns))[:4]
        title = f"Introns of genes of the test part: F1 per base {figures[-1]:.2f}, k-mers {found[best][-1]:.2f}"
        plots.spans(plot, {some[n].name: (said[n], some[n].introns) for n in shown}, title, span="intron")


if __name__ == "__main__":
    main()
