"""Ctrl-C during a call: it is answered in the middle of the call, and what the call would have changed is unchanged.

A timer's signal stands for the key; it counts the time this process computes, which other processes cannot stretch. Its
handler runs while the call is under way, or it would find what a finished call leaves behind.
"""

import contextlib
import signal
import time

import numpy as np
import pytest

import pyrnn
from pyrnn import cython_stream

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


class KeyPressedError(Exception):
    """What the handler raises."""


@contextlib.contextmanager
def pressed_after(seconds, press):
    """Calls press() by a signal after so many seconds of computing."""
    before = signal.signal(signal.SIGPROF, lambda *_: press())
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def press():
    raise KeyPressedError


def seconds_of(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def least_seconds(prepare, times=3):
    """Of the calls that prepare() makes: the first meets new memory, threads that wait for each other compute, too.

    A key that is pressed too early finds less under way; one pressed too late finds nothing.
    """
    return min(seconds_of(prepare()) for _ in range(times))


def way_back(layer, x, **options):
    """The call that adds to the layer's gradients."""
    y, pullback = layer.vjp(x, **options)
    dy = y if isinstance(y, np.ndarray) else y[0]
    return lambda: pullback(dy)


ROWS = {"one row": 1, "assisted": 2, "shared rows": 16}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_forward_is_left_in_the_middle(rows, threads):
    steps = 600_000 // rows
    layer = pyrnn.GRU(4, 48, rng=0)
    x, out = np.zeros((steps, rows, 4), "float32"), np.full((steps, rows, 48), np.nan, "float32")
    under_way = []

    def look_and_press():
        under_way.append(np.isnan(out[-1]).all())
        raise KeyPressedError

    def run():
        pyrnn.kernels.gru.forward(x, None, tuple(layer.params.values()), out=out)

    with pyrnn.threads(threads):
        seconds = least_seconds(lambda: run)
        out.fill(np.nan)
        with pytest.raises(KeyPressedError), pressed_after(seconds / 5, look_and_press):
            run()
    assert under_way == [True]


def test_a_handler_that_raises_nothing_changes_nothing():
    layer, x = pyrnn.LSTM(4, 48, rng=0), np.zeros((300_000, 1, 4), "float32")
    presses = []
    expected, _ = layer(x)
    seconds = least_seconds(lambda: lambda: layer(x), 2)
    with pressed_after(seconds / 5, lambda: presses.append(pyrnn.GRU(3, 5, rng=0)(np.zeros((4, 2, 3))))):
        y, _ = layer(x)
    assert len(presses) == 1
    np.testing.assert_array_equal(y, expected)


def left_early(layer, x, **options):
    """A way back that has been left by the key, and has added nothing. It has to take several times the 50 ms after
    which a kernel asks for keys again."""
    seconds = least_seconds(lambda: way_back(layer, x, **options))
    layer.zero_grad()
    pull = way_back(layer, x, **options)
    with pytest.raises(KeyPressedError), pressed_after(seconds / 5, press):
        pull()
    assert not any(grad.any() for grad in layer.grads.values())
    return pull


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("checkpoint_every", [None, 1000])
def test_an_interrupted_pullback_has_added_nothing(threads, checkpoint_every):
    layer, x = pyrnn.LSTM(8, 128, rng=0), np.ones((20_000, 4, 8), "float32")
    with pyrnn.threads(threads):
        pull = left_early(layer, x, checkpoint_every=checkpoint_every)
        with pytest.raises(RuntimeError, match="vjp"):
            pull()
        way_back(layer, x[:10])()
        assert all(grad.any() for grad in layer.grads.values())


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_pullback_of_many_models_has_added_nothing(threads):
    many, x = pyrnn.Population(pyrnn.LSTM(8, 128), size=20, rng=0), np.ones((20, 1000, 4, 8), "float32")
    with pyrnn.threads(threads):
        pull = left_early(many, x)
        with pytest.raises(RuntimeError, match="vjp"):
            pull()


def test_an_interrupted_stream_of_many_models_is_where_it_was():
    many, x = pyrnn.Population(pyrnn.LSTM(4, 64), size=8, rng=0), np.ones((8, 40_000, 1, 4), "float32")
    stream = many.stream()
    stream.step(x[:, 0])
    before = stream.state
    with pytest.raises(KeyPressedError), pressed_after(0.1, press):
        stream(x)
    for now, then in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_interrupted_linear_pullback_has_added_nothing():
    layer, x = pyrnn.Linear(512, 512, rng=0), np.ones((40_000, 512), "float32")
    left_early(layer, x)


@pytest.mark.parametrize("share", [0.2, 0.6])  # in the gradients of x, in those of the weights
def test_an_interrupted_convolution_has_added_nothing(share):
    layer, x = pyrnn.Conv1d(64, 128, 5, rng=0), np.ones((160_000, 1, 64), "float32")
    with pyrnn.threads(1):
        full = least_seconds(lambda: way_back(layer, x))
        before = {name: grad.copy() for name, grad in layer.grads.items()}
        pull = way_back(layer, x)
        with pytest.raises(KeyPressedError), pressed_after(share * full, press):
            pull()
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, before[name])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_interrupted_pullback_of_many_layers_has_added_nothing(bidirectional):
    """In the last of them: those above have added theirs."""
    layer = pyrnn.LSTM(8, 64, 1 if bidirectional else 2, bidirectional=bidirectional, rng=0)
    x = np.ones((20_000, 4, 8), "float32")
    with pyrnn.threads(1):
        full = least_seconds(lambda: way_back(layer, x))
        before = {name: grad.copy() for name, grad in layer.grads.items()}
        pull = way_back(layer, x)
        with pytest.raises(KeyPressedError), pressed_after(0.65 * full, press):
            pull()
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, before[name])


