"""The processes that run one program: those of a communicator of mpi4py, or this one alone. They agree on what happens.

Before anything else goes between them there is `together`: each does its part, and then all have the results of all, or
raise the first error. A process that ends in any other way ends the others, too: where an error leaves the program,
MPI_Abort follows its traceback; where it is left by `sys.exit`, or sooner than elsewhere, the next `together` of the
others is an error that says so. Without MPI nothing of this costs anything.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from .checks import shown

T = TypeVar("T")

# Where a launcher says which process this is, and of how many.
PLACES = (
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, Slurm
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)
PATIENCE = 0.5  # seconds in which the process that is to tell of an error has told


class RemoteError(Exception):
    """The cause of an error that another process has raised: where it was raised."""


def launched() -> tuple[int, int] | None:
    """The rank of this process and their number (0: not told), as mpiexec or its like has said; None without one."""
    for rank, size in PLACES:
        if os.environ.get(rank, "").isdecimal():
            number = os.environ.get(size, "")
            return int(os.environ[rank]), int(number) if number.isdecimal() else 0
    return None


class Processes:
    """Those of one communicator.

    rank, size  of this process, of all
    comm        the communicator, None where this process is alone
    """

    raised: BaseException | None = None  # the last error that all have raised

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self._ended = False
        if self.size > 1:
            atexit.register(self._end)
            _abort_after_errors(comm)

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in each process, in their order; where it raised, in all of them the error of the first."""
        if self.size == 1:
            return [work()]
        own: Any = None
        error: BaseException | None = None
        try:
            own = work()
            said: Any = pickle.dumps(own, pickle.HIGHEST_PROTOCOL)
        except BaseException as raised:
            error, said = raised, _told(raised)
        everywhere = self._said(said)
        for rank, told in enumerate(everywhere):
            if isinstance(told, tuple):
                Processes.raised = error if rank == self.rank and error is not None else _remote(told, rank)
                raise Processes.raised
        return [own if rank == self.rank else pickle.loads(told) for rank, told in enumerate(everywhere)]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, which alone does it."""
        return self.together(lambda: work() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Any]:
        """The communicator, for messages of other kinds. An error inside, which nobody could be told of, ends all."""
        try:
            yield self.comm
        except BaseException:
            traceback.print_exc()
            _abort(self.comm)

    def _said(self, said: bytes | tuple[Any, ...] | None) -> list[Any]:
        """What all say; ConnectionError where one says that it has ended."""
        if self._ended:
            raise ConnectionError("another process of this run has ended")
        everywhere: list[Any] = self.comm.allgather(said)
        if None in everywhere:
            self._ended = True
            if said is not None:
                ended = f"process {everywhere.index(None)} of {self.size} has ended"
                raise ConnectionError(f"{ended}, and this one would wait for it")
        return everywhere

    def _end(self) -> None:
        from mpi4py import MPI

        if not self._ended and not MPI.Is_finalized() and self.comm != MPI.COMM_NULL:
            self._said(None)


_made: list[Processes] = []  # one of each communicator


def tell(error: BaseException) -> bool:
    """Raise an error that ends this process in the others as well, where they have not raised it with this one; whether
    there are others."""

    def work() -> None:
        raise error

    for processes in _made:
        if error is not Processes.raised:
            with contextlib.suppress(BaseException):
                processes.together(work)
    return bool(_made)


def processes_of(call: str, comm: Any = None) -> Processes:
    """Those of a communicator; by default of all that mpiexec has started, or this one alone.

    ImportError where mpi4py is needed and missing, TypeError for what is no communicator, ValueError for one without
    processes, RuntimeError where mpi4py belongs to another MPI than mpiexec, so that its processes know nothing of each
    other.
    """
    MPI = sys.modules.get("mpi4py.MPI")  # noqa: N806
    if comm is None:
        place = launched()
        if MPI is None and (place is None or place[1] == 1):
            return Processes()
        MPI = _mpi(call)  # noqa: N806
        comm = MPI.COMM_WORLD
        if place is not None and place[1] not in (0, comm.size):
            raise RuntimeError(
                f"{call}: mpiexec has started {place[1]} processes, of which mpi4py sees {comm.size}: it uses another "
                f"MPI than this mpiexec. Take the mpiexec of {MPI.Get_library_version().split(chr(10))[0].strip()}"
            )
    elif MPI is None or not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"{call}: comm is {shown(comm)}, expected a communicator of mpi4py (an MPI.Intracomm) or None")
    elif comm == MPI.COMM_NULL:
        raise ValueError(f"{call}: comm is MPI.COMM_NULL, which has no processes")
    for made in _made:
        if made.comm == comm:
            return made
    _made.append(Processes(comm))
    return _made[-1]


def _mpi(call: str) -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"{call}: mpiexec has started this process as one of several, and they need mpi4py to work together: pip "
            f"install mpi4py, the extra [mpi] ({error})"
        ) from None
    except RuntimeError as error:  # no MPI library
        raise ImportError(f"{call}: mpi4py finds no MPI library, such as that of pip install mpich ({error})") from None
    return MPI


def _told(error: BaseException) -> tuple[Any, ...]:
    """An error as it is told to others."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled, text


def _remote(told: tuple[Any, ...], rank: int) -> BaseException:
    """The error that another process has told."""
    pickled, text = told
    error: BaseException = pickle.loads(pickled)
    error.__cause__ = RemoteError(f"in process {rank}:\n{text}")
    return error


def _abort_after_errors(comm: Any) -> None:
    """An error that leaves the program ends all processes, after its traceback. Where several raise one, this is that
    of the process in which it arose, or of the first."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            arose_here = error is Processes.raised and not isinstance(error.__cause__, RemoteError)
            if not arose_here and (comm.rank > 0 or error is Processes.raised):
                time.sleep(PATIENCE)
            before(kind, error, trace)
        finally:
            _abort(comm)

    sys.excepthook = hook


def _abort(comm: Any) -> NoReturn:
    """End all processes."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    time.sleep(PATIENCE / 2)  # in which mpiexec reads what was written; it would be lost else
    comm.Abort(1)
    os._exit(1)
