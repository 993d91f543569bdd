"""Data parallel training: against whole batches and a tree by hand; the same bits for any number of processes, which
are threads here, and in the last tests those of mpiexec; errors, which all processes raise."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from cells import assert_same_bits, python_environment
from test_charmodel import StopAfter

import pyrnn
from pyrnn import parallel
from pyrnn.app import trainer as training
from pyrnn.app.run import Length, Resumed, Settings
from pyrnn.core import processes
from pyrnn.core.processes import Processes, RemoteError, launched
from pyrnn.parallel import DataParallel
from pyrnn.text.corpus import Corpus

threads = sys.modules["pyrnn.threads"]  # whose name has the class in it
TEXT = "".join(f"line {k}: the quick fox jumps over {k * 7919 % 97} dogs\n" for k in range(20))
SETTINGS = Settings(cell="gru", hidden=6, layers=2, dropout=0.3, embed=4, batch=6, steps=16, lr=0.01, shards=4)


class Mixed(pyrnn.Model):
    """Two dtypes, dropout from two generators, running statistics."""

    def __init__(self, rng):
        super().__init__(rng=rng)
        self.rnn = pyrnn.GRU(3, 5, 2, dropout=0.3, batch_first=True)
        self.norm = pyrnn.BatchNorm1d(5, batch_first=True)
        self.parts = {"drop": [pyrnn.Dropout(0.2, rng=7)], "head": pyrnn.Linear(5, 2, dtype="float64")}

    def vjp(self, x):
        pulls = []
        for layer in (self.rnn, self.norm, *self.parts["drop"], self.parts["head"]):
            y, pull = layer.vjp(x)
            x = y[0] if layer is self.rnn else y
            pulls.insert(0, pull)

        def pullback(dy):
            for pull in pulls:
                dy = pull(dy)

        return x, pullback


def squared(model, part):
    y, pullback = model.vjp(part["x"])
    loss, dy = pyrnn.mean_squared_error(y, part["target"])
    pullback(dy)
    return loss, len(part["x"])


def batches(count=2, rows=13):
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(rows, 7, 3)), "target": rng.normal(size=(rows, 7, 2))} for _ in range(count)]


def trained(shards, comm=None):
    """Losses and what a model has in the end."""
    model = Mixed(0)
    trainer = DataParallel(model, comm, shards)
    adam = pyrnn.Adam(model, lr=1e-2)
    losses = []
    for batch in batches():
        losses.append(trainer.step(squared, batch))
        pyrnn.clip_grad_norm(model, 1.0)
        adam.step()
    draws = [generator.integers(1000) for generator in parallel._generators(model)]
    return [np.array(losses), np.array(draws), *model.grads.values(), *model.state_dict().values()]


class Threads(Processes):
    """Processes that are threads: what their communicator does, by hand."""

    def __init__(self, rank, size, board, barrier):
        self.rank, self.size, self.comm = rank, size, self
        self.board, self.barrier = board, barrier
        self._ended = False

    def allgather(self, said):
        self.board[self.rank] = said
        self.barrier.wait(30)
        everywhere = list(self.board)
        self.barrier.wait(30)
        return everywhere

    def Alltoallv(self, sent, received):  # noqa: N802
        data, (sizes, starts) = received
        for other, (theirs, (counts, places)) in enumerate(self.allgather(sent)):
            assert counts[self.rank] == sizes[other]
            data[starts[other] :][: sizes[other]] = theirs[places[self.rank] :][: sizes[other]]
        self.barrier.wait(30)

    def Allgatherv(self, sent, received):  # noqa: N802
        data, (sizes, starts) = received
        for size, start, theirs in zip(sizes, starts, self.allgather(sent), strict=True):
            data[start : start + size] = theirs
        self.barrier.wait(30)


def run_by(size, work, monkeypatch):
    """work(rank) in so many processes: the results, or errors."""
    board, barrier, local = [None] * size, threading.Barrier(size), threading.local()
    results = [None] * size
    monkeypatch.setattr(parallel, "processes_of", lambda *_: local.processes)
    monkeypatch.setattr(parallel, "share_cpus", lambda _: None)  # those of this process

    def body(rank):
        local.processes = Threads(rank, size, board, barrier)
        try:
            results[rank] = work(rank)
        except Exception as error:
            results[rank] = error

    started = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return results


# ---------------------------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("shards", [1, 3, 8, 40])
@pytest.mark.parametrize("kind", [tuple, dict])
def test_it_is_the_whole_batch(rng, shards, kind):
    """Rows of different length, of which one is empty: the mean over all valid steps."""
    model = pyrnn.Sequential(pyrnn.LSTM(3, 6, dtype="float64"), pyrnn.Linear(6, 4, dtype="float64"), rng=0)
    x, target, lengths = rng.normal(size=(9, 5, 3)), rng.integers(0, 4, (9, 5)), np.array([5, 0, 3, 1, 4, 5, 2, 2, 5])

    def loss_of(model, part):
        x, target, lengths = part if kind is tuple else (part[name] for name in ("x", "target", "lengths"))
        y, pullback = model.vjp(x.swapaxes(0, 1), lengths=lengths)
        loss, dy = pyrnn.cross_entropy(y, target.T, lengths=lengths)
        pullback(dy)
        return loss, lengths.sum()

    whole = (x, target, lengths) if kind is tuple else {"x": x, "target": target, "lengths": lengths}
    expected = loss_of(model, whole)[0]
    gradients = {name: array.copy() for name, array in model.grads.items()}
    loss = DataParallel(model, shards=shards).step(loss_of, whole)
    assert loss == pytest.approx(expected, rel=1e-14)
    for name, array in model.grads.items():
        np.testing.assert_allclose(array, gradients[name], rtol=1e-12, atol=1e-15)


def test_the_tree_is_that_of_the_shards(rng):
    model = pyrnn.GRU(3, 4, rng=0, batch_first=True)
    x = rng.normal(size=(11, 6, 3)).astype(np.float32)

    def loss_of(model, x):
        (y, _), pullback = model.vjp(x)
        pullback(y)
        return float(np.square(y).sum()), 2 * len(x)

    means = []
    for k in range(5):
        model.zero_grad()
        loss, weight = loss_of(model, x[11 * k // 5 : 11 * (k + 1) // 5])
        means.append((weight, loss, {name: grad.copy() for name, grad in model.grads.items()}))

    def mean(left, right):
        weight = left[0] + right[0]
        a, b = left[0] / weight, right[0] / weight
        gradients = {name: np.float32(a) * left[2][name] + np.float32(b) * right[2][name] for name in left[2]}
        return weight, a * left[1] + b * right[1], gradients

    _, loss, gradients = mean(mean(mean(means[0], means[1]), mean(means[2], means[3])), means[4])
    assert DataParallel(model, shards=5).step(loss_of, x) == loss
    assert_same_bits(list(model.grads.values()), list(gradients.values()))


def test_one_shard_is_the_batch_as_it_is(rng):
    model = pyrnn.Linear(3, 2, rng=0)
    x = rng.normal(size=(7, 3))
    y, pullback = model.vjp(x)
    pullback(y)
    expected = [grad.copy() for grad in model.grads.values()]
    DataParallel(model, shards=1).step(lambda model, x: (model.vjp(x)[1](y), (0.3, 0.7))[1], x)
    assert_same_bits(list(model.grads.values()), expected)


def test_shards_draw_numbers_of_their_own(rng):
    """Rows that are alike are dropped in other places in each shard, and in each step."""

    class Dropped(pyrnn.Model):
        def __init__(self):
            super().__init__(drop=pyrnn.Dropout(0.5, rng=0), head=pyrnn.Linear(64, 1, rng=0))

    model, seen = Dropped(), []

    def loss_of(model, part):
        seen.append(model.drop.vjp(part)[0])
        return 0.0, 1.0

    trainer = DataParallel(model, shards=4)
    for _ in range(2):
        trainer.step(loss_of, np.ones((4, 64)))
    assert len({mask.tobytes() for mask in seen}) == 8


def test_a_shard_without_weight_counts_for_nothing(rng):
    model = pyrnn.Linear(2, 1, dtype="float64", rng=0)
    x = rng.normal(size=(4, 2))

    def loss_of(model, x):
        y, pullback = model.vjp(x)
        pullback(np.full_like(y, np.nan) if weights[0] == 0 else y)
        return np.float32(np.nan) if weights[0] == 0 else 2.0, weights.pop(0)

    trainer = DataParallel(model, shards=4)
    weights = [1, 0, 0, 3]
    assert trainer.step(loss_of, x) == 2.0
    model.zero_grad()
    expected = (x[0] * model(x[:1]) + 3 * x[3] * model(x[3:])) / 4
    weights = [1, 0, 0, 3]
    trainer.step(loss_of, x)
    np.testing.assert_allclose(model.grads["weight"], expected, rtol=1e-14)
    weights = [0] * 4
    assert trainer.step(loss_of, x) == 0.0
    assert not model.grads["weight"].any()
    assert trainer.step(loss_of, x[:0]) == 0.0


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_any_number_of_processes_gives_the_same_bits(monkeypatch, shards):
    expected = trained(shards)
    for size in (2, 3, 4, 9):
        for found in run_by(size, lambda rank: trained(shards), monkeypatch):
            assert not isinstance(found, Exception), found
            assert_same_bits(found, expected)


def test_processes_begin_with_what_the_first_has(monkeypatch):
    def work(rank):
        model = Mixed(rank)
        DataParallel(model, shards=2)
        draws = [generator.integers(1000) for generator in parallel._generators(model)]
        return [np.array(draws), *model.state_dict().values()]

    first, *others = run_by(3, work, monkeypatch)
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize(("chosen", "left"), [(False, 2), (True, 6)])
def test_processes_of_one_machine_share_its_cpus(monkeypatch, chosen, left):
    """Two are on another one, and another has CPUs of its own."""
    places = [("a", [0, 1]), ("a", [0, 1]), ("b", [0, 1]), ("b", [0, 1]), ("a", [0, 1]), ("a", [2, 3])]
    rank = lambda: parallel.processes_of("test").rank  # noqa: E731
    told = []

    def share(processes):
        if rank() == 0:
            threads.share_cpus(processes)
            told.append((processes, pyrnn.get_num_threads()))

    def work(_):
        monkeypatch.setattr(parallel, "share_cpus", share)
        DataParallel(pyrnn.Linear(3, 2))

    monkeypatch.setattr(parallel, "_place", lambda: places[rank()])
    with pyrnn.threads(6):
        monkeypatch.setattr(threads, "_chosen", chosen)
        assert run_by(6, work, monkeypatch) == [None] * 6
    assert told == [(3, left)]


@pytest.mark.parametrize("size", [1, 3])
def test_map_gives_the_parts_in_order(monkeypatch, size):
    work = lambda rank: DataParallel(pyrnn.Linear(2, 2), shards=5).map(lambda _, x: x.tolist(), np.arange(4))  # noqa: E731
    assert run_by(size, work, monkeypatch) == [[[0], [1], [2], [3]]] * size


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "result", "batch", "message"),
    [
        (TypeError, 1.0, np.ones((4, 3)), r"loss_of returned 1\.0, expected \(loss, weight\)"),
        (TypeError, None, np.ones((4, 3)), "loss_of returned None"),
        (TypeError, (1, 2, 3), np.ones((4, 3)), "loss_of returned"),
        (TypeError, ("a", 1), np.ones((4, 3)), "the loss that loss_of returned is 'a', expected a number"),
        (TypeError, (1.0, None), np.ones((4, 3)), "the weight that loss_of returned is None, expected a number"),
        (ValueError, (1.0, -1), np.ones((4, 3)), "the weight that loss_of returned is -1, expected at least 0"),
        (ValueError, (1.0, np.nan), np.ones((4, 3)), "the weight that loss_of returned is nan, expected at least 0"),
        (ValueError, (1.0, np.inf), np.ones((4, 3)), "the weight that loss_of returned is inf, expected a finite one"),
        (TypeError, (1, 1), [[1.0, 2.0]], "batch is a list, expected an array, or a tuple or a dict of arrays"),
        (TypeError, (1, 1), "abc", "batch is a str"),
        (TypeError, (1, 1), None, "batch is None, expected an array"),
        (TypeError, (1, 1), {"x": object()}, r"batch\['x'\] is object object, expected an array"),
        (ValueError, (1, 1), np.ones(()), r"batch has shape \(\), expected rows"),
        (ValueError, (1, 1), (), "batch is empty"),
        (ValueError, (1, 1), (np.ones(4), np.ones(5)), r"batch\[0\] has 4 rows and batch\[1\] 5, expected as many"),
        (ValueError, (1, 1), {"x": np.ones(4), "y": np.ones(0)}, r"batch\['x'\] has 4 rows and batch\['y'\] 0"),
    ],
)
def test_wrong_batches_and_results(error, result, batch, message):
    trainer = DataParallel(pyrnn.Linear(3, 2), shards=2)
    with pytest.raises(error, match="DataParallel.step: " + message):
        trainer.step(lambda model, part: result, batch)


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"shards": 0}, "DataParallel: shards is 0, expected at least 1"),
        (TypeError, {"shards": 2.0}, r"shards is 2\.0, expected an integer"),
        (TypeError, {"model": "gru"}, "model is str, expected a layer or a model"),
        (ValueError, {"model": pyrnn.Dropout(0.5)}, "Dropout has no parameters"),
        (TypeError, {"model": pyrnn.Linear(3, 2).quantize("int8")}, "cannot be trained"),
        (TypeError, {"comm": 3}, r"comm is 3, expected a communicator of mpi4py \(an MPI.Intracomm\) or None"),
    ],
)
def test_wrong_arguments(error, arguments, message):
    with pytest.raises(error, match=message):
        DataParallel(**{"model": pyrnn.Linear(3, 2), **arguments})


@pytest.mark.parametrize("size", [1, 3])
def test_after_an_error_all_is_as_it_was(monkeypatch, size):
    """In every process, and all raise the same; then training goes on with the bits it would have had."""
    batch, other = batches()

    def work(rank, failing=True):
        model = Mixed(0)
        trainer = DataParallel(model, shards=6)
        trainer.step(squared, other)
        before = [*model.state_dict().values(), *parallel_states(model)]

        def loss_of(model, part):
            result = squared(model, part)
            if np.array_equal(part["x"], batch["x"][4:6]):  # shard 2, of the second of three processes
                raise KeyError("bad rows")
            return result

        if failing:
            with pytest.raises(KeyError, match="bad rows") as caught:
                trainer.step(loss_of, batch)
            cause = caught.value.__cause__
            own = size == 1 or rank == 1
            assert cause is None if own else "in process 1:\nTraceback" in str(cause)
            assert_same_bits([*model.state_dict().values(), *parallel_states(model)], before)
            assert not any(grad.any() for grad in model.grads.values())
        trainer.step(squared, batch)
        return list(model.grads.values())

    results = run_by(size, work, monkeypatch)
    expected = run_by(1, lambda rank: work(rank, failing=False), monkeypatch)[0]
    for found in results:
        assert not isinstance(found, BaseException), found
        assert_same_bits(found, expected)


def parallel_states(model):
    states = [generator.bit_generator.state["state"] for generator in parallel._generators(model)]
    return [np.frombuffer(repr(state).encode(), np.uint8) for state in states]


class Odd(Exception):  # noqa: N818
    """One that no pickle brings back."""

    def __init__(self, first, second):
        super().__init__(first)


def test_errors_of_several_processes(monkeypatch):
    """All raise the first one, whatever it is."""

    def work(rank):
        group = parallel.processes_of("test")
        for error in (ValueError("a"), SystemExit(3), Odd("b", 2)):

            def fail(error=error):
                if rank >= 1:
                    raise error

            with pytest.raises(BaseException, match=str(error)) as caught:
                group.together(fail)
            if rank == 1:
                assert caught.value is error
            else:
                assert type(caught.value) is (RuntimeError if isinstance(error, Odd) else type(error))
                assert isinstance(caught.value.__cause__, RemoteError)
        assert group.first(lambda: rank) == 0
        return group.together(lambda: rank)

    assert run_by(3, work, monkeypatch) == [[0, 1, 2]] * 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda rank: DataParallel(pyrnn.Linear(3, 2), shards=4 + rank // 2), "process 0 and process 2 have 4 and 5"),
        (lambda rank: DataParallel(pyrnn.Linear(3, 2 + rank)), "process 0 and process 1 have models of other param"),
        (
            lambda rank: DataParallel(pyrnn.Linear(3, 2)).step(lambda model, x: (1, 1), np.ones(4 + rank)),
            "the batch has 4 rows in process 0 and 5 in process 1",
        ),
    ],
)
def test_processes_that_do_not_do_the_same(monkeypatch, build, message):
    for error in run_by(3, build, monkeypatch):
        with pytest.raises(ValueError, match=message):
            raise error


def test_other_instruction_sets(monkeypatch):
    def work(rank):
        monkeypatch.setattr(parallel, "kernels", types.SimpleNamespace(isa=lambda: f"set-{parallel_rank()}"))
        return DataParallel(pyrnn.Linear(3, 2))

    parallel_rank = lambda: parallel.processes_of("test").rank  # noqa: E731
    for error in run_by(2, work, monkeypatch):
        with pytest.raises(ValueError, match="the instruction sets set-0 and set-1, whose bits differ: set PYRNN_ISA"):
            raise error


@pytest.fixture
def started(monkeypatch):
    """As mpiexec starts one of two processes."""
    for names in processes.PLACES:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    assert launched() is None
    assert processes.processes_of("test").comm is None
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert launched() == (1, 2)


def test_several_processes_need_mpi4py(started, monkeypatch, capsys):
    from pyrnn.app import cli

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(
        ImportError, match=r"DataParallel: mpiexec has started .* pip install mpi4py, the extra \[mpi\]"
    ):
        DataParallel(pyrnn.Linear(3, 2))
    assert cli.main(["train"]) == 1
    assert "Error: pyrnn train: mpiexec has started" in capsys.readouterr().err
    assert cli.main(["info"]) == 0  # of the first process
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("PMI_SIZE", "1")
    assert processes.processes_of("test").comm is None


def test_mpiexec_of_another_mpi(started, monkeypatch):
    alone = types.SimpleNamespace(size=1, rank=0)
    other = types.SimpleNamespace(COMM_WORLD=alone, Get_library_version=lambda: "Some MPI v1\nof 2026")
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=other))
    with pytest.raises(
        RuntimeError, match=r"started 2 processes, of which mpi4py sees 1.* Take the mpiexec of Some MPI"
    ):
        DataParallel(pyrnn.Linear(3, 2))


# ---------------------------------------------------------------------------------------------------- pyrnn train


def test_a_training_goes_on_in_another_number_of_processes(tmp_path, monkeypatch):
    corpus, length = Corpus(TEXT), Length(epochs=2)
    whole = training.Trainer(corpus, SETTINGS, length, tmp_path / "whole")
    whole.run()

    def work(rank, stop, begin):
        path = tmp_path / "m"
        trainer = (
            training.Trainer(corpus, SETTINGS, length, path)
            if begin
            else training.Trainer.resume(Resumed.read(path), corpus, length, path)
        )
        trainer.run(StopAfter(stop + 100 * (rank == 0)))  # any of them may have had the signal
        return trainer.done

    for size, stop in ((3, 5), (4, 5), (2, 3), (2, 200)):
        results = run_by(size, lambda rank, size=size, stop=stop: work(rank, stop, size == 3), monkeypatch)
        assert len(set(results)) == 1, results
    assert results[0] == whole.done
    assert (tmp_path / "m").read_bytes() == (tmp_path / "whole").read_bytes()


def test_shards_do_not_change_what_is_learned(tmp_path):
    """But for rounding: the rows keep their states."""
    bits = []
    for shards in (1, 3):
        settings = Settings(**(vars(SETTINGS) | {"shards": shards, "dropout": 0.0}))
        trainer = training.Trainer(Corpus(TEXT), settings, Length(epochs=2), tmp_path / f"{shards}")
        trainer.run()
        bits.append([bits for _, bits in trainer.curve.valid])
    np.testing.assert_allclose(bits[1], bits[0], rtol=1e-4)


# ---------------------------------------------------------------------------------------------------- under mpiexec

TRAIN = "text.txt --cell gru --hidden 6 --layers 2 --dropout 0.3 --embed 4 --batch 6 --steps 16 --lr 0.01 --shards 4"

OPEN_MPI = {  # which refuses root, and more processes than cores
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


@pytest.fixture
def mpiexec(tmp_path):
    """Runs a script in several processes: exit code, what they print, their errors."""
    pytest.importorskip("mpi4py")
    command = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if command is None:
        pytest.skip("No mpiexec")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "script.py").write_text("")

    def run(size, script):
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        result = subprocess.run(
            [command, "-n", str(size), sys.executable, "script.py"],
            env=python_environment(PYRNN_NUM_THREADS="1", PYRNN_WAKE=None, **OPEN_MPI),
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return result.returncode, result.stdout, result.stderr

    return run


def test_mpi_gives_the_bits_of_one_process(mpiexec, tmp_path):
    """In communicators of one to four processes, and on the command line; errors are caught in all."""
    code, out, errors = mpiexec(4, f"""
        import numpy as np, sys
        from mpi4py import MPI
        import test_parallel as tests
        from pyrnn.app import cli

        world = MPI.COMM_WORLD
        for size in (1, 2, 3, 4):
            comm = world.Split(world.rank < size, world.rank)
            if world.rank < size:
                arrays = tests.trained(5, comm)
                if comm.rank == size - 1:
                    np.savez(f"{{size}}.npz", *arrays)

        def fail(model, part):
            if part[0] == 3:
                raise ValueError("bad row")
            return 1.0, 1

        try:
            tests.DataParallel(tests.Mixed(0), shards=4).step(fail, np.arange(4))
        except ValueError as error:
            assert str(error) == "bad row" and (error.__cause__ is None) == (world.rank == 3)
            if world.rank == 0:
                sys.exit(cli.main("train {TRAIN} --epochs 2".split()))
            sys.exit(cli.main("train {TRAIN} --epochs 2 --out wrong".split()))  # the first alone has files
    """)  # fmt: skip
    assert code == 0, errors
    expected = trained(5)
    for size in (1, 2, 3, 4):
        with np.load(tmp_path / f"{size}.npz") as found:
            assert_same_bits(list(found.values()), expected)
    assert errors.count("It writes:") == 1
    assert len(out) < 1000
    whole = training.Trainer(Corpus(TEXT, [str(tmp_path / "text.txt")]), SETTINGS, Length(epochs=2), tmp_path / "whole")
    whole.run()
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "wrong").exists()


def test_a_killed_process_ends_the_others_and_the_training_goes_on(mpiexec, tmp_path):
    code, _, _ = mpiexec(2, f"""
        import os, signal
        from pyrnn.app import cli, trainer

        def step(self):
            own(self)
            if self.parallel.rank == 1 and self.done == 9:
                os.kill(os.getpid(), signal.SIGKILL)

        own, trainer.Trainer._step, trainer.SAVE_EVERY = trainer.Trainer._step, step, 0
        cli.main("train {TRAIN} --epochs 4 --out m".split())
    """)  # fmt: skip
    assert code != 0
    length, corpus = Length(epochs=4), Corpus(TEXT, [str(tmp_path / "text.txt")])
    path = tmp_path / "m"
    resumed = training.Trainer.resume(Resumed.read(path), corpus, length, path)
    assert 0 < resumed.done < 10
    resumed.run()
    training.Trainer(corpus, SETTINGS, length, tmp_path / "whole").run()
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("end", ["raise KeyError('bad file')", "sys.exit('bad file')"])
def test_a_process_that_ends_ends_the_others(mpiexec, end):
    code, out, errors = mpiexec(2, f"""
        import sys, numpy as np, pyrnn
        trainer = pyrnn.parallel.DataParallel(pyrnn.Linear(3, 2))
        if trainer.rank == 1:
            {end}
        trainer.step(lambda model, part: (1.0, 1), np.ones((8, 3)))
        print("not reached")
    """)  # fmt: skip
    assert code != 0
    assert "bad file" in errors
    assert "not reached" not in out
