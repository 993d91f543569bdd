"""The one harness: check results, then time the contenders in turns, in one process.

A contender is a function without arguments that returns its results. Before anything is timed each is called twice
and its results are compared with pyrnn's (twice, so that a state carried on or a gradient added up is seen too).
A turn is one untimed call and a few timed ones; a round is one turn of each, beginning with another contender each
time. Thread pools go on spinning after a call for up to 30 ms (onnxruntime; torch's OpenMP less): a turn starts only
when the process has come to rest, or the waiting would run at the expense of who comes next. Turns in which other
processes kept our threads from the CPUs are taken again.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from .machine import Machine

DIRECTIONS = ("forward", "both")
OURS = "pyrnn"
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}  # of the largest value of an array
TURN = 0.02  # seconds, or one call
LEAST_ROUNDS = 5
DISTURBED = 0.05  # of a turn was spent waiting for a CPU that others had: it is taken again
ATTEMPTS = 4
PATIENCE = 4

Shape = tuple[int, ...]
Run = Callable[[], object]


class WrongError(Exception):
    """A contender's result that differs from ours."""


@dataclass(frozen=True)
class Settings:
    """What holds for every row of a run."""

    dtype: str
    threads: int
    peers: tuple[str, ...]
    seconds: float
    ragged: bool

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


@dataclass
class Case:
    """One shape of an op, ready to run: our call, the peers' calls and the work that any of them must do."""

    ours: Run
    peers: dict[str, Run]  # a peer that cannot do it is missing
    flops: float
    bytes: float  # read and written at least
    footprint: int  # bytes that are read again and again: which cache they come from
    ideal: tuple[str, Run, float] | None = None  # its name in the table, another call of ours, the share it is due
    tolerance: float | None = None  # of results, where it is not that of the dtype


@dataclass(frozen=True)
class Op:
    """A benchmark: letters of a shape, the shapes of the default table for each direction, and how a case is made."""

    name: str
    letters: str
    shapes: dict[str, list[Shape]] = field(compare=False)
    case: Callable[[Shape, str, Settings], Case]
    has_lengths: bool = False
    ideal: Callable[[Settings], str | None] = lambda settings: None  # the name in Case.ideal, if there is one
    own_peers: tuple[str, ...] = ()  # in place of those of the command line

    def parse(self, text: str) -> Shape:
        """A shape from the command line."""
        try:
            shape = tuple(int(part) for part in text.split(","))
        except ValueError:
            shape = ()
        if len(shape) != len(self.letters.split(",")) or min(shape) < 1:
            raise ValueError(f"--shape {text}: {self.name} takes {self.letters}, positive integers")
        return shape


@dataclass(frozen=True)
class Time:
    """Seconds of a call: median over the rounds and half the distance between the quartiles."""

    median: float
    spread: float
    rounds: int


@dataclass(frozen=True)
class Row:
    """What was measured for one shape."""

    op: str
    direction: str
    letters: str
    shape: Shape
    times: dict[str, Time]
    flops: float
    bytes: float
    footprint: int
    best_peer: str | None
    ratio: float | None  # time of the best peer / our time: the median over the rounds
    disturbed: bool  # other processes were in the way

    @property
    def seconds(self) -> float:
        return self.times[OURS].median


def measure(op: Op, shape: Shape, direction: str, settings: Settings, machine: Machine) -> Row:
    """Check and time one shape; WrongError if a result differs."""
    case = op.case(shape, direction, settings)
    check(case, settings.dtype)
    runs = {OURS: case.ours, **{name: run for name, run in case.peers.items()}}
    if case.ideal:
        runs[case.ideal[0]] = case.ideal[1]
    samples, disturbed = take_turns(runs, settings.seconds)
    if case.ideal:
        name, _, share = case.ideal
        samples[name] = [seconds * share for seconds in samples[name]]
    times = {name: summarise(values) for name, values in samples.items()}
    best_peer = min(case.peers, key=lambda name: times[name].median, default=None)
    ratio = float(np.median(np.divide(samples[best_peer], samples[OURS]))) if best_peer else None
    machine.measure(case.footprint)
    return Row(
        op.name, direction, op.letters, shape, times, case.flops, case.bytes, case.footprint, best_peer, ratio,
        disturbed,
    )  # fmt: skip


