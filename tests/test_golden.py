"""The reference gives the values of torch: the file and its generator are in tests/golden."""

from pathlib import Path

import numpy as np
import pytest
from cells import VARIANTS

from pyrnn import reference
from pyrnn.cells import CELLS
from pyrnn.reference import adam, cross_entropy, sgd

GOLDEN = np.load(Path(__file__).parent / "golden" / "torch_golden.npz")

NAMES = sorted({name.split("_plain/")[0] for name in GOLDEN.files if "_plain/" in name})  # variants of cells


def load(case):
    return {name.split("/")[1]: GOLDEN[name] for name in GOLDEN.files if name.split("/")[0] == case}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


@pytest.mark.parametrize("variant", ["plain", "no_bias", "lengths"])
@pytest.mark.parametrize("name", NAMES)
def test_recurrent(name, variant):
    """Both directions of torch's layer, each one call; x feeds both, so its gradient is their sum."""
    cell, option, _ = VARIANTS[name]
    op = getattr(reference, cell)
    case = load(f"{name}_{variant}")
    entries = tuple(CELLS[cell].states)
    y, dx = np.empty_like(case["y"]), np.zeros_like(case["x"])
    width = y.shape[2] // 2
    for direction, suffix in enumerate(["_l0", "_l0_reverse"]):
        keys = [weight + suffix for weight in op.WEIGHTS]
        half = slice(direction * width, (direction + 1) * width)
        (_, after), pullback = op.vjp(
            case["x"],
            tuple(case[f"{e}_before"][direction] for e in entries),
            tuple(case.get(key) for key in keys),
            lengths=case.get("lengths"),
            reverse=direction == 1,
            out=y[:, :, half],
            **option,
        )
        grads = tuple(np.zeros_like(case[key]) if key in case else None for key in keys)
        dafter = tuple(case[f"d{e}_after"][direction] for e in entries)
        dx_part, dbefore = pullback(case["dy"][:, :, half], dafter, grads)
        dx += dx_part
        for e, s, ds in zip(entries, after, dbefore, strict=True):
            close(s, case[f"{e}_after"][direction])
            close(ds, case[f"d{e}_before"][direction])
        for key, grad in zip(keys, grads, strict=True):
            if grad is not None:
                close(grad, case[f"d{key}"])
    close(y, case["y"])
    close(dx, case["dx"])


def test_cross_entropy():
    case = load("cross_entropy")
    for weights, name in ((None, "mean"), (case["weights"], "weighted")):
        loss, dlogits = cross_entropy.forward(case["logits"], case["targets"], weights)
        close(loss, case[name])
        close(dlogits, case[f"d{name}"])


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("adam", {"lr": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.0}),
        ("adam_decay", {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.3}),
    ],
)
def test_adam(name, option):
    case = load(name)
    params = case["params"][0].copy()
    m, v = np.zeros_like(params), np.zeros_like(params)
    for step, (grads, expected) in enumerate(zip(case["grads"], case["params"][1:], strict=True), start=1):
        adam.step(params, grads, m, v, **option, step=step)
        close(params, expected)


@pytest.mark.parametrize(
    ("name", "momentum", "nesterov"),
    [("sgd", 0.0, False), ("sgd_momentum", 0.9, False), ("sgd_nesterov", 0.9, True)],
)
def test_sgd(name, momentum, nesterov):
    case = load(name)
    params = case["params"][0].copy()
    velocity = np.zeros_like(params) if momentum else None
    for grads, expected in zip(case["grads"], case["params"][1:], strict=True):
        sgd.step(params, grads, velocity, lr=0.1, momentum=momentum, weight_decay=0.3, nesterov=nesterov)
        close(params, expected)
