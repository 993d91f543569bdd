"""Small pictures in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass
from ...plots.style import INK, PLAIN, TITLE, VALID, Path, _axes, _checked, _finished, _headline, _text, _titled


@_checked
def pictures(
    path: Path,
    images: np.ndarray,
    titles: Sequence[str],
    right: Sequence[bool] | np.ndarray,
    title: str = "",
    *,
    wrong: str = "red: not right",
    ax: Any = None,
) -> Any:
    """Draw images (N, height, width, 3), numbers in 0..1, four in a row, each with its title, which is red where it is
    not right; `wrong` says so beneath a picture that has such. Returns the axes (N,).

        pyrnn.plots.pictures("captions.png", images, captions, [caption == truth for ...])
    """
    if not len(images) == len(titles) == len(right):
        raise ValueError(f"pictures: {len(images)} images, {len(titles)} titles and {len(right)} right")
    figure, grid = _axes("pictures", ax, len(images), 4, (12, 0.4 + 3.3 * max(-(-len(images) // 4), 1)))
    for axes, image, text, good in zip(grid, images, titles, right, strict=True):
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest")
        _titled(axes, text, loc="center", fontsize=8, color=INK if good else VALID, pad=4)
    if ax is None and not np.all(right):
        figure.supxlabel(_text(wrong, TITLE), fontsize=9, color=VALID, x=0.01, ha="left", **PLAIN)
    _headline(figure, title)
    return _finished(figure, path, grid)
