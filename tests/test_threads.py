"""Threads: how many there are, calls from several Python threads, fork, and rest when nothing is to be done.

What concerns a whole process runs in a fresh one. Every script ends, or the test fails by its timeout.
"""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cells import VARIANTS, assert_same_bits, flat, make_layer, python, python_environment

import pyrnn

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")

# For scripts: a layer with work for several threads, and its answer on one thread.
SETUP = """
    import multiprocessing, os, signal, sys, threading, time
    import numpy as np
    import pytest
    import pyrnn

    layer = pyrnn.LSTM(40, 96, rng=0)
    x = np.random.default_rng(0).standard_normal((8, 24, 40)).astype("float32")

    def answer():
        (y, (h, c)), pullback = layer.vjp(x)
        dx, _ = pullback(y, (h, c))
        return y.tobytes() + c.tobytes() + dx.tobytes()

    def in_child(check):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if check() else 2
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def script(body, **settings):
    return python(SETUP + body, OPENBLAS_NUM_THREADS="1", **settings)


# ---- how many


def test_default_is_the_cpus_of_this_process():
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(count, pyrnn._core.quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup") or count)
    assert python("import pyrnn; print(pyrnn.get_num_threads())", PYRNN_NUM_THREADS=None).strip() == str(count)


@pytest.mark.parametrize("n", ["1", "3", "256"])
def test_environment(n):
    assert python("import pyrnn; print(pyrnn.get_num_threads())", PYRNN_NUM_THREADS=n).strip() == n


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_to_one_cpu_is_one_thread():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import pyrnn
        print(pyrnn.get_num_threads())
    """
    assert python(code, PYRNN_NUM_THREADS=None).strip() == "1"


def test_set_and_restore():
    before = pyrnn.get_num_threads()
    try:
        for n in (1, 3, 256, np.int64(2)):
            pyrnn.set_num_threads(n)
            assert pyrnn.get_num_threads() == n
        with pyrnn.threads(5):
            assert pyrnn.get_num_threads() == 5
            with pyrnn.threads(1):
                assert pyrnn.get_num_threads() == 1
            assert pyrnn.get_num_threads() == 5
        assert pyrnn.get_num_threads() == 2
        with pytest.raises(KeyError), pyrnn.threads(4):
            raise KeyError
        assert pyrnn.get_num_threads() == 2
        for wrong in (0, -1, 257, 2**31, 2**40, 2**64 + 1, -(2**63)):
            with pytest.raises(ValueError, match="expected"):
                pyrnn.set_num_threads(wrong)
        for wrong in (1.0, "2", None, True, np.float64(2)):
            with pytest.raises(TypeError):
                pyrnn.set_num_threads(wrong)
        assert pyrnn.get_num_threads() == 2
    finally:
        pyrnn.set_num_threads(before)


@on_linux
def test_threads_are_made_when_they_are_worth_it():
    """As many as were asked for, none at import or for small calls, and they are used again."""
    out = script(
        """
    def count():
        return len(os.listdir("/proc/self/task"))

    counts = [count()]
    small = pyrnn.GRU(3, 5, rng=0)
    small(np.zeros((4, 2, 3)))
    counts.append(count())
    for n in (1, 2, 3, 3, 2):
        with pyrnn.threads(n):
            answer()
        counts.append(count())
    print(*counts)
    """
    )
    assert out.split() == ["1", "1", "1", "2", "3", "3", "3"]


@on_linux
def test_small_work_wakes_nobody_unless_it_goes_on():
    """One call alone is not worth waking a thread for, a long one is, and so are many in a row."""
    out = script(
        """
    def count():
        return len(os.listdir("/proc/self/task"))

    pyrnn.set_num_threads(2)
    expected = answer()
    counts = [count()]
    for _ in range(20):
        time.sleep(0.001)
        assert answer() == expected
    counts.append(count())
    for _ in range(200):
        assert answer() == expected
    counts.append(count())
    print(*counts)
    """,
        PYRNN_WAKE=None,
    )
    assert out.split() == ["1", "1", "2"]
    body = """
    pyrnn.set_num_threads(2)
    pyrnn.LSTM(256, 256, rng=0)(np.zeros((100, 16, 256)))
    print(len(os.listdir("/proc/self/task")))
    """
    assert script(body, PYRNN_WAKE=None).strip() == "2"
    refused = python("import pyrnn", ok=False, PYRNN_WAKE="never")
    assert "PYRNN_WAKE is 'never', expected always, late or patient" in refused


