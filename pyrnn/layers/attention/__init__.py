"""Attention: the scaled dot product with its gradients, and the layers made of it.

A query's result depends on nothing but the query and the keys and values it sees. These are equal bit for bit: a query
alone or among others; all queries at once, or step by step with keys and values that grow; hidden keys or no such keys;
any memory layout and any number of threads; with `vjp` or without.
"""

from .additive import AdditiveAttention
from .functional import attention_weights, scaled_dot_product_attention, scaled_dot_product_attention_vjp
from .multihead import MultiheadAttention
from .positional import PositionalEncoding
from .stream import AttentionStream

__all__ = [
    "AdditiveAttention",
    "AttentionStream",
    "MultiheadAttention",
    "PositionalEncoding",
    "attention_weights",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_vjp",
]
