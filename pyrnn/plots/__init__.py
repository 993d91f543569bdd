"""Pictures of trainings, attention, memories and sequences, with matplotlib (the extra `plot`).

Every picture takes a path, whose ending says the format, or None; it returns its axes, and draws into `ax` where that
is given. Those that belong to one example stand beside it and can be had from here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.later import later
from .curves import gradient_flow, loss_curve
from .memories import RULE_COLOURS as RULE_COLOURS
from .memories import SHOWN as SHOWN
from .memories import recall_rates, recalls
from .style import BATCH as BATCH
from .style import GRID as GRID
from .style import INK as INK
from .style import LINES as LINES
from .style import MARKERS as MARKERS
from .style import TRAIN as TRAIN
from .style import VALID as VALID
from .style import check
from .tables import Map as Map
from .tables import attention_map, attention_maps, confusion_matrix

if TYPE_CHECKING:
    from ..examples.pictures.alignments import Alignment, alignments
    from ..examples.pictures.films import Film, films
    from ..examples.pictures.forecasts import Forecast, forecasts
    from ..examples.pictures.images import pictures
    from ..examples.pictures.learning import Learning, learning_curves
    from ..examples.pictures.spans import spans
    from ..examples.pictures.swings import swings
    from ..examples.pictures.tracks import Track, tracks

__all__ = [
    "Alignment",
    "Film",
    "Forecast",
    "Learning",
    "Track",
    "alignments",
    "attention_map",
    "attention_maps",
    "check",
    "confusion_matrix",
    "films",
    "forecasts",
    "gradient_flow",
    "learning_curves",
    "loss_curve",
    "pictures",
    "recall_rates",
    "recalls",
    "spans",
    "swings",
    "tracks",
]

OF_EXAMPLES = {
    "Alignment": "alignments",
    "Film": "films",
    "Forecast": "forecasts",
    "Learning": "learning",
    "Track": "tracks",
    "alignments": "alignments",
    "films": "films",
    "forecasts": "forecasts",
    "learning_curves": "learning",
    "pictures": "images",
    "spans": "spans",
    "swings": "swings",
    "tracks": "tracks",
}
__getattr__ = later(__name__, {name: f"pyrnn.examples.pictures.{home}" for name, home in OF_EXAMPLES.items()})