class Steps:
    """An op whose last step is left by Ctrl-C."""

    def __init__(self, op, steps):
        self.op, self.left = op, steps

    def __getattr__(self, name):
        return getattr(self.op, name)

    def backward(self, *arguments):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.op.backward(*arguments)


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_an_interrupted_pullback_of_attention_has_added_nothing(monkeypatch, left):
    layer, x = pyrnn.MultiheadAttention(8, 2, rng=0), np.ones((6, 4, 8), "float32")
    out, pullback = layer.vjp(x)
    for grad in layer.grads.values():
        grad[:] = 3
    monkeypatch.setattr(pyrnn.MultiheadAttention, "_op", Steps(pyrnn.MultiheadAttention._op, left))
    with pytest.raises(KeyboardInterrupt):
        pullback(out)
    for grad in layer.grads.values():
        np.testing.assert_array_equal(grad, 3)


class Missing(dict):
    """Gradients of which one is not to be had."""

    def __getitem__(self, name):
        if name in ("key.weight", "bias_h", "bias"):
            raise KeyboardInterrupt
        return super().__getitem__(name)


@pytest.mark.parametrize("kind", ["AdditiveAttention", "Jordan", "LayerNorm"])
def test_interrupted_sums_are_undone(kind, rng):
    arguments, count = {"AdditiveAttention": ((3, 3, 4), 2), "Jordan": ((3, 4, 2), 1), "LayerNorm": ((3,), 1)}[kind]
    layer = getattr(pyrnn, kind)(*arguments)
    out, pullback = layer.vjp(*rng.standard_normal((count, 6, 4, 3)))
    dout = rng.standard_normal((out[0] if isinstance(out, tuple) else out).shape)
    grads = layer._grads
    layer._grads = Missing(grads)
    with pytest.raises(KeyboardInterrupt):
        pullback(dout)
    assert not any(grad.any() for grad in grads.values())


def test_an_interrupted_stream_is_where_it_was():
    layer, x = pyrnn.LSTM(4, 64, num_layers=2, rng=0), np.ones((300_000, 1, 4), "float32")
    stream = layer.stream()
    stream.step(x[0])
    before = stream.state
    with pytest.raises(KeyPressedError), pressed_after(0.1, press):
        stream(x)
    for now, then in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(now, then)
    y, _ = layer(x[1:3], before)
    np.testing.assert_array_equal(stream(x[1:3]), y)


def test_a_handler_cannot_use_the_stream_it_interrupted():
    layer, x = pyrnn.LSTM(4, 64, rng=0), np.ones((300_000, 1, 4), "float32")
    stream = layer.stream()
    with pytest.raises(RuntimeError, match="signal handler"), pressed_after(0.1, lambda: stream.step(x[0])):
        stream(x)
    stream.step(x[0])


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_step_from_cython_is_left_too(by_itself):
    """With the handler's error, or with that of its use of the stream; the state stays."""
    layer = pyrnn.LSTM(256, 256, num_layers=4, rng=0)
    stream = layer.stream(16_384)  # a layer takes a tenth of a second
    x, y = np.ones((2, 16_384, 256), "float32")
    handler, error, said = press, KeyPressedError, None
    if by_itself:
        handler, error, said = lambda: stream.step(x), RuntimeError, "signal handler used the stream"
    with pyrnn.threads(1), pytest.raises(error, match=said), pressed_after(0.02, handler):
        cython_stream.repeat(stream, x, y, 1)
    assert not any(state.any() for state in stream.state)


def attention():
    q = np.random.default_rng(0).standard_normal((8, 4096, 64), np.float32)
    return lambda: pyrnn.scaled_dot_product_attention(q, q, q)


def attention_back():
    q = np.random.default_rng(0).standard_normal((3, 4096, 64), np.float32)
    return lambda: pyrnn.scaled_dot_product_attention_vjp(q, q, q)[1](q)


def linear():
    layer, x = pyrnn.Linear(1024, 1024, rng=0), np.ones((20_000, 1024), "float32")
    return lambda: layer(x)


def recall():
    rng = np.random.default_rng(0)
    net = pyrnn.Hopfield(20_000)
    net.store(np.where(rng.random((500, 20_000)) < 0.5, 1, -1))
    probe = np.where(rng.random((64, 20_000)) < 0.5, 1, -1)
    return lambda: net.recall(probe, max_sweeps=1)


def weights():
    net = pyrnn.Hopfield(6000)
    net.store(np.where(np.random.default_rng(0).random((1500, 6000)) < 0.5, 1, -1))
    return lambda: net.weights


def alignments():
    logits = np.random.default_rng(0).standard_normal((2000, 128, 30), np.float32)
    return lambda: pyrnn.ctc(logits, np.tile([1, 2], (128, 60)))


def tags():
    scores = np.random.default_rng(0).standard_normal((400, 300, 40), np.float32)
    return lambda: pyrnn.CRF(40, rng=0).vjp(scores, np.zeros((400, 300), int))


@pytest.mark.parametrize("make", [attention, attention_back, linear, recall, weights, alignments, tags])
def test_long_calls_are_left_early(make):
    """On one thread: while the caller's has no CPU, others of a call go on."""
    with pyrnn.threads(1):
        call = make()
        full = seconds_of(call)
        call = make()

        def interrupted():
            with pytest.raises(KeyPressedError), pressed_after(full / 20, press):
                call()

        assert seconds_of(interrupted) < full