@on_linux
def test_same_bits_tests_are_shared_among_threads():
    """The sizes in test_same_bits.py are large enough for three threads, each case counted in a child of its own."""
    script(
        """
    from pyrnn.cells import CELLS
    from test_same_bits import SHARED, VARIANTS, Case

    for sharing, (steps, rows, widths) in SHARED.items():
        for variant, (cell, _, _) in VARIANTS.items():
            if CELLS[cell].weights.get("weight_hh") != "GP" and sharing != "large_inputs":
                continue  # without a product of the hidden state there is less work
            case = Case(variant, "one", "float32", widths, steps=steps, rows=rows, walk=sharing.startswith("ragged"))

            def three_are_used():
                with pyrnn.threads(3):
                    case.layer(case.x, lengths=case.lengths)
                return len(os.listdir("/proc/self/task")) == 3

            assert in_child(three_are_used) == 0, (sharing, variant)
    """,
        PYRNN_NUM_THREADS="1",
    )


def test_who_comes_late_is_left_behind():
    """Where whoever has to be waited for counts as late, threads go on alone in the middle of calls: the same bits."""
    script(
        """
    chosen = "any_number_of_threads and not float64 and not rnn and not peephole and not projection and not looked_up"
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_same_bits.py", "test_attention.py", "-k", chosen]))
    """,
        PYRNN_WAKE="late",
    )


# What a control group lets its processes use, as containers set it: files as Linux has them, and whole CPUs.
QUOTAS = {
    "none": ("0::/", {"cpu.max": "max 100000"}, 0),
    "two": ("0::/", {"cpu.max": "200000 100000"}, 2),
    "one and a half": ("0::/", {"cpu.max": "150000 100000"}, 1),
    "less than one": ("0::/", {"cpu.max": "20000 100000"}, 1),
    "of a group above": ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
    "the least": ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3),
    "the host's path": ("0::/kubepods/x", {"cpu.max": "200000 100000"}, 2),
    "version 1": (
        "7:memory:/c\n3:cpu,cpuacct:/c",
        {"cpu,cpuacct/c/cpu.cfs_quota_us": "250000", "cpu,cpuacct/c/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, none": ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0),
    "no files": ("0::/a", {}, 0),
    "nonsense": ("x\n\n0::\n1:cpu:y", {"cpu.max": "many"}, 0),
}


@pytest.mark.parametrize(("groups", "files", "cpus"), QUOTAS.values(), ids=QUOTAS)
def test_quota_of_a_container(tmp_path, groups, files, cpus):
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "groups").write_text(groups + "\n")
    assert pyrnn._core.quota_cpus(str(tmp_path / "groups"), str(tmp_path / "mount")) == cpus


# ---- several Python threads


def work_of(variant, seed):
    """A layer and the function that runs it, forward and back, on its own inputs."""
    rng = np.random.default_rng(seed)
    layer = make_layer(variant, 40, 96, proj_size=33, rng=seed)
    x = rng.standard_normal((6, 3 + 7 * (seed % 3), 40)).astype("float32")

    def run():
        layer.zero_grad()
        (y, final), pullback = layer.vjp(x)
        dx, dstate = pullback(y, final)
        return list(flat(y, final, dx, dstate, [g.copy() for g in layer.grads.values()]))

    return run


@pytest.mark.parametrize("n", [1, 2, 5])
def test_calls_from_several_threads(n):
    runs = [work_of(variant, seed) for seed, variant in enumerate(VARIANTS)]
    with pyrnn.threads(1):
        expected = [run() for run in runs]
    with pyrnn.threads(n), ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for result, e in zip(pool.map(lambda run: run(), runs), expected, strict=True):
                assert_same_bits(result, e)


def test_one_layer_called_from_several_threads():
    """Forward calls only read a layer."""
    layer = pyrnn.LSTM(40, 96, num_layers=2, bidirectional=True, rng=0)
    inputs = [np.random.default_rng(k).standard_normal((5, 1 + k, 40)).astype("float32") for k in range(24)]
    expected = [layer(x) for x in inputs]
    with ThreadPoolExecutor(5) as pool:
        for _ in range(2):
            assert_same_bits(list(pool.map(layer, inputs)), expected)


def test_pools_in_pools():
    run = work_of("gru", 1)
    expected = run()
    layers = [work_of("gru", 1) for _ in range(6)]

    def inner(k):
        with ThreadPoolExecutor(2) as pool:
            return [f.result() for f in [pool.submit(layers[2 * k]), pool.submit(layers[2 * k + 1])]]

    with ThreadPoolExecutor(3) as pool:
        for results in pool.map(inner, range(3)):
            for result in results:
                assert_same_bits(result, expected)


def test_number_of_threads_changed_by_others_meanwhile():
    runs = [work_of("lstm", 1), work_of("gru_reset_before", 2)]
    expected = [run() for run in runs]
    before, done = pyrnn.get_num_threads(), threading.Event()

    def disturb():
        n = 1
        while not done.is_set():
            n = n % 6 + 1
            pyrnn.set_num_threads(n)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(10):
                assert_same_bits(list(pool.map(lambda run: run(), runs)), expected)
    finally:
        done.set()
        disturber.join()
        pyrnn.set_num_threads(before)


