"""Writes torch_golden.npz: what torch computes in float64 for the ops that pyrnn and torch share.

    python tests/golden/make_golden.py          needs torch; the tests need only the file

Entries are named <case>/<array>. A recurrent case is one bidirectional layer: its directions lie side by side in the
last axis of `y`, one after the other in the first axis of `h_before` and `h_after` (and c), the states of the run.
Weights have torch's names. `d<name>` is the gradient of <name> under the loss sum(y dy) + sum(h_after dh_after) + (c
likewise), with dy, dh_after and dc_after drawn at random.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from cells import TORCH, VARIANTS

T, N, INPUTS, H, P = 5, 3, 3, 4, 2
LENGTHS = [3, 5, 1]

LAYERS = {
    name: (getattr(torch.nn, kind), option | ({"proj_size": P} if "proj_size" in VARIANTS[name][2] else {}))
    for name, (kind, option) in TORCH.items()
}
WAYS = {"plain": {}, "no_bias": {"bias": False}, "lengths": {}}


def recurrent(rng, make, option, lengths):
    def draw(*shape):
        return torch.from_numpy(rng.standard_normal(shape)).requires_grad_()

    layer = make(INPUTS, H, bidirectional=True, dtype=torch.float64, **option)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(draw(*weight.shape))
    outputs = option.get("proj_size", H)
    x, dy = draw(T, N, INPUTS), draw(T, N, 2 * outputs)
    widths = {"h": outputs, "c": H} if make is torch.nn.LSTM else {"h": outputs}
    before = {name: draw(2, N, width) for name, width in widths.items()}
    dafter = {name: draw(2, N, width) for name, width in widths.items()}

    state = tuple(before.values()) if len(before) > 1 else before["h"]
    if lengths is None:
        y, after = layer(x, state)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        packed_y, after = layer(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed_y, total_length=T)
    after = dict(zip(widths, after if len(before) > 1 else (after,), strict=True))
    ((y * dy).sum() + sum((after[name] * dafter[name]).sum() for name in widths)).backward()

    case = {"x": x, "y": y, "dy": dy, "dx": x.grad}
    if lengths is not None:
        case["lengths"] = torch.tensor(lengths)
    for name in widths:
        case |= {f"{name}_before": before[name], f"{name}_after": after[name]}
        case |= {f"d{name}_before": before[name].grad, f"d{name}_after": dafter[name]}
    for name, weight in layer.named_parameters():
        case |= {name: weight, f"d{name}": weight.grad}
    return case


def cross_entropy(rng):
    logits = torch.from_numpy(3 * rng.standard_normal((6, 5))).requires_grad_()
    targets = torch.from_numpy(rng.integers(0, 5, 6))
    weights = torch.from_numpy(rng.random(6))
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    mean, weighted = losses.mean(), losses @ weights / weights.sum()
    (dmean,) = torch.autograd.grad(mean, logits, retain_graph=True)
    (dweighted,) = torch.autograd.grad(weighted, logits)
    return {
        **{"logits": logits, "targets": targets, "mean": mean, "dmean": dmean},
        **{"weights": weights, "weighted": weighted, "dweighted": dweighted},
    }


def trajectory(rng, make, **option):
    """params (steps + 1, K) before the first and after every step, taken with grads (steps, K)."""
    grads = torch.from_numpy(rng.standard_normal((6, 7)))
    param = torch.nn.Parameter(torch.from_numpy(rng.standard_normal(7)))
    optimiser = make([param], **option)
    params = [param.detach().clone()]
    for grad in grads:
        param.grad = grad.clone()
        optimiser.step()
        params.append(param.detach().clone())
    return {"grads": grads, "params": torch.stack(params)}


def main():
    rng = np.random.default_rng(20250101)
    cases = {}
    for layer, (make, option) in LAYERS.items():
        for way, more in WAYS.items():
            lengths = LENGTHS if way == "lengths" else None
            cases[f"{layer}_{way}"] = recurrent(rng, make, option | more, lengths)
    cases["cross_entropy"] = cross_entropy(rng)
    cases["adam"] = trajectory(rng, torch.optim.Adam, lr=0.1, betas=(0.8, 0.95), eps=1e-3)
    cases["adam_decay"] = trajectory(rng, torch.optim.Adam, lr=0.1, weight_decay=0.3)
    cases["sgd"] = trajectory(rng, torch.optim.SGD, lr=0.1, weight_decay=0.3)
    cases["sgd_momentum"] = trajectory(rng, torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.3)
    cases["sgd_nesterov"] = trajectory(rng, torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.3, nesterov=True)

    arrays = {f"{case}/{name}": a.detach().numpy() for case, entries in cases.items() for name, a in entries.items()}
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "rnn": {"weight_ih_l0": base, "turned": base.t()},
        "part": base[1:, 1::2],
        "scale": torch.nn.Parameter(torch.tensor([1.5, -2.0]).bfloat16()),
        "steps": torch.tensor(7),
        "flags": [torch.tensor([True, False])],
        "epoch": 3,
    }
    for name, zipped in (("torch.pt", True), ("torch_legacy.pt", False)):
        torch.save(saved, Path(__file__).with_name(name), _use_new_zipfile_serialization=zipped)
    np.savez_compressed(Path(__file__).with_name("torch_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
