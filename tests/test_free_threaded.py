"""What must hold where Python has no GIL (docs/internals.md). With one, the same calls: kernels run without it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cells import assert_same_bits, python
from test_threads import hasty_switching, needs_fork, script  # noqa: F401  a fixture

import pyrnn
from pyrnn import kernels


def test_import_leaves_the_gil_as_it_is():
    """Where there is none, a module that has not declared that it needs none would switch it on, with a warning."""
    python(
        """
    import sys
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    import numpy
    before = enabled()
    import pyrnn, pyrnn.cython_stream
    assert enabled() == before
    """
    )


@pytest.mark.usefixtures("hasty_switching")
def test_one_compiled_pullback_called_by_several_threads():
    layer = pyrnn.LSTM(5, 17, rng=0)
    x = np.random.default_rng(0).standard_normal((6, 3, 5)).astype("float32")
    dy = np.asfortranarray(np.ones((6, 3, 17), "float32"))  # has to be copied, at which threads change
    start = threading.Barrier(4)

    def call(pullback):
        start.wait()
        try:
            return pullback(dy, None, (None,) * 6)
        except RuntimeError:
            return None

    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            pullback = kernels.lstm.vjp(x, None, layer._weights[0])[1]
            results = list(pool.map(call, [pullback] * 4))
            assert sum(r is not None for r in results) == 1


def meanwhile(change, call, times=150):
    """Call while another thread changes an argument: each call has a result, or is refused."""
    done, results = threading.Event(), []

    def go_on():
        while not done.is_set():
            change()

    other = threading.Thread(target=go_on)
    other.start()
    try:
        for _ in range(times):
            try:
                results.append(call())
            except ValueError as error:
                assert "expected" in str(error)  # noqa: PT017  not every call is refused
    finally:
        done.set()
        other.join()
    return results


FAR = 2**40  # what is read there is not there


@pytest.mark.usefixtures("hasty_switching")
def test_numbers_that_others_change_are_those_that_were_checked():
    """Lengths, rows, and targets that count by their weights."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((64, 9, 8)).astype("float32") for _ in range(3))
    lengths = np.full(64, 9)

    def of_lengths():
        lengths[:] = FAR
        lengths[:] = 9

    attend = kernels.additive_attention.forward
    expected = attend(query, key, value, np.ones(8, "float32"), lengths)
    for result in meanwhile(of_lengths, lambda: attend(query, key, value, np.ones(8, "float32"), lengths)):
        assert_same_bits(list(result), list(expected))

    stream, rows = pyrnn.GRU(3, 5, rng=0).stream(400)._compiled, np.zeros(400, int)

    def of_rows():
        rows[:] = FAR
        rows[:] = 0

    meanwhile(of_rows, lambda: stream.take(rows))

    logits, targets, weights = rng.standard_normal((400, 7)).astype("float32"), np.full(400, FAR), np.zeros(400, "f4")

    def of_weights():
        weights[:] = 1
        weights[:] = 0

    meanwhile(of_weights, lambda: kernels.cross_entropy.forward(logits, targets, weights))


def test_sequences_that_make_their_entries_or_lose_them():
    """Entries live as long as the call, and are as many as were counted, or an error."""

    class Made(list):
        def __getitem__(self, i):
            return np.array(super().__getitem__(i))

    class Lost(list):
        def __getitem__(self, i):
            entry = super().__getitem__(i)
            self.clear()
            return entry

    class Found(list):
        def __getitem__(self, i):
            entry = super().__getitem__(i)
            self.extend([entry] * 100)
            return entry

    weights = (*pyrnn.LSTM(5, 7, rng=0)._weights[0][:4], None, None)
    x, h = np.ones((3, 2, 5), "float32"), np.ones((2, 7), "float32")
    expected = kernels.lstm.forward(x, (h, h), weights)
    made = [None if w is None else w for w in weights]
    gru = pyrnn.GRU(5, 7, rng=0)._weights[0]
    assert_same_bits([kernels.gru.forward(x, None, Made(gru))[0]], [kernels.gru.forward(x, None, gru)[0]])
    with pytest.raises(IndexError):
        kernels.lstm.forward(x, (h, h), Lost(made))
    with pytest.raises(IndexError):
        kernels.lstm.forward(x, Lost([h, h]), weights)
    for found in (kernels.lstm.forward(x, Found([h, h]), weights), kernels.lstm.forward(x, (h, h), Found(made))):
        assert_same_bits([found[0], *found[1]], [expected[0], *expected[1]])


@needs_fork
def test_threads_of_a_child_meet_a_stream_for_the_first_time():
    """Of several that look at once whether it was in use at the fork, none takes another's look for such a use."""
    script(
        """
    from concurrent.futures import ThreadPoolExecutor
    streams = [pyrnn.RNN(4, 5, rng=0).stream(2) for _ in range(200)]
    start = threading.Barrier(4)

    def use(k):
        for stream in streams:
            start.wait()
            stream.step(numbers)

    numbers = np.zeros((2, 4), "float32")

    def right():
        signal.alarm(30)
        with ThreadPoolExecutor(4) as pool:
            return len(list(pool.map(use, range(4)))) == 4

    assert in_child(right) == 0
    """
    )