def test_one_stream_used_by_several_threads():
    """Each step happens as a whole, in some order: a relu network that counts loses none."""
    layer = pyrnn.RNN(1, 40, nonlinearity="relu", rng=0)
    layer.load_state_dict(
        {
            "weight_ih_l0": np.ones((40, 1)),
            "weight_hh_l0": np.eye(40),
            "bias_ih_l0": np.zeros(40),
            "bias_hh_l0": np.zeros(40),
        }
    )
    stream = layer.stream(batch=7)
    one, chunk = np.ones((7, 1), "float32"), np.ones((3, 7, 1), "float32")

    def use(k):
        for _ in range(200):
            y = stream.step(one) if k % 2 else stream(chunk)
            assert (y == y[..., :1]).all()
            _ = stream.state

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert (stream.state == 2 * 200 + 2 * 600).all()


def test_state_of_a_stream_is_of_one_moment():
    """h and c of both layers from the same step, never from the middle of one."""
    layer = pyrnn.LSTM(8, 33, num_layers=2, rng=0)
    x = np.random.default_rng(0).standard_normal((60, 5, 8)).astype("float32")
    stream, seen = layer.stream(5), set()
    for x_t in x:
        seen.add(b"".join(s.tobytes() for s in stream.state))
        stream.step(x_t)
    seen.add(b"".join(s.tobytes() for s in stream.state))
    stream, done = layer.stream(5), threading.Event()

    def watch():
        states = []
        while not done.is_set():
            states.append(b"".join(s.tobytes() for s in stream.state))
        return states

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        for _ in range(5):
            stream.reset()
            for x_t in x:
                stream.step(x_t)
        done.set()
        assert set(watcher.result()) <= seen


@pytest.fixture
def hasty_switching():
    """Python threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_switching")
def test_one_pullback_called_by_several_threads():
    """One of them gets the gradients, the others the error; nothing is added twice."""
    for seed in range(100):
        layer = pyrnn.GRU(5, 17, num_layers=2, rng=0)
        x = np.random.default_rng(seed).standard_normal((6, 3, 5))
        (y, _), pullback = layer.vjp(x)
        pullback(y)
        once = [g.copy() for g in layer.grads.values()]
        layer.zero_grad()
        (y, _), pullback = layer.vjp(x)
        start = threading.Barrier(4)
        dy = np.asfortranarray(y.astype("f4"))  # has to be copied, at which threads change

        def call(pullback=pullback, start=start, dy=dy):
            start.wait()
            try:
                return pullback(dy)
            except RuntimeError:
                return None

        with ThreadPoolExecutor(4) as pool:
            results = [f.result() for f in [pool.submit(call) for _ in range(4)]]
        assert sum(r is not None for r in results) == 1
        assert_same_bits(list(layer.grads.values()), once)


def test_arguments_that_call_the_pullback_they_are_for():
    layer = pyrnn.LSTM(3, 5, rng=0)
    x, dy = np.ones((4, 6, 3), "f4"), np.ones((4, 6, 5), "f4")
    _, pullback = pyrnn.kernels.lstm.vjp(x, None, layer._weights[0])

    class Grads(list):
        def __getitem__(self, i):
            with pytest.raises(RuntimeError, match="has been used"):
                pullback(dy, None, (None,) * 6)
            return super().__getitem__(i)

    with pytest.raises(TypeError, match="dy"):
        pullback("dy", None, Grads([None] * 6))
    dx, _ = pullback(dy, None, Grads([None] * 6))
    assert dx.shape == x.shape


def test_pullback_in_another_thread():
    run = work_of("lstm_peephole", 2)
    expected = run()
    with ThreadPoolExecutor(1) as pool:
        assert_same_bits(pool.submit(run).result(), expected)


# ---- fork


@needs_fork
@pytest.mark.parametrize("before", ["", "answer()", "pyrnn.set_num_threads(5); answer()"])
def test_fork(before):
    """Before any use and after it, from the main thread, from another thread, and in a child of a child."""
    script(
        f"""
    with pyrnn.threads(1):
        expected = answer() if {bool(before)} else None
    {before}

    def right():
        result = answer()
        return expected is None or result == expected

    assert in_child(right) == 0
    assert in_child(lambda: in_child(right) == 0 and right()) == 0
    codes = []
    thread = threading.Thread(target=lambda: codes.append(in_child(right)))
    thread.start()
    thread.join()
    assert codes == [0]
    with pyrnn.threads(3):
        assert in_child(right) == 0
    assert right()
    """
    )


@needs_fork
def test_fork_while_other_threads_run():
    """The child has none of the parent's threads, and whatever they held."""
    script(
        """
    with pyrnn.threads(1):
        expected = answer()
    pyrnn.set_num_threads(3)
    other, done = pyrnn.LSTM(40, 96, rng=0), threading.Event()
    stream = other.stream(24)

    def busy():
        while not done.is_set():
            other.vjp(x)
            stream(x)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for t in threads: t.start()

    def right():
        signal.alarm(30)  # ends a child that hangs
        return all(answer() == expected for _ in range(3))

    codes = [in_child(right) for _ in range(15)]
    done.set()
    for t in threads: t.join()
    assert codes == [0] * 15, codes
    assert answer() == expected
    """
    )


