"""Text: corpora and their numbers, n-gram models, decoding.

What stands in `pyrnn.text.corpus` can be had from here; it is imported at the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pyrnn.text' has no attribute {name!r}")
    from . import corpus

    return getattr(corpus, name)


def __dir__() -> list[str]:
    return __all__
