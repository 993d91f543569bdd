"""The Attention operator of ONNX by `pyrnn.scaled_dot_product_attention`.

    Y, present_key, present_value, qk_matmul_output = run(node, inputs)     inputs: name -> array

Q, K, V (N, heads, rows, features), or (N, rows, heads * features) with q_num_heads and kv_num_heads; attn_mask,
past_key, past_value, nonpad_kv_seqlen. The fourth output is None but for the softmax (qk_matmul_output_mode 3): the
scores exist only block by block. Half precisions are computed in float32 and rounded at the end.
"""

import numpy as np
import onnx

import pyrnn

INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")


def run(node, inputs):
    """All outputs of the node, wanted or not."""
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    dtype = inputs["Q"].dtype
    query, key, value = (wide(inputs[name]) for name in "QKV")
    flat = query.ndim == 3
    if flat:
        query = split(query, options["q_num_heads"])
        key, value = (split(x, options["kv_num_heads"]) for x in (key, value))
    offset = 0
    if "past_key" in inputs:
        offset = inputs["past_key"].shape[2]
        key = np.concatenate([wide(inputs["past_key"]), key], axis=2)
        value = np.concatenate([wide(inputs["past_value"]), value], axis=2)
    lengths = inputs.get("nonpad_kv_seqlen")
    if lengths is not None:
        offset = lengths.astype(np.int64) - query.shape[2]
    mask = inputs.get("attn_mask")
    if mask is not None:
        mask = mask if mask.dtype == bool else wide(mask)
        missing = key.shape[2] - mask.shape[-1]
        if missing and mask.shape[-1] > 1:
            fill = False if mask.dtype == bool else -np.inf
            mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=fill)
    arguments = {
        "attn_mask": mask,
        "is_causal": bool(options.get("is_causal", 0)),
        "scale": options.get("scale"),
        "enable_gqa": True,
        "q_offset": offset,
        "window": (options.get("left_window_size", -1), options.get("right_window_size", -1)),
        "softcap": options.get("softcap", 0.0),
        "kv_lengths": lengths,
    }
    y = pyrnn.scaled_dot_product_attention(query, key, value, **arguments)
    weights = None
    if options.get("qk_matmul_output_mode", 0) == 3:
        weights = pyrnn.attention_weights(query, key, **arguments).astype(dtype)
    if flat:
        y = y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)
    return y.astype(dtype), key.astype(dtype), value.astype(dtype), weights


def wide(array):
    return array if array.dtype == np.float64 else array.astype(np.float32)


def split(x, heads):
    """(N, rows, heads * features) -> (N, heads, rows, features)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
