"""ONNX' Attention on `scaled_dot_product_attention`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.checks import Array
from ...layers.attention.functional import attention_weights, scaled_dot_product_attention
from .graph import Node
from .program import Made


def make(node: Node) -> Made:
    """The node as a function of Q, K, V (N, heads, rows, features), or (N, rows, heads * features) with the numbers of
    heads as attributes; attn_mask, past_key, past_value and nonpad_kv_seqlen."""
    attributes = node.attributes
    weights_wanted = len(node.outputs) > 3 and node.outputs[3] is not None
    if weights_wanted and attributes.get("qk_matmul_output_mode", 0) != 3:
        raise NotImplementedError  # the scores before the softmax exist only block by block
    wanted = len(node.outputs)
    window = attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)

    def run(
        q: Array, k: Array, v: Array, mask: Array | None = None, past_key: Any = None, past_value: Any = None,
        lengths: Array | None = None,
    ) -> Any:  # fmt: skip
        query, key, value = (wide(x) for x in (q, k, v))
        flat = query.ndim == 3
        if flat:
            query = heads(query, attributes["q_num_heads"])
            key, value = (heads(x, attributes["kv_num_heads"]) for x in (key, value))
        offset: Any = 0
        if past_key is not None:
            offset = past_key.shape[2]
            key, value = (np.concatenate((wide(old), x), 2) for old, x in ((past_key, key), (past_value, value)))
        if lengths is not None:
            offset = lengths.astype(np.int64) - query.shape[2]
        arguments = {
            "attn_mask": None if mask is None else whole_mask(mask, key.shape[2]),
            "is_causal": bool(attributes.get("is_causal", 0)),
            "scale": attributes.get("scale"),
            "enable_gqa": True,
            "q_offset": offset,
            "window": window,
            "softcap": attributes.get("softcap", 0.0),
            "kv_lengths": lengths,
        }
        y = scaled_dot_product_attention(query, key, value, **arguments)
        if flat:
            y = y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)
        y = y.astype(q.dtype, copy=False)
        if wanted == 1:
            return y
        weights = attention_weights(query, key, **arguments).astype(q.dtype, copy=False) if weights_wanted else None
        return (y, key.astype(q.dtype, copy=False), value.astype(q.dtype, copy=False), weights)[:wanted]

    return run


def wide(array: Array) -> Array:
    """float64 as it is, everything else as float32."""
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def heads(x: Array, count: int) -> Array:
    """(N, rows, heads * features) -> (N, heads, rows, features)."""
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def whole_mask(mask: Array, keys: int) -> Array:
    """A mask for all keys: those that it says nothing of are hidden."""
    mask = mask if mask.dtype == bool else wide(mask)
    missing = keys - mask.shape[-1]
    if missing <= 0 or mask.shape[-1] == 1:
        return mask
    fill = False if mask.dtype == bool else -np.inf
    return np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=fill)


MAKERS = {"Attention": make}
