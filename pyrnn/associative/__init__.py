"""Associative memories: classical, dense and modern Hopfield nets."""

from .dense import DenseHopfield
from .hopfield import RULES, Hopfield
from .modern import ModernHopfield
from .net import CapacityWarning, Recall

__all__ = ["RULES", "CapacityWarning", "DenseHopfield", "Hopfield", "ModernHopfield", "Recall"]