@needs_fork
def test_a_stream_goes_on_in_a_child():
    script(
        """
    stream = layer.stream(24)
    stream(x[:4])
    expected = layer(x)[0][4:].tobytes()
    assert in_child(lambda: stream(x[4:]).tobytes() == expected) == 0
    assert stream(x[4:]).tobytes() == expected
    """
    )


@needs_fork
def test_a_stream_in_use_at_fork_does_not_hang_the_child():
    """What it holds there is anybody's guess, but a call must come to an end."""
    script(
        """
    stream, done = layer.stream(24), threading.Event()

    def busy():
        while not done.is_set():
            stream(x)

    def ends():
        signal.alarm(2)  # ends a child that hangs
        try:
            stream(x)
        except RuntimeError:
            pass
        return True

    thread = threading.Thread(target=busy)
    thread.start()
    codes = [in_child(ends) for _ in range(3)]
    done.set()
    thread.join()
    assert codes == [0] * 3, codes
    """
    )


@needs_fork
def test_a_pullback_goes_on_in_a_child():
    script(
        """
    (y, _), pullback = layer.vjp(x)
    dx, _ = layer.vjp(x)[1](y)
    assert in_child(lambda: pullback(y)[0].tobytes() == dx.tobytes()) == 0
    assert pullback(y)[0].tobytes() == dx.tobytes()
    """
    )


POOL = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import pyrnn

def answer(seed):
    layer = pyrnn.LSTM(40, 96, rng=seed)
    x = np.random.default_rng(seed).standard_normal((8, 24, 40)).astype("float32")
    (y, state), pullback = layer.vjp(x)
    dx, _ = pullback(y, state)
    return y.tobytes() + dx.tobytes()

if __name__ == "__main__":
    method, used = sys.argv[1], sys.argv[2] == "used"
    context = multiprocessing.get_context(method)
    first = [answer(k) for k in range(4)] if used else None
    with context.Pool(2) as pool:
        pooled = pool.map(answer, range(4))
    expected = first or [answer(k) for k in range(4)]
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        executed = list(pool.map(answer, range(4)))
    assert pooled == executed == expected
"""


@pytest.mark.parametrize("used", ["used", "fresh"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, used, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not here")
    file = tmp_path / "pool.py"
    file.write_text(POOL)
    environment = python_environment(OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    command = [sys.executable, str(file), method, used]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


# ---- rest, interruption, the end


def test_idle_threads_burn_no_time():
    """CPU time of the whole process over a pause after a call, on more threads than there are CPUs too."""
    out = script(
        """
    for n in (2, 5):
        with pyrnn.threads(n):
            for _ in range(3):
                answer()
            before = time.process_time()
            time.sleep(0.3)
            print(time.process_time() - before)
    """
    )
    for seconds in map(float, out.split()):
        assert seconds < 0.05


@pytest.mark.skipif(not hasattr(os, "kill"), reason="no signals here")
def test_keyboard_interrupt():
    """It arrives in the main thread once the call is over, and the next calls are as before."""
    script(
        """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
    pyrnn.set_num_threads(3)
    expected = answer()
    long = np.zeros((3000, 24, 40), "float32")
    for _ in range(3):
        try:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
            for _ in range(1000):
                layer(long)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("no interrupt came")
        assert answer() == expected
    """
    )


@pytest.mark.parametrize("daemon", [False, True])
def test_the_process_ends_while_threads_are_calling(daemon):
    """Quietly: with code 0 and nothing on standard error."""
    code = f"""
    pyrnn.set_num_threads(3)
    stop = time.monotonic() + 0.3
    def busy():
        while {daemon} or time.monotonic() < stop:
            answer()
            layer.stream(24)(x)
    for _ in range(3):
        threading.Thread(target=busy, daemon={daemon}).start()
    time.sleep(0.1)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SETUP + code)],
        env=python_environment(OPENBLAS_NUM_THREADS="1"),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_threads_of_the_system_run_out():
    """A call makes do with the threads it gets."""
    script(
        """
    import resource
    expected = answer()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))  # no room for many stacks
    pyrnn.set_num_threads(256)
    big = np.zeros((8, 2000, 40), "float32")
    try:
        layer(big)
    except MemoryError:
        pass
    assert answer() == expected
    """
    )
