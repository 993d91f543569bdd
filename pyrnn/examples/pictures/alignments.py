"""What a network says at every moment of a sound, and where what was said lies in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import integer, integer_array, listed, real, within
from ...plots import style


class Alignment(NamedTuple):
    """A sound of some seconds, read by a network with CTC. A panel of `alignments`.

    sound    (F, bands), such as `pyrnn.sound.log_mel` gives
    seconds  how long it is
    chances  (T, V), of each id at each step
    path     (T,) ids, such as `pyrnn.decoding.ctc_align` gives
    title    the panel's
    right    whether it is not drawn in red
    seams    (K,) seconds, where one thing that was said ends and the next one begins

        pyrnn.plots.Alignment(sound, 2.5, chances, path, "314")
    """

    sound: np.ndarray
    seconds: float
    chances: np.ndarray
    path: np.ndarray
    title: str
    right: bool = True
    seams: Sequence[float] | np.ndarray = ()


SOUND, ALIGNED = (1.42, 2.4), (1.18, 1.36)  # where they lie, above the chances
COLOURS = (style.TRAIN, style.VALID, style.LINES[5], style.LINES[1], style.LINES[3], "#7a5aa6", "#8a6d4b")


@style.picture
def alignments(
    path: style.Path,
    panels: Sequence[Alignment],
    names: Sequence[str],
    title: str = "",
    *,
    blank: int = 0,
    wrong: str = "red: not right",
    ax: Any = None,
) -> Any:
    """Draw a row for each sound: on top its bands, beneath it the forced alignment, and at the bottom the chances of
    the V ids, whose `names` stand on the peaks; that of the blank is a grey line. Dotted lines are the true seams. The
    title of one that is not right is red; `wrong` says so beneath a picture that has such. TypeError and ValueError for
    what does not fit. Returns the axes (P,).

        aligned = pyrnn.plots.Alignment(sound, 2.5, chances, path, "314")
        pyrnn.plots.alignments("spikes.png", [aligned], ["blank", *"0123456789"])
    """
    call = "alignments"
    names = listed(call, "names", names, "names")
    panels = style.records(call, "panels", panels, Alignment, "pyrnn.plots.Alignment(...)")
    blank = integer(call, "blank", blank, 0, max(len(names) - 1, 0))
    figure, grid = style.new_axes(call, ax, len(panels), 1, (12, 0.5 + 2.7 * max(len(panels), 1)))
    shown = [style.plain_text(name, style.TOKEN) for name in names]
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(names))]
    for axes, panel in zip(grid, panels, strict=True):
        chances = style.as_array(call, "chances", panel.chances, "T", len(names))
        aligned = integer_array(call, "path", style.as_array(call, "path", panel.path, len(chances)))
        aligned = within(call, "path", aligned, len(names) - 1)
        sound = style.as_array(call, "sound", panel.sound, "F", "bands")
        seconds = real(call, "seconds", panel.seconds, 1e-6, 1e6)
        times = (np.arange(len(chances)) + 0.5) * seconds / max(len(chances), 1)
        if sound.size:
            low, high = np.quantile(sound, [0.05, 0.995])
            box = (0, seconds, *SOUND)
            axes.imshow(sound.T, cmap="Greys", vmin=low, vmax=high, extent=box, origin="lower", aspect="auto")
        axes.plot(times, chances[:, blank], color=style.GREY, linewidth=0.9)
        for k in set(range(len(names))) - {blank}:
            heights = chances[:, k].astype(float)
            before, after = np.pad(heights, 1)[:-2], np.pad(heights, 1)[2:]
            there = np.maximum(heights, np.maximum(before, after)) > 0.01
            axes.fill_between(times, heights, where=there, color=colours[k], alpha=0.35, linewidth=0)
            axes.plot(times, np.where(there, heights, np.nan), color=colours[k], linewidth=1.2)
            for t in np.flatnonzero((heights > 0.2) & (heights > before) & (heights >= after)):
                axes.annotate(shown[k], (times[t], heights[t]), (0, 1), textcoords="offset points", ha="center",
                              va="bottom", fontsize=9, weight="bold", color=colours[k], **style.PLAIN)  # fmt: skip
        changes = [0, *np.flatnonzero(np.diff(aligned)) + 1, len(aligned)]
        for first, end in itertools.pairwise(changes):
            k = aligned[first] if end > first else blank
            if k != blank:
                left, right = times[first] - times[0], times[end - 1] + times[0]
                axes.fill_between([left, right], *ALIGNED, color=colours[k], linewidth=0)
                axes.text((left + right) / 2, np.mean(ALIGNED), shown[k], ha="center", va="center", fontsize=8,
                          color="white", weight="bold", clip_on=True, **style.PLAIN)  # fmt: skip
        for seam in style.as_array(call, "seams", panel.seams, "K"):
            axes.axvline(seam, color=style.INK, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set(xlim=(0, seconds), ylim=(-0.02, SOUND[1]))
        axes.set_yticks([0, 0.5, 1, np.mean(ALIGNED), np.mean(SOUND)], ["0", "0.5", "1", "aligned", "sound"])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        style.titled(axes, panel.title, fontsize=10, color=style.INK if panel.right else style.VALID)
    if len(grid):
        grid[-1].set_xlabel("seconds")
    style.headline(figure, title)
    if ax is None and not all(panel.right for panel in panels):
        style.footnote(figure, wrong)
    return style.finished(figure, path, grid)
