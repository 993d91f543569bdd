"""Scaled dot-product attention: full, causal, with few queries, and with a mask; and additive attention."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyrnn
from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

# batch, heads, queries, keys, features
SHAPES: list[Shape] = [
    (1, 4, 64, 64, 32),
    (8, 8, 128, 128, 64),
    (1, 8, 512, 512, 64),
    (1, 8, 2048, 2048, 64),
    (1, 8, 1, 2048, 64),  # decoding
    (16, 1, 1, 10000, 64),  # retrieval
    (1, 1, 100, 100, 40),
    (2, 3, 77, 77, 80),
    (1, 8, 33, 1025, 64),
    (1, 16, 384, 384, 128),
    (1, 1, 1000, 1000, 64),
]
CAUSAL: list[Shape] = [(1, 4, 64, 64, 32), (1, 8, 512, 512, 64), (1, 8, 2048, 2048, 64), (2, 3, 77, 77, 80)]
MASKED: list[Shape] = [(8, 8, 128, 128, 64), (1, 8, 512, 512, 64)]
# rows, queries, keys, hidden features: letters and words of a sentence, a step of a decoder, longer texts
ADDITIVE: list[Shape] = [(32, 30, 30, 64), (64, 20, 20, 256), (64, 1, 30, 128), (1, 1, 50, 64), (4, 300, 300, 64)]


def maker(kind: str) -> Any:
    """How a case of one kind is made: full, causal, or with a mask of booleans over queries and keys."""

    def case(shape: Shape, direction: str, settings: Settings) -> Case:
        batch, heads, queries, keys, features = shape
        rng = np.random.default_rng(0)
        query, dout = (rng.standard_normal((batch, heads, queries, features)).astype(settings.dtype) for _ in range(2))
        key, value = (rng.standard_normal((batch, heads, keys, features)).astype(settings.dtype) for _ in range(2))
        causal = kind == "causal"
        mask = rng.random((queries, keys)) < 0.5 if kind == "masked" else None
        if mask is not None:
            mask[:, 0] = True
        both = direction == "both"

        def ours() -> object:
            if not both:
                return pyrnn.scaled_dot_product_attention(query, key, value, mask, causal)
            out, pullback = pyrnn.scaled_dot_product_attention_vjp(query, key, value, mask, causal)
            return out, *pullback(dout)

        def torch() -> Run:
            import torch

            inputs = [torch.from_numpy(array).requires_grad_(both) for array in (query, key, value)]
            seen = None if mask is None else torch.from_numpy(mask)

            def forward() -> object:
                return torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=seen, is_causal=causal)

            return peers.torch_both(forward, inputs, torch.from_numpy(dout)) if both else peers.torch_forward(forward)

        def onnxruntime() -> Run | None:
            if both:
                return None  # inference only
            feeds = {"Q": query, "K": key, "V": value}
            inputs = {**feeds, "attn_mask": mask}
            run = peers.onnx_run(
                "Attention", {"is_causal": int(causal)}, inputs, ["Y"], [*feeds], settings, opset=23, ir_version=11
            )
            return lambda: run(feeds)

        rivals = {"torch": torch, "onnxruntime": onnxruntime}
        made = {name: rivals[name]() for name in settings.peers if name in rivals}
        pairs = batch * heads * queries * keys
        if causal:
            pairs = batch * heads * int(np.minimum(np.arange(1, queries + 1), keys).sum())
        moved = query.nbytes + dout.nbytes + key.nbytes + value.nbytes
        return Case(
            ours=ours,
            peers={name: run for name, run in made.items() if run},
            flops=(7 if both else 2) * 2 * pairs * features,
            bytes=(3 if both else 1) * moved,
            footprint=moved,
        )

    return case


def additive(shape: Shape, direction: str, settings: Settings) -> Case:
    """The kernel behind AdditiveAttention's linear maps, and its formula in NumPy and torch."""
    rows, queries, keys, hidden = shape
    rng = np.random.default_rng(0)
    query, key, value, dout = (
        rng.standard_normal((rows, n, hidden)).astype(settings.dtype) for n in (queries, keys, keys, queries)
    )
    score = (rng.standard_normal(hidden) * hidden**-0.5).astype(settings.dtype)
    dscore = np.zeros_like(score)
    op, both = kernels.additive_attention, direction == "both"

    def ours() -> object:
        out, weights = op.forward(query, key, value, score)
        if not both:
            return out
        dscore.fill(0)
        return out, *op.backward(dout, query, key, value, score, weights, dscore), dscore

    def numpy() -> object:
        bent = np.tanh(query[:, :, None] + key[:, None])
        scores = bent @ score
        exps = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = exps / exps.sum(axis=-1, keepdims=True)
        out = weights @ value
        if not both:
            return out
        dweights = dout @ value.swapaxes(1, 2)
        ds = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
        dsums = ds[..., None] * score * (1 - bent**2)
        dvalue, dscore = weights.swapaxes(1, 2) @ dout, np.einsum("nsk,nskh->h", ds, bent)
        return out, dsums.sum(axis=2), dsums.sum(axis=1), dvalue, dscore

    def torch() -> Run:
        import torch

        inputs = [torch.from_numpy(array).requires_grad_(both) for array in (query, key, value, score)]

        def forward() -> object:
            q, k, v, s = inputs
            return torch.softmax(torch.tanh(q[:, :, None] + k[:, None]) @ s, dim=-1) @ v

        return peers.torch_both(forward, inputs, torch.from_numpy(dout)) if both else peers.torch_forward(forward)

    made: dict[str, Run] = {"numpy": numpy}
    if "torch" in settings.peers:
        made["torch"] = torch()
    moved = query.nbytes + key.nbytes + value.nbytes + dout.nbytes
    return Case(
        ours=ours,
        peers=made,
        flops=(4 if both else 1) * 2 * rows * queries * keys * 2 * hidden,  # a tanh counted as one
        bytes=(3 if both else 1) * moved,
        footprint=moved,
    )


OPS = (
    *(
        Op(name, "B,H,S,K,E", {"forward": shapes, "both": shapes}, maker(kind))
        for name, kind, shapes in (
            ("attention", "full", SHAPES),
            ("attention_causal", "causal", CAUSAL),
            ("attention_masked", "masked", MASKED),
        )
    ),
    Op(
        "additive_attention", "N,S,K,H", {"forward": ADDITIVE, "both": ADDITIVE}, additive, own_peers=("numpy", "torch")
    ),
)
