"""Two pools of threads on the same CPUs: torch's make way for ours.

Threads of torch's OpenMP spin for milliseconds after their work, in case there is more. Ours then share CPUs with them,
and come late. So they are sent home before a kernel runs that takes longer than it takes torch to start them again.
"""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Callable

import torch

_LARGE = 16_000_000  # multiply-adds: some times the tenth of a millisecond that sending home and starting again take
_SOFT = 1  # omp_pause_soft of OpenMP 5.0: what the threads hold stays


def _pause() -> Callable[[int], int] | None:
    """omp_pause_resource_all of the library whose threads torch uses, if that is GNU's: there it is about the threads
    that the calling one has started, and no others."""
    for path in glob.glob(os.path.join(os.path.dirname(torch.__file__), "lib", "libgomp*.so*")):
        try:
            found: Callable[[int], int] = ctypes.CDLL(path, mode=os.RTLD_NOLOAD).omp_pause_resource_all
        except (OSError, AttributeError):
            continue
        return found
    return None


_send_home = _pause()


def _forget() -> None:
    global _send_home
    _send_home = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # the threads are the parent's, and waiting for them would never end


def make_way(work: int) -> None:
    """Before a kernel with so many multiply-adds."""
    if work > _LARGE and _send_home is not None and torch.get_num_threads() > 1:
        _send_home(_SOFT)
