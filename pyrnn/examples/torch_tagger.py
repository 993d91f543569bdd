"""Speed up your torch model: a tagger trained as it is and accelerated, to the same losses in a part of the time.

    python -m pyrnn.examples.torch_tagger --data tinyshakespeare.txt --plot speed.png

    in       lines of a play in small letters   packed ids (S,), S letters of all N lines, each as long as it is
    embed    each letter a vector               (S, E)
    lstm     torch's, both ways                 packed (S, 2H): at each letter what is known from either side
    out      is this letter a capital?          logits (S, 2), trained with cross-entropy

The model is torch's from top to bottom: its modules, its tape, its Adam. The one line that is not is
`pyrnn.torch.accelerate(model)`, which puts other kernels behind `model.lstm`. Both models start from the same weights,
read the same batches, and take turns of twenty updates, so that whatever else the machine does meets both. A tenth of
the lines is held out.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from pyrnn import data as splits
from pyrnn import text

from . import count_option, data_option, enough, lesson, reading

TURN = 20  # updates of one model before it is the other one's turn
WAYS = ("torch", "accelerated")


def read(path: str) -> list[str]:
    """The lines of a text that have letters."""
    lines = [line for _, line in text.lines(path)]
    enough(path, "lines", len(lines), 20)
    return lines


def network(letters: int, hidden: int) -> Any:
    """Packed ids -> logits (S, 2)."""
    from torch import Tensor, nn
    from torch.nn.utils.rnn import PackedSequence

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(letters, 32)
            self.lstm = nn.LSTM(32, hidden, bidirectional=True)
            self.head = nn.Linear(2 * hidden, 2)

        def forward(self, ids: PackedSequence) -> Tensor:
            y, _ = self.lstm(ids._replace(data=self.embed(ids.data)))
            logits: Tensor = self.head(y.data)
            return logits

    return Tagger()


def packed(lines: Sequence[str], known: str) -> tuple[Any, Any]:
    """Packed ids of the small letters, 0 for those that are not known, and packed whether each is a capital."""
    import torch
    from torch.nn.utils.rnn import pack_sequence

    place = {letter: k + 1 for k, letter in enumerate(known)}
    ids = [torch.tensor([place.get(letter, 0) for letter in line.lower()]) for line in lines]
    tags = [torch.tensor([int(letter.isupper()) for letter in line]) for line in lines]
    return pack_sequence(ids, enforce_sorted=False), pack_sequence(tags, enforce_sorted=False)


def race(model: Any, batches: Sequence[tuple[Any, Any]]) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Train the model as it is, and an accelerated copy: both, the losses (2, updates), the seconds of each update."""
    import torch
    from torch.nn.functional import cross_entropy

    import pyrnn.torch

    models = dict(zip(WAYS, (model, pyrnn.torch.accelerate(copy.deepcopy(model))), strict=True))
    adams = {way: torch.optim.Adam(each.parameters(), lr=3e-3, fused=True) for way, each in models.items()}
    losses, seconds = np.zeros((2, 2, len(batches)))
    for first in range(0, len(batches), TURN):
        for way, each in models.items():
            for k, (ids, tags) in enumerate(batches[first : first + TURN], first):
                start = time.perf_counter()
                adams[way].zero_grad()
                loss: Any = cross_entropy(each(ids), tags.data)
                loss.backward()
                adams[way].step()
                losses[WAYS.index(way), k] = loss.item()
                seconds[WAYS.index(way), k] = time.perf_counter() - start
    return models, losses, seconds


def right(model: Any, ids: Any, tags: Any) -> float:
    """The part of the capitals, and of the letters taken for one, that are both (F1)."""
    import torch

    with torch.no_grad():
        said = model(ids).argmax(dim=1)
    return float(2 * (said * tags.data).sum() / (said + tags.data).sum())


def draw(path: str, losses: np.ndarray, seconds: np.ndarray, mean: int = 10) -> None:
    """Losses, the means of so many updates, against updates and against the time they took."""
    from matplotlib.figure import Figure

    from pyrnn import plots

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    count = losses.shape[1] // mean * mean
    steps, clock = np.arange(mean, count + 1, mean), seconds.cumsum(axis=1)[:, mean - 1 : count : mean]
    panels: Any = figure.subplots(1, 2, sharey=True)
    looks = ({"color": plots.VALID, "linewidth": 4, "alpha": 0.45}, {"color": plots.TRAIN, "linewidth": 1.5})
    for axes, where, label in zip(panels, (np.stack([steps, steps]), clock), ("updates", "seconds"), strict=True):
        for k, (way, look) in enumerate(zip(WAYS, looks, strict=True)):
            axes.plot(where[k], losses[k, :count].reshape(-1, mean).mean(axis=1), label=way, **look)
        axes.set(xlabel=label, yscale="log", xlim=(0, None))
        axes.grid(color=plots.GRID)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="cross-entropy, nats a letter", title="the same losses")
    panels[1].set(title=f"{clock[0, -1] / clock[1, -1]:.1f} times as fast")
    panels[1].legend(frameon=False)
    figure.savefig(path, dpi=120)


@lesson(__doc__)
@data_option("shakespeare", "a text with capitals")
@count_option("--hidden", 64, "Hidden units of a direction.")
@count_option("--updates", 200, "Updates of each model.", least=10)
@count_option("--batch", 32, "Lines of an update.")
def main(data: str, hidden: int, updates: int, batch: int, plot: str | None, seed: int) -> None:
    with reading():
        lines = read(data)
    try:
        import pyrnn.torch  # noqa: F401
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train, other = ([lines[n] for n in rows] for rows in splits.held_out(len(lines), 0.1, seed))
    known = "".join(sorted(set("".join(train).lower())))
    chosen = ([train[n] for n in rng.integers(len(train), size=batch)] for _ in range(updates))
    models, losses, seconds = race(network(len(known) + 1, hidden), [packed(some, known) for some in chosen])
    judged = packed(other, known)
    print(f"{len(train)} lines to learn from, {len(other)} held out; {updates} updates of {batch} lines")
    print(f"{'':<12}{'first loss':>12}{'last loss':>12}{'seconds':>10}{'F1 of held-out capitals':>26}")
    for k, (way, model) in enumerate(models.items()):
        print(f"{way:<12}{losses[k, 0]:>12.5f}{losses[k, -1]:>12.5f}{seconds[k].sum():>10.2f}"
              f"{right(model, *judged):>26.1%}")  # fmt: skip
    apart = np.abs(losses[0] - losses[1]).max()
    print(f"losses at most {apart:.1e} apart; {seconds[0].sum() / seconds[1].sum():.1f} times as fast")
    if plot:
        draw(plot, losses, seconds)


if __name__ == "__main__":
    main()
