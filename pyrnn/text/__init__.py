"""Text: corpora and their numbers, n-gram models, decoding.

What stands in `pyrnn.text.corpus` can be had from here; it is imported at the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.later import later

if TYPE_CHECKING:
    from .corpus import (
        HELD_OUT,
        Batches,
        Corpus,
        Vocabulary,
        Words,
        decode,
        language_reference,
        lines,
        read,
        read_all,
        read_fasta,
    )

__all__ = [
    "HELD_OUT",
    "Batches",
    "Corpus",
    "Vocabulary",
    "Words",
    "decode",
    "language_reference",
    "lines",
    "read",
    "read_all",
    "read_fasta",
]
__getattr__ = later(__name__, dict.fromkeys(__all__, f"{__name__}.corpus"))


def __dir__() -> list[str]:
    return __all__
