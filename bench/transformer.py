"""Transformer encoder layers, causal: a call, all gradients, and a sequence token by token over a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyrnn

from . import peers
from .harness import Case, Op, Run, Settings, Shape

# layers, steps, rows, features, heads, features of the feed-forward network
SHAPES: list[Shape] = [(4, 256, 16, 256, 8, 1024), (2, 128, 32, 128, 4, 512), (1, 512, 1, 256, 8, 2048)]
STREAM_SHAPES: list[Shape] = [(4, 256, 1, 256, 8, 1024), (2, 256, 1, 64, 4, 256), (4, 128, 8, 256, 8, 1024)]


def make(shape: Shape, settings: Settings) -> tuple[pyrnn.Sequential, np.ndarray, np.ndarray]:
    """The model, x and the gradient of y."""
    layers, steps, rows, features, heads, hidden = shape
    model = pyrnn.Sequential(
        *(
            pyrnn.TransformerEncoderLayer(features, heads, hidden, 0.0, is_causal=True, dtype=settings.dtype)
            for _ in range(layers)
        ),
        rng=0,
    )
    x, dy = np.random.default_rng(0).standard_normal((2, steps, rows, features)).astype(settings.dtype)
    return model, x, dy


def twin(model: pyrnn.Sequential, shape: Shape) -> Any:
    """torch's layers with the same values, in training or not as they are used."""
    import torch

    _, _, _, features, heads, hidden = shape
    dtype = getattr(torch, model[0].dtype.name)
    layers = torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(features, heads, hidden, 0.0, dtype=dtype) for _ in model
    )
    layers.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})
    return layers


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    layers, steps, rows, features, _, hidden = shape
    both = direction == "both"
    model, x, dy = make(shape, settings)

    def ours() -> object:
        model.zero_grad()
        y, pullback = model.vjp(x)
        return y, pullback(dy), list(model.grads.values())

    def torch() -> Run:
        import torch

        modules = twin(model, shape).train(both)
        given = torch.from_numpy(x).requires_grad_(both)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(steps, dtype=given.dtype)

        def forward() -> Any:
            y = given
            for module in modules:
                y = module(y, src_mask=mask, is_causal=True)
            return y

        if not both:
            return peers.torch_forward(forward)
        run = peers.torch_both(forward, [given, *modules.parameters()], torch.from_numpy(dy))

        def both_ways() -> object:
            y, (dx, *grads) = run()
            return y, dx, grads

        return both_ways

    return Case(
        ours=ours if both else lambda: model(x),
        peers={"torch": torch()} if "torch" in settings.peers else {},
        flops=(3 if both else 1) * steps * rows * layers * flops(features, hidden, steps),
        bytes=2 * x.nbytes,
        footprint=model.num_parameters * settings.itemsize,
        # A ReLU whose input is 0 but for rounding has another slope in each: both are off by 3e-3 from float64, where
        # they agree to 1e-14.
        tolerance=2e-2 if both and settings.dtype == "float32" else None,
    )


def stream_case(shape: Shape, direction: str, settings: Settings) -> Case:
    """All tokens of a sequence, one after the other."""
    layers, steps, rows, features, _, hidden = shape
    model, x, _ = make(shape, settings)
    stream = model.stream(rows)

    def ours() -> object:
        stream.reset()
        return [stream.step(x_t) for x_t in x]

    weights = model.num_parameters * settings.itemsize
    return Case(
        ours=ours,
        peers={"torch": torch_stream(model, shape, x)} if "torch" in settings.peers else {},
        flops=steps * rows * layers * flops(features, hidden, steps),
        bytes=steps * weights,
        footprint=weights,
    )


def torch_stream(model: pyrnn.Sequential, shape: Shape, x: np.ndarray) -> Run:
    """The modules' parts over caches that lie ready, which torch's layer has not."""
    import torch

    layers, steps, rows, features, heads, _ = shape
    modules, given = twin(model, shape).eval(), torch.from_numpy(x)
    size = features // heads
    caches = [torch.empty(2, rows, heads, steps, size, dtype=given.dtype) for _ in range(layers)]
    function = torch.nn.functional

    def step(t: int) -> Any:
        y = given[t]
        for module, cache in zip(modules, caches, strict=True):
            attention = module.self_attn
            qkv = function.linear(y, attention.in_proj_weight, attention.in_proj_bias)
            query, *now = qkv.view(rows, 3, heads, size).unbind(1)
            cache[0, :, :, t], cache[1, :, :, t] = now
            key, value = cache[:, :, :, : t + 1]
            seen = function.scaled_dot_product_attention(query[:, :, None], key, value)
            y = module.norm1(y + attention.out_proj(seen.reshape(rows, features)))
            y = module.norm2(y + module.linear2(module.activation(module.linear1(y))))
        return y

    return torch.inference_mode()(lambda: [step(t) for t in range(steps)])


def flops(features: int, hidden: int, steps: int) -> float:
    """Of a step of a row in a layer."""
    return 2.0 * (4 * features**2 + 2 * features * hidden + features * (steps + 1))


OPS = (
    Op("transformer", "layers,S,N,E,heads,F", {"forward": SHAPES, "both": SHAPES}, case),
    Op("transformer-stream", "layers,S,N,E,heads,F", {"forward": STREAM_SHAPES}, stream_case),
)
