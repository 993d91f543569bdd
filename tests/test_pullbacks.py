"""A pullback is good for one call, whichever thread makes it, and says whose it is."""

import sys
import threading

import numpy as np
import pytest

import pyrnn

F, T, N = 4, 3, 2


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def windows():
    return next(iter(pyrnn.truncated_bptt(pyrnn.GRU(F, 5, rng=0), numbers(T, N, F), 2, 3)))[1:]


def two_layers():
    return pyrnn.Sequential(a=pyrnn.Linear(F, 3, rng=0), b=pyrnn.Linear(3, 2, rng=0))


IDS = np.array([[0, 1], [1, 0], [2, 3]])
# name in errors -> results and pullback
MADE = {
    "Linear": lambda: pyrnn.Linear(F, 3, rng=0).vjp(numbers(T, N, F)),
    "Embedding": lambda: pyrnn.Embedding(F, 3, rng=0).vjp(IDS),
    "LayerNorm": lambda: pyrnn.LayerNorm(F).vjp(numbers(T, N, F)),
    "Dropout": lambda: pyrnn.Dropout(0.5, rng=0).vjp(numbers(T, N, F)),
    "LogSoftmax": lambda: pyrnn.LogSoftmax().vjp(numbers(T, N, F)),
    "MaxOverTime": lambda: pyrnn.MaxOverTime().vjp(numbers(T, N, F)),
    "RNN": lambda: pyrnn.RNN(F, 3, rng=0).vjp(numbers(T, N, F)),
    "LSTM": lambda: pyrnn.LSTM(F, 3, 2, rng=0).vjp(numbers(T, N, F)),
    "GRU": lambda: pyrnn.GRU(F, 3, bidirectional=True, rng=0).vjp(numbers(T, N, F)),
    "scaled_dot_product_attention_vjp": lambda: pyrnn.scaled_dot_product_attention_vjp(*[numbers(T, F)] * 3),
    "MultiheadAttention": lambda: pyrnn.MultiheadAttention(F, 2, rng=0).vjp(numbers(T, N, F)),
    "AdditiveAttention": lambda: pyrnn.AdditiveAttention(F, F, 3, rng=0).vjp(numbers(N, T, F), numbers(N, T, F)),
    "TransformerEncoderLayer": lambda: pyrnn.TransformerEncoderLayer(F, 2, 5, rng=0).vjp(numbers(T, N, F)),
    "PositionalEncoding": lambda: pyrnn.PositionalEncoding(F).vjp(numbers(T, N, F)),
    "Jordan": lambda: pyrnn.Jordan(F, 5, 2, rng=0).vjp(numbers(T, N, F)),
    "ODERNN": lambda: pyrnn.ODERNN(F, 5, rng=0).vjp(numbers(T, N, F), [0.0, 1.0, 2.0]),
    "truncated_bptt": windows,
    "ModernHopfield": lambda: pyrnn.ModernHopfield(numbers(5, F)).vjp(numbers(N, F)),
    "Sequential": lambda: two_layers().vjp(numbers(T, N, F)),
    "Decoder": lambda: pyrnn.Decoder(F, 3, 5, rng=0).vjp(IDS),
    "EncoderDecoder": lambda: pyrnn.EncoderDecoder(F, F, 3, 5, rng=0).vjp(IDS, IDS),
}


def like(result):
    return np.ones_like(result[0] if isinstance(result, tuple) else result)


@pytest.mark.parametrize("name", MADE)
def test_one_call_and_then_an_error_that_names_it(name):
    result, pullback = MADE[name]()
    dy = like(result)
    with pytest.raises(ValueError, match=f"^{name} pullback: d"):
        pullback(dy[:, :-1] if dy.ndim > 1 else dy[:-1])
    pullback(dy)  # one that is refused can be corrected
    with pytest.raises(RuntimeError, match=f"^{name} pullback: this pullback has been called before"):
        pullback(dy)


@pytest.mark.parametrize("name", MADE)
def test_several_threads_at_once(name):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            result, pullback = MADE[name]()
            dy, start, outcomes = like(result), threading.Barrier(4), []

            def call(pullback=pullback, dy=dy, start=start, outcomes=outcomes):
                start.wait()
                try:
                    pullback(dy)
                    outcomes.append("done")
                except RuntimeError as error:
                    outcomes.append(str(error))
                except BaseException as error:
                    outcomes.append(repr(error))

            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert outcomes.count("done") == 1
            assert {o.split(":")[0] for o in outcomes if o != "done"} == {f"{name} pullback"}
    finally:
        sys.setswitchinterval(before)
