"""One model trained by several processes, on one machine or many, with the same bits for any number of them.

A batch is cut into shards, always as many, and each process takes a run of neighbouring ones. A shard's loss and
gradients depend on nothing but the parameters, its rows and its number. They become the batch's on a tree: the mean of
shards 0 and 1, that of 2 and 3, and so on; the mean of these two means; always of the same two with the same weights.
Where a branch is computed is all that the number of processes decides.

    shard      0   1   2   3   4   5   6   7
               +-+-+   +-+-+   +-+-+   +-+-+    2 processes: each has half of the tree, whole
                 +---+---+       +---+---+      3 processes, 0 1 | 2 3 4 | 5 6 7: the second has the mean of 2 and 3,
                     +-------+-------+          and 4; the third has 5, and the mean of 6 and 7

A process walks the whole branches it has, which takes the memory of one gradient for each level. Then each flat buffer
is cut into one piece for each process, and every process sends to each other one its piece of a branch, in one message
(`Alltoallv`; as often as the most branches that a process has: once where a power of two of processes shares a power of
two of shards). Each walks the rest of the tree for its piece, and the pieces of the mean go to all (`Allgatherv`). So a
process sends and receives twice the size of the gradients in a step, however many there are. Before, losses, weights
and errors go around in one small message (`Processes.together`).

Nothing is sent while a way back goes on: the gradients of recurrent weights are sums over all steps and end with it.
The guide "One model in many processes" tells what the exchange takes.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from . import kernels
from .core.checks import PLAIN, Array, any_array, integer, real, shown
from .core.layer import Layer
from .core.processes import processes_of
from .threads import share_cpus
from .training.optim import _buffers

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

MOST_SHARDS = 1 << 16  # every process goes through all of them in every step
Branch = tuple[int, int]  # of the tree: its first shard, and how many it has room for
MAY_HOLD = (np.random.Generator, Layer, list, tuple, dict)  # generators of a model
BLOCK = 1 << 14  # numbers of which a mean is taken at once: they stay in the cache


class Mean(NamedTuple):
    """Of some shards: their weight in all, their loss, and their flat arrays, one for each dtype."""

    weight: float
    loss: float
    arrays: list[Array]


class DataParallel:
    """Loss and gradients of batches, whose parts are computed in several processes (`mpiexec -n 4 python train.py`).

    model   a layer or a model; it begins with the parameters, running statistics and generators of process 0
    comm    a communicator of mpi4py, the same call in each of its processes; None: COMM_WORLD where mpiexec has
            started this process or mpi4py is in use, else this process alone, and nothing of MPI is needed
    shards  in how many parts a batch is cut, 1 to 65536

    The results are the same bits for any number of processes; another number of shards gives other bits. `rank` and
    `size` say which process this is, and of how many. Processes that may use the same CPUs of one machine share them:
    each takes its part as threads, unless PYRNN_NUM_THREADS or `set_num_threads` has said how many.

    What raises in one process raises in all. ImportError where several were started and mpi4py is missing. TypeError
    for what is no model or no communicator, ValueError for fewer than one shard, for a model without parameters, and
    where processes differ in shards, parameters or instruction set.

        trainer = pyrnn.parallel.DataParallel(model, shards=8)
        loss = trainer.step(loss_of, (x, target))
        adam.step()
    """

    def __init__(self, model: Layer, comm: MPI.Intracomm | None = None, shards: int = 8) -> None:
        self.processes = processes_of(type(self).__name__, comm)
        self.rank, self.size = self.processes.rank, self.processes.size
        self.model, self.shards = model, shards
        self._begin_alike()
        self._tree = 1 << (self.shards - 1).bit_length()  # its leaves, of which the last may be missing
        self._spare: list[list[Array]] = []

    def _begin_alike(self) -> None:
        """Check the arguments and that all have the same to train, and take what the first process has."""

        def own() -> tuple[Any, ...]:
            call = type(self).__name__
            _buffers(call, self.model)
            self.model._inspect()
            self.shards = integer(call, "shards", self.shards, 1, MOST_SHARDS)
            arrays = [(name, value.dtype.name, value.shape) for name, value in self.model._values().items()]
            return self.shards, arrays, kernels.isa(), _place()

        told = self.processes.together(own)
        shards, arrays, isa, _ = told[0]
        for rank, (other_shards, other_arrays, other_isa, _) in enumerate(told):
            differ = f"{type(self).__name__}: process 0 and process {rank} have"
            if other_shards != shards:
                raise ValueError(f"{differ} {shards} and {other_shards} shards")
            if other_arrays != arrays:
                raise ValueError(f"{differ} models of other parameters")
            if other_isa != isa:
                raise ValueError(
                    f"{differ} the instruction sets {isa} and {other_isa}, whose bits differ: set PYRNN_ISA"
                )
        if self.size > 1:
            share_cpus([place for *_, place in told].count(_place()))
            generators = _generators(self.model)
            states, values = self.processes.first(
                lambda: ([generator.bit_generator.state for generator in generators], self.model.state_dict())
            )
            self.model.load_state_dict(values)
            for generator, state in zip(generators, states, strict=True):
                generator.bit_generator.state = state

    def step(self, loss_of: Callable[[Any, Any], tuple[float, float]], batch: Any) -> float:
        """The mean loss of a batch; afterwards `grads` are its gradients (set, not added to), in every process.

        loss_of  loss_of(model, part) -> (loss, weight), after its pullback: the mean loss of a part of the batch, and
                 what it weighs among the others, such as its rows or valid steps. With weight 0 it counts for nothing
        batch    an array, or a tuple or a dict of arrays, in each process the whole of it. Axis 0 is cut; where there
                 are fewer rows than shards, loss_of is not called for those without a row

        Losses, gradients and running statistics (of BatchNorm1d) become the means of the shards' by weight; with no
        weight at all the loss is 0. The parameters are left as they are: a step of an optimiser comes next. What is
        random in the model comes from its generators, which are set anew for each shard; other random numbers belong
        into the batch. Where an error is raised, the gradients are zero and all else is as it was. TypeError and
        ValueError for what is no batch, for arrays of different lengths, for a result of loss_of that is none, and for
        a weight that is negative or not finite.

            def loss_of(model, part):
                x, target = part
                y, pullback = model.vjp(x)
                loss, dy = pyrnn.mean_squared_error(y, target)
                pullback(dy)
                return loss, len(x)

            loss = trainer.step(loss_of, (x, target))
        """
        call = f"{type(self).__name__}.step"
        live = _Live(self.model)
        generators = _generators(self.model)
        before = [generator.bit_generator.state for generator in generators]
        try:
            figures, branches = self._computed(call, loss_of, batch, live, generators)
        except BaseException:
            live.restore()
            for generator, state in zip(generators, before, strict=True):
                generator.bit_generator.state = state
            raise
        whole = self._mean_of(0, self._tree, _leaves_of(figures))
        if whole is None:
            live.restore()
            return 0.0
        if self.size > 1:
            with self.processes.exchange() as comm:
                branches[0, self._tree] = self._exchanged(comm, live, branches, figures)
        live.take(branches[0, self._tree])
        self._spare += branches.values()
        return whole.loss

    def map(self, function: Callable[[Any, Any], T], batch: Any) -> list[T]:
        """function(model, part) of each part of a batch that has rows, in their order, in every process; such as the
        losses of data to validate with. Results go between the processes as pickles. What is random in it is not the
        same for any number of processes.

            losses = trainer.map(lambda model, part: evaluated(model, *part), (x, target))
        """
        call = f"{type(self).__name__}.map"

        def own() -> tuple[int, list[T]]:
            rows, part = _parts(call, batch)
            return rows, [function(self.model, part(edges)) for _, edges in self._own(rows)]

        told = self.processes.together(own)
        _check_rows(call, [rows for rows, _ in told])
        return [result for _, results in told for result in results]

    def _run(self, rank: int) -> tuple[int, int]:
        """The shards of a process: from, to."""
        return self.shards * rank // self.size, self.shards * (rank + 1) // self.size

    def _own(self, rows: int) -> Iterator[tuple[int, slice]]:
        """The shards of this process that have rows, and these."""
        for shard in range(*self._run(self.rank)):
            start, end = rows * shard // self.shards, rows * (shard + 1) // self.shards
            if start < end:
                yield shard, slice(start, end)

    def _computed(
        self,
        call: str,
        loss_of: Callable[[Any, Any], tuple[float, float]],
        batch: Any,
        live: _Live,
        generators: Sequence[np.random.Generator],
    ) -> tuple[dict[int, Mean], dict[Branch, list[Array]]]:
        """Weight and loss of every shard that counts, and the arrays of the whole branches that this process has."""
        branches: dict[Branch, list[Array]] = {}

        def own() -> tuple[int, dict[int, Mean]]:
            rows, part = _parts(call, batch)
            edges, figures = dict(self._own(rows)), {}
            seeds = [generator.integers(2**63, size=2).tolist() for generator in generators]
            after = [generator.bit_generator.state for generator in generators]

            def leaf(shard: int, leaves: int) -> Mean | None:
                if leaves > 1 or shard not in edges:
                    return None
                for generator, seed in zip(generators, seeds, strict=True):
                    bits = generator.bit_generator
                    bits.state = type(bits)(np.random.SeedSequence([*seed, shard])).state
                live.restore()
                loss, weight = _checked(call, loss_of(self.model, part(edges[shard])))
                if weight == 0:
                    return None
                figures[shard] = Mean(weight, loss, [])
                return Mean(weight, loss, live.copied(self._spare.pop() if self._spare else live.empty()))

            for branch in self._branches(self.rank):
                mean = self._mean_of(*branch, leaf, self._spare.append)
                if mean is not None:
                    branches[branch] = mean.arrays
            for generator, state in zip(generators, after, strict=True):
                generator.bit_generator.state = state
            return rows, figures

        self._spare = [arrays for arrays in self._spare if live.fits(arrays)]
        told = self.processes.together(own)
        _check_rows(call, [rows for rows, _ in told])
        return {shard: mean for _, figures in told for shard, mean in figures.items()}, branches

    def _branches(self, rank: int) -> Iterator[Branch]:
        """The whole branches of a process: first leaf, number of leaves. The last one has those that are missing."""
        start, end = self._run(rank)
        if start == end:
            return
        end = self._tree if end == self.shards else end
        while start < end:
            leaves = start & -start or self._tree
            while start + leaves > end:
                leaves //= 2
            yield start, leaves
            start += leaves

    def _mean_of(
        self,
        first: int,
        leaves: int,
        found: Callable[[int, int], Mean | None],
        free: Callable[[list[Array]], None] = lambda arrays: None,
    ) -> Mean | None:
        """The mean of a branch: `found`, or that of its halves, which are there or not. It takes the place of the left
        half's arrays; `free` is given the right half's."""
        mean = found(first, leaves)
        if mean is not None or leaves == 1:
            return mean
        leaves //= 2
        left = self._mean_of(first, leaves, found, free)
        right = self._mean_of(first + leaves, leaves, found, free)
        if left is None or right is None:
            return left or right
        weight = left.weight + right.weight
        a, b = left.weight / weight, right.weight / weight
        with np.errstate(all="ignore"):
            for x, y in zip(left.arrays, right.arrays, strict=True):
                for start in range(0, x.size, BLOCK):
                    block = slice(start, start + BLOCK)
                    x[block] *= a
                    y[block] *= b
                    x[block] += y[block]
        free(right.arrays)
        return Mean(weight, a * left.loss + b * right.loss, left.arrays)

    def _exchanged(
        self, comm: Any, live: _Live, branches: Mapping[Branch, list[Array]], figures: Mapping[int, Mean]
    ) -> list[Array]:
        """The arrays of the whole tree, of the branches in all processes."""
        ranks = range(self.size)
        known = [
            [(branch, mean) for branch in self._branches(rank) if (mean := self._mean_of(*branch, _leaves_of(figures)))]
            for rank in ranks
        ]
        whole = self._spare.pop() if self._spare else live.empty()
        for k, result in enumerate(whole):
            edges = [result.size * rank // self.size for rank in range(self.size + 1)]
            counts = [end - start for start, end in itertools.pairwise(edges)]
            pieces: dict[Branch, Mean] = {}
            for turn in range(max(map(len, known))):
                senders = [rank for rank in ranks if turn < len(known[rank])]
                sends = self.rank in senders
                sent = branches[known[self.rank][turn][0]][k] if sends else np.empty(0, result.dtype)
                came = np.empty((len(senders), counts[self.rank]), result.dtype)
                comm.Alltoallv(
                    _cut(sent, counts if sends else [0] * self.size),
                    _cut(came, [counts[self.rank] * (rank in senders) for rank in ranks]),
                )
                for sender, piece in zip(senders, came, strict=True):
                    branch, mean = known[sender][turn]
                    pieces[branch] = mean._replace(arrays=[piece])
            mean = self._mean_of(0, self._tree, _branches_of(pieces))
            own = np.empty(0, result.dtype) if mean is None else mean.arrays[0]
            comm.Allgatherv(own.view(np.uint8), _cut(result, counts))
        return whole


def _place() -> tuple[str, list[int]]:
    """The machine, and the CPUs of it that this process may use."""
    return platform.node(), sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _cut(array: Array, counts: Sequence[int]) -> list[Any]:
    """An array as mpi4py takes it: so many numbers for each process, one after the other, as bytes."""
    sizes = [count * array.itemsize for count in counts]
    return [array.reshape(-1).view(np.uint8), (sizes, list(itertools.accumulate(sizes[:-1], initial=0)))]


def _leaves_of(figures: Mapping[int, Mean]) -> Callable[[int, int], Mean | None]:
    return lambda first, leaves: figures.get(first) if leaves == 1 else None


def _branches_of(means: Mapping[Branch, Mean]) -> Callable[[int, int], Mean | None]:
    return lambda first, leaves: means.get((first, leaves))


class _Live:
    """What a shard changes in a model: the gradients, and what else it learns, such as running statistics; as it was
    before, and together as one flat array of each dtype."""

    def __init__(self, model: Layer) -> None:
        self._grads = [grads for _, grads in model.buffers.values()]
        self._others = [array for _, layer in model._leaves() for array in layer._unlearned.values()]
        self._before = [array.copy() for array in self._others]
        self._groups: dict[np.dtype[Any], list[Array]] = {}
        for array in (*self._grads, *self._others):
            self._groups.setdefault(array.dtype, []).append(array)

    def restore(self) -> None:
        """No gradients, all else as it was."""
        for grads in self._grads:
            grads.fill(0)
        for array, before in zip(self._others, self._before, strict=True):
            array[...] = before

    def empty(self) -> list[Array]:
        """Arrays for `copied`."""
        return [np.empty(sum(array.size for array in group), dtype) for dtype, group in self._groups.items()]

    def fits(self, arrays: Sequence[Array]) -> bool:
        """Whether they are such."""
        like = [(dtype, sum(array.size for array in group)) for dtype, group in self._groups.items()]
        return like == [(array.dtype, array.size) for array in arrays]

    def copied(self, into: list[Array]) -> list[Array]:
        """All of it as it is now, in `into`."""
        for live, part in self._places(into):
            part[...] = live
        return into

    def take(self, arrays: Sequence[Array]) -> None:
        """Have these numbers."""
        for live, part in self._places(arrays):
            live[...] = part

    def _places(self, arrays: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
        for flat, group in zip(arrays, self._groups.values(), strict=True):
            start = 0
            for live in group:
                yield live, flat[start : start + live.size].reshape(live.shape)
                start += live.size


def _generators(model: Layer) -> list[np.random.Generator]:
    """The generators in a model and its layers, each once, in their order."""
    found: dict[int, np.random.Generator] = {}
    seen: set[int] = set()

    def look(entries: Iterable[Any]) -> None:
        for entry in entries:
            if not isinstance(entry, MAY_HOLD) or id(entry) in seen:
                continue
            seen.add(id(entry))
            if isinstance(entry, np.random.Generator):
                found.setdefault(id(entry.bit_generator), entry)
            elif isinstance(entry, Layer):
                look([value for name, value in entry._attributes().items() if name not in entry._derived])
            else:
                values = entry.values() if isinstance(entry, dict) else entry
                if not PLAIN.issuperset(map(type, values)):
                    look(values)

    look([model])
    return list(found.values())


def _parts(call: str, batch: Any) -> tuple[int, Callable[[slice], Any]]:
    """How many rows a batch has, and a function that gives some of them, in a batch of the same kind."""
    if isinstance(batch, (list, str, bytes)):  # a list of arrays may be meant, or an array
        raise TypeError(f"{call}: batch is a {type(batch).__name__}, expected an array, or a tuple or a dict of arrays")
    given = batch if isinstance(batch, dict) else dict(enumerate(batch)) if isinstance(batch, tuple) else None
    if given is None:
        array = _with_rows(call, "batch", batch)
        return len(array), array.__getitem__
    arrays = {key: _with_rows(call, f"batch[{shown(key)}]", value) for key, value in given.items()}
    if not arrays:
        raise ValueError(f"{call}: batch is empty, expected arrays in it")
    (first, array), *others = arrays.items()
    for key, other in others:
        if len(other) != len(array):
            raise ValueError(
                f"{call}: batch[{shown(first)}] has {len(array)} rows and batch[{shown(key)}] {len(other)}, "
                "expected as many"
            )
    if isinstance(batch, dict):
        return len(array), lambda rows: {key: array[rows] for key, array in arrays.items()}
    return len(array), lambda rows: tuple(array[rows] for array in arrays.values())


def _with_rows(call: str, name: str, value: Any) -> Array:
    array = any_array(call, name, value)
    if array.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{call}: {name} is {shown(value)}, expected an array")
    if array.ndim == 0:
        raise ValueError(f"{call}: {name} has shape (), expected rows to cut it into")
    return array


def _check_rows(call: str, rows: Sequence[int]) -> None:
    """ValueError unless all processes were given batches of one length."""
    for rank, other in enumerate(rows):
        if other != rows[0]:
            raise ValueError(
                f"{call}: the batch has {rows[0]} rows in process 0 and {other} in process {rank}, expected the same "
                "batch in all"
            )


def _checked(call: str, result: Any) -> tuple[float, float]:
    """Loss and weight, where loss_of has given them."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"{call}: loss_of returned {shown(result)}, expected (loss, weight)")
    loss, weight = result
    if isinstance(loss, (bool, np.bool_)) or not isinstance(loss, Real):
        raise TypeError(f"{call}: the loss that loss_of returned is {shown(loss)}, expected a number")
    weight = real(call, "the weight that loss_of returned", weight, 0)
    if weight == math.inf:
        raise ValueError(f"{call}: the weight that loss_of returned is inf, expected a finite one")
    return float(loss), weight
