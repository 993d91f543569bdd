"""Pictures of tables: attention, confusion."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import listed, parted
from . import style


def _cells(ax: Any, shape: tuple[int, int], usual: float) -> tuple[float, float]:
    """Inches of a cell in a table of this shape, high and wide: in a new figure, or in axes that are there."""
    room = (style.LONGEST, style.LONGEST)
    if ax is not None:
        box = ax.get_window_extent()
        room = (box.height / ax.figure.dpi, box.width / ax.figure.dpi)
    high, wide = (min(usual, most / max(count, 1)) for most, count in zip(room, shape, strict=True))
    return high, wide


def _table(
    axes: Any, values: np.ndarray, most: float, names: tuple[Sequence[str], Sequence[str]], cells: tuple[float, float],
    top: Mapping[str, Any], **text: Any
) -> Any:  # fmt: skip
    """Values as colours, from 0 to `most`, with the names at the left and on top, as many as there is room for. text:
    properties of the names, top: further ones of those on top."""
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect=cells[0] / cells[1])
    for axis, labels, cell, given in zip((axes.yaxis, axes.xaxis), names, cells, ({}, top), strict=True):
        every = math.ceil(style.LABEL / cell)
        axis.set_ticks(range(0, len(labels), every), labels[::every], **style.PLAIN, **text, **given)
        if every == 1:
            axis.set_ticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.grid(which="minor", color=style.GRID, linewidth=0.5)
    return image


Map = tuple[np.ndarray, Sequence[str], Sequence[str], str]


@style.picture
def attention_map(
    path: style.Path, weights: np.ndarray, queries: Sequence[str], keys: Sequence[str], title: str = "",
    *, query_label: str = "queries", key_label: str = "keys", ax: Any = None,
) -> Any:  # fmt: skip
    """Draw weights (S, K) as a map: a row for each query, a column for each key, with their tokens at the axes, whose
    labels say what they are. ValueError where the tokens are not S and K. Returns the axes.

        weights = layer.attention_weights(x, is_causal=True)  # (N, H, S, K)
        pyrnn.plots.attention_map("map.png", weights[0, 0], list("hello"), list("hello"))
    """
    figure, panels = _maps("attention_map", ax, [(weights, queries, keys, title)], query_label, key_label)
    return style.single(figure, path, panels)


@style.picture
def attention_maps(
    path: style.Path, maps: Sequence[Map], title: str = "",
    *, query_label: str = "queries", key_label: str = "keys", ax: Any = None,
) -> Any:  # fmt: skip
    """Draw several maps as in `attention_map`, two in a row: weights, queries, keys and a title each. Errors as there.
    Returns the axes (P,).

        pyrnn.plots.attention_maps("maps.png", [(np.eye(5), list("salut"), list("hello"), "first")])
    """
    parts = ("weights", "queries", "keys", "title")
    given = [
        parted("attention_maps", f"maps[{k}]", one, *parts)
        for k, one in enumerate(listed("attention_maps", "maps", maps, "maps"))
    ]
    figure, panels = _maps("attention_maps", ax, given, query_label, key_label)
    style.headline(figure, title)
    return style.finished(figure, path, panels)


def _maps(call: str, ax: Any, maps: Sequence[Any], query_label: str, key_label: str) -> tuple[Any, np.ndarray]:
    from matplotlib import rcParams

    fonts = ["monospace", *rcParams["font.family"]]
    drawn = []
    for weights, queries, keys, name in maps:
        queries, keys = listed(call, "queries", queries, "tokens"), listed(call, "keys", keys, "tokens")
        weights = style.as_array(call, "weights", weights, len(queries), len(keys))
        if not weights.size:
            raise ValueError(f"{call}: weights has shape {weights.shape}, there is nothing to draw")
        tokens = (
            [style.plain_text(token, style.TOKEN) for token in queries],
            [style.plain_text(token, style.TOKEN) for token in keys],
        )
        drawn.append((weights, tokens, name))

    sizes, titles = [], []  # inches, with the tokens
    for weights, (rows, columns), name in drawn:
        high, wide = _cells(None, weights.shape, 0.32)
        left, above = (0.085 * max(map(len, tokens), default=0) for tokens in (rows, columns))
        across = 1.1 + 1.1 * wide * len(columns)  # with the colours' scale
        titles.append(
            textwrap.fill(style.plain_text(name, style.TITLE), int(across / style.width_of("-")))
            if ax is None
            else name
        )
        sizes.append((1.5 + 0.2 * titles[-1].count("\n") + above + high * len(rows), 0.8 + left + across))
    lines = [sizes[k : k + 2] for k in range(0, len(sizes), 2)]
    width = max((sum(wide for _, wide in line) for line in lines), default=3)
    height = sum(max(high for high, _ in line) for line in lines) or 2
    figure, panels = style.new_axes(call, ax, len(drawn), min(2, max(len(drawn), 1)), (width, height))
    for axes, (weights, tokens, _), name in zip(panels, drawn, titles, strict=True):
        most = max(float(weights.max(initial=0, where=np.isfinite(weights))), 1e-9)
        upright = all(len(token) < 2 for token in tokens[1])
        cells = _cells(None if ax is None else axes, weights.shape, 0.32)
        image = _table(axes, weights, most, tokens, cells, {"rotation": 0 if upright else 90}, family=fonts)
        axes.set_xlabel(style.plain_text(key_label), **style.PLAIN)
        axes.set_ylabel(style.plain_text(query_label), **style.PLAIN)
        style.titled(axes, name)
        figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    return figure, panels


COUNTED = 40  # classes: of more the cells have no room for their counts


@style.picture
def confusion_matrix(
    path: style.Path, counts: np.ndarray, names: Sequence[str], title: str = "",
    *, true_label: str = "true", said_label: str = "said", ax: Any = None,
) -> Any:  # fmt: skip
    """Draw counts (C, C), a row for each true class and a column for each that was said, with `names` at the axes,
    whose labels say what they are.

    The colour is the share of a row; cells hold their counts where there is room, and the right side how many of each
    row there are and how many of them are right. ValueError where counts is not (C, C). Returns the axes.

        pyrnn.plots.confusion_matrix("confusions.png", [[8, 2], [1, 9]], ["cat", "dog"])
    """
    names = listed("confusion_matrix", "names", names, "names")
    counts = style.as_array("confusion_matrix", "counts", counts, len(names), len(names))
    if not counts.size:
        raise ValueError("confusion_matrix: names is empty, there is nothing to draw")
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    shown = [style.plain_text(name, style.TOKEN) for name in names]
    high, wide = _cells(None, counts.shape, 0.42)
    longest = 0.07 * max(map(len, shown), default=0)
    size = (2.4 + longest + max(wide * len(names), style.width_of(title) - 1.5), 1.3 + longest + high * len(names))
    figure, panels = style.new_axes("confusion_matrix", ax, 1, 1, size)
    (axes,) = panels
    if ax is not None:
        high, wide = _cells(axes, counts.shape, 0.42)
    else:
        axes.set_anchor("W")  # and the room for a long title at the right
    turned = {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
    _table(axes, shares, 1, (shown, shown), (high, wide), turned, fontsize=8)
    for row, column in np.argwhere(counts > 0) if len(names) <= COUNTED else ():
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, in_layout=False,
                  color="white" if shares[row, column] > 0.5 else style.INK)  # fmt: skip
    axes.set_xlabel(style.plain_text(said_label), **style.PLAIN)
    axes.set_ylabel(style.plain_text(true_label), **style.PLAIN)
    right = axes.secondary_yaxis("right")
    every = math.ceil(style.LABEL / high)
    right.set_yticks(range(0, len(names), every), [f"{share:4.0%} of {total}" if total else "none" for share, total in
                     zip(shares.diagonal()[::every], totals[::every], strict=True)], fontsize=8)  # fmt: skip
    right.set_ylabel("right", fontsize=8)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    style.titled(axes, title)
    return style.single(figure, path, panels)
