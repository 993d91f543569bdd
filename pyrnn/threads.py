"""How many threads the kernels use. The number of threads changes no result."""

from __future__ import annotations

import os

from . import kernels
from .core.checks import integer

MOST_THREADS = 256  # of the kernels
_chosen = bool(os.environ.get("PYRNN_NUM_THREADS"))  # by somebody


def set_num_threads(n: int) -> None:
    """Use n threads (1 to 256) from the next call on, in the whole process.

    Default: the CPUs this process may use, or the environment variable PYRNN_NUM_THREADS. A single call of less than
    about half a millisecond stays on one thread, as waking others takes too long; in a row of calls they are awake.
    The environment variable PYRNN_WAKE=always, for tests, shares that work too. TypeError and ValueError for another n.

        pyrnn.set_num_threads(2)
    """
    global _chosen
    kernels.set_num_threads(integer("set_num_threads", "n", n, 1, MOST_THREADS))
    _chosen = True


def get_num_threads() -> int:
    """The number of threads the kernels use.

    pyrnn.get_num_threads()
    """
    return kernels.get_num_threads()


def share_cpus(processes: int) -> None:
    """Use as many threads as there are CPUs for each of so many processes, unless somebody has chosen a number.

    share_cpus(4)
    """
    if not _chosen:
        set_num_threads(max(1, get_num_threads() // processes))


class threads:  # noqa: N801  a verb in `with`, as in torch.no_grad
    """Use n threads inside a `with` block, and the number from before afterwards. It holds for the whole process.
    Errors as in `set_num_threads`.

    with pyrnn.threads(1):
        y, state = layer(x)
    """

    def __init__(self, n: int) -> None:
        self.n = integer("threads", "n", n, 1, MOST_THREADS)
        self._before: list[int] = []  # a stack: one object may serve nested blocks

    def __enter__(self) -> None:
        self._before.append(get_num_threads())
        set_num_threads(self.n)

    def __exit__(self, *_: object) -> None:
        set_num_threads(self._before.pop())