def check(case: Case, dtype: str) -> None:
    """Call everybody twice and compare all results with ours."""
    ours = [*arrays(case.ours()), *arrays(case.ours())]
    for name, run in case.peers.items():
        theirs = [*arrays(run()), *arrays(run())]
        if len(theirs) != len(ours):
            raise WrongError(f"{name} returns {len(theirs)} arrays, pyrnn {len(ours)}")
        for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one.size != other.size:
                raise WrongError(f"result {k} of {name} has {other.size} numbers, pyrnn's {one.size}")
            error = np.max(np.abs(one - other), initial=0) / (np.max(np.abs(one), initial=0) or 1)
            if not error <= (TOLERANCE[dtype] if case.tolerance is None else case.tolerance):
                raise WrongError(f"result {k} of {name} differs by {error:.1e} of the largest value")


def arrays(result: object) -> Iterable[np.ndarray]:
    """Copies of all arrays of a nested result, in order, flat."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from arrays(part)
    else:
        yield np.array(result, dtype=np.float64).ravel()


def take_turns(runs: dict[str, Run], seconds: float) -> tuple[dict[str, list[float]], bool]:
    """Seconds per call of everybody in every undisturbed round, over about so many seconds.

    Where other processes leave too few of them, up to PATIENCE times as long, and in the end the least disturbed
    rounds; whether it came to that is the second result. A peer with more threads than there are CPUs waits for itself
    in every turn: it has no say in that.
    """
    turn = min(TURN, seconds / len(runs) / 2 / LEAST_ROUNDS)
    counts = {name: calls(run, turn) for name, run in runs.items()}
    own: dict[str, float] = {}  # the least that was lost in a turn; of ours, nothing
    rounds: list[dict[str, tuple[float, float]]] = []  # lost share of the turn, seconds per call
    order = list(runs)
    start = time.perf_counter()
    gc.collect()
    gc.disable()

    def disturbance(turns: dict[str, tuple[float, float]]) -> float:
        return max(lost for name, (lost, _) in turns.items() if own[name] <= DISTURBED)

    try:
        while True:
            turns = {name: take_turn(runs[name], counts[name], own.get(name, 0) + DISTURBED) for name in order}
            rounds.append(turns)
            own = {name: min(own.get(name, lost), lost) for name, (lost, _) in turns.items()} | {OURS: 0}
            order = order[1:] + order[:1]
            quiet = sum(disturbance(turns) <= DISTURBED for turns in rounds)
            spent = time.perf_counter() - start
            if spent > seconds and (
                quiet >= LEAST_ROUNDS or (len(rounds) >= LEAST_ROUNDS and spent > PATIENCE * seconds)
            ):
                break
    finally:
        gc.enable()
    rounds.sort(key=disturbance)
    kept = rounds[: max(quiet, LEAST_ROUNDS)]
    return {name: [turns[name][1] for turns in kept] for name in runs}, quiet < LEAST_ROUNDS


def take_turn(run: Run, count: int, most: float) -> tuple[float, float]:
    """How long threads of this process waited for a CPU, in shares of the turn, and seconds per call; of the first
    attempt that lost at most so much, or the best of some."""
    attempts: list[tuple[float, float]] = []
    while len(attempts) < ATTEMPTS and not (attempts and attempts[-1][0] <= most):
        settle()
        if count > 1:
            run()
        waited = waiting()
        seconds = timed(run, count)
        attempts.append(((waiting() - waited) / (seconds * count), seconds))
    return min(attempts)


def waiting() -> float:
    """Seconds that the threads of this process were ready but others had the CPUs (0 where the system won't tell)."""
    nanoseconds = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        with contextlib.suppress(OSError), open(path) as file:  # a thread may end meanwhile
            nanoseconds += int(file.read().split()[1])
    return nanoseconds / 1e9


def calls(run: Run, turn: float) -> int:
    """How many calls fill a turn, once threads are awake and caches warm: by the shortest of a few attempts."""
    settle()
    count = 1
    while (seconds := min(timed(run, count) for _ in range(3))) * count < turn / 4:
        count *= 4
    return max(1, round(turn / seconds))


def timed(run: Run, count: int) -> float:
    """Seconds per call."""
    repeat = range(count)
    start = time.perf_counter()
    for _ in repeat:
        run()
    return (time.perf_counter() - start) / count


def settle(longest: float = 0.25) -> None:
    """Sleep until no thread of this process is busy any more. Linux books the time of a thread that spins on another
    CPU at its clock ticks only, of which any sleep of 12 ms meets one."""
    end = time.perf_counter() + longest
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(0.012)
        if time.process_time() - used < 1e-3:
            return


def summarise(values: list[float]) -> Time:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Time(float(median), float(high - low) / 2, len(values))
