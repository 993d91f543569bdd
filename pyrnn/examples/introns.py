"""Introns in genes, base by base: which parts of a gene are cut out before it is read (many-to-many, both directions).

    python -m pyrnn.examples.introns --data dna/ --plot introns.png

    in       bases of N genes, padded          ids (T, N), lengths (N,); T up to 5,728
    embed    each base a vector                x (T, N, E); in training some bases are hidden
    rnn      two layers of GRU, both ways      y (T, N, 2H): at each base what is known from either side
    out      above 0 inside an intron          logits (T, N, 1), trained with binary cross-entropy over valid steps

An intron begins with GT, ends with AG and has a branch point (TACTAAC in yeast) before its end, but most GTs and AGs
are no ends: what counts is what they look like together, hundreds of bases apart. The data are the 270 genes of yeast
that have introns, on the coding strand, with the places of 280 introns; how many of these fit the rule is printed. A
fifth of the genes is held out; near copies of each other (50 words of 20 bases in common) stay on one side.

Beside the network stand k-mers: the log-odds of each base after the k - 1 before it, inside and outside of introns,
averaged over a window, above a threshold. k, window and threshold are the best ones on the held-out genes themselves.

F1 per base on 53 held-out genes: 0.773, the best k-mers (k = 5, window 181) have 0.636; one minute of computing. 270 of
the 280 introns are GT...AG and 8 are GC...AG.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import data, ngrams, plots, schedules, text

from . import data_option, plot_option, seed_option

BASES = "ACGT"
HIDDEN_BASE = len(BASES)


class Gene(NamedTuple):
    name: str
    bases: str
    introns: list[tuple[int, int]]  # first base and the one after the last, from 0

    @property
    def ids(self) -> np.ndarray:
        return np.array([BASES.index(base) for base in self.bases])

    @property
    def inside(self) -> np.ndarray:
        """(T,) booleans: is the base in an intron?"""
        places = np.arange(len(self.bases))
        inside: np.ndarray = np.any([(first <= places) & (places < end) for first, end in self.introns], axis=0)
        return inside


def read(folder: str | Path) -> list[Gene]:
    """The genes of genes_with_introns.fsa with the introns of introns.txt, whose first and last bases count from 1."""
    introns = defaultdict(list)
    for line in text.read(Path(folder) / "introns.txt").splitlines():
        _, name, first, last = line.split()
        introns[name].append((int(first) - 1, int(last)))
    genes = []
    for record in text.read(Path(folder) / "genes_with_introns.fsa").split(">")[1:]:
        head, *lines = record.splitlines()
        genes.append(Gene(head.split()[0], "".join(lines), introns[head.split()[0]]))
    return genes


def families(genes: Sequence[Gene], word: int = 20, common: int = 50) -> list[list[int]]:
    """Genes in groups: two with so many words in common are in one group."""
    words = [{gene.bases[k : k + word] for k in range(len(gene.bases) - word + 1)} for gene in genes]
    group = list(range(len(genes)))
    for a in range(len(genes)):
        for b in range(a):
            if len(words[a] & words[b]) >= common:
                group = [group[b] if g == group[a] else g for g in group]
    return [[n for n, g in enumerate(group) if g == k] for k in sorted(set(group))]


def f1(said: Sequence[np.ndarray], genes: Sequence[Gene]) -> float:
    """Over the bases of all genes."""
    a, b = np.concatenate(said), np.concatenate([gene.inside for gene in genes])
    return float(2 * np.sum(a & b) / max(a.sum() + b.sum(), 1))


class Network(pyrnn.Model):
    """Bases (T, N) -> logits (T, N, 1)."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__(
            embed=pyrnn.Embedding(len(BASES) + 1, 8, rng=rng),
            rnn=pyrnn.GRU(8, hidden, 2, dropout=0.2, bidirectional=True, rng=rng),
            drop=pyrnn.Dropout(0.3, rng=rng),
            head=pyrnn.Linear(2 * hidden, 1, rng=rng),
        )

    def __call__(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.head(self.rnn(self.embed(ids), lengths=lengths)[0])
        return logits

    def vjp(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        x, pull_embed = self.embed.vjp(ids)
        (y, _), pull_rnn = self.rnn.vjp(x, lengths=lengths)
        y, pull_drop = self.drop.vjp(y)
        logits, pull_head = self.head.vjp(y)
        return logits, lambda dlogits: pull_embed(pull_rnn(pull_drop(pull_head(dlogits)))[0])


def train(genes: Sequence[Gene], *, hidden: int = 48, epochs: int = 36, batch: int = 8, lr: float = 5e-3,
          hide: float = 0.1, seed: int = 0) -> Callable[[Gene], np.ndarray]:  # fmt: skip
    """A function of a gene: the chance of each base to be in an intron, (T,)."""
    rng = np.random.default_rng(seed)
    network = Network(hidden, rng)
    adam = pyrnn.Adam(network, lr)
    schedule = schedules.Cosine(adam, epochs * -(-len(genes) // batch))
    with tqdm(total=schedule.total, unit="batch", disable=None) as bar:
        for _ in range(epochs):
            for rows in data.minibatches(len(genes), batch, rng):
                ids, lengths = data.pad([genes[n].ids for n in rows])
                targets, _ = data.pad([genes[n].inside for n in rows])
                network.zero_grad()
                logits, pullback = network.vjp(np.where(rng.random(ids.shape) < hide, HIDDEN_BASE, ids), lengths)
                loss, dlogits = pyrnn.binary_cross_entropy(logits, targets[..., None], lengths=lengths)
                pullback(dlogits)
                pyrnn.clip_grad_norm(network, 1.0)
                adam.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    return lambda gene: 1 / (1 + np.exp(-network(gene.ids[:, None], np.array([len(gene.bases)]))[:, 0, 0]))


def k_mers(genes: Sequence[Gene], held_out: Sequence[Gene]) -> tuple[float, str, list[np.ndarray]]:
    """The best F1 of k-mers on the held-out genes, which k-mers, and what they say of each gene."""
    best = (-1.0, "", list[np.ndarray]())
    for k in range(3, 8):
        parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
        for gene in genes:
            edges = np.flatnonzero(np.diff(gene.inside)) + 1
            for ids, inside in zip(np.split(gene.ids, edges), np.split(gene.inside, edges), strict=True):
                parts[bool(inside[0])].append(ids)
        models = {inside: ngrams.NGram(sequences, k, len(BASES)) for inside, sequences in parts.items()}
        odds = [np.log(models[True].probabilities(g.ids) / models[False].probabilities(g.ids)) for g in held_out]
        for window in (41, 81, 121, 181, 241):
            means = [np.convolve(row, np.ones(window) / window)[window // 2 :][: len(row)] for row in odds]
            for threshold in np.quantile(np.concatenate(means), np.linspace(0.5, 0.95, 19)):
                said = [row > threshold for row in means]
                best = max(best, (f1(said, held_out), f"k = {k}, window {window}", said), key=lambda item: item[0])
    return best


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@data_option("a folder with genes_with_introns.fsa (FASTA) and introns.txt (id, gene, first base, last base)",
             "https://github.com/kmccue/yeast_data")  # fmt: skip
@plot_option
@click.option("--hidden", type=click.IntRange(min=1), default=48, show_default=True, help="Units of each direction.")
@click.option("--epochs", type=click.IntRange(min=1), default=36, show_default=True)
@seed_option
def main(data: str, plot: str | None, hidden: int, epochs: int, seed: int) -> None:
    start = time.perf_counter()
    genes = read(data)
    ends = [(gene.bases[a : a + 2], gene.bases[b - 2 : b]) for gene in genes for a, b in gene.introns]
    print(f"{len(genes)} genes, {len(ends)} introns, {ends.count(('GT', 'AG'))} of them GT...AG, "
          f"{ends.count(('GC', 'AG'))} GC...AG")  # fmt: skip
    groups = families(genes)
    parts = pyrnn.data.held_out(len(groups), 0.2, seed)
    learned, held_out = ([genes[n] for k in rows for n in groups[k]] for rows in parts)
    chance = train(learned, hidden=hidden, epochs=epochs, seed=seed)
    chances = [chance(gene) for gene in held_out]
    figure, (beside, which, _) = f1([row > 0.5 for row in chances], held_out), k_mers(learned, held_out)
    print(f"F1 per base on {len(held_out)} held-out genes: {figure:.3f} (best k-mers: {beside:.3f}, {which}; "
          f"all bases said to be intron: {f1([row >= 0 for row in chances], held_out):.3f}), "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    if plot:
        shown = sorted(range(len(held_out)), key=lambda n: -len(held_out[n].introns))[:4]
        plots.spans(plot, {held_out[n].name: (chances[n], held_out[n].introns) for n in shown},
                    f"Introns of held-out genes: F1 per base {figure:.2f}, k-mers {beside:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
