"""Pages that move: a character model, a Hopfield net and an attention layer as HTML files that need nothing else.

A page holds the weights as they are, float32 or in fewer bits, and the library's kernels in their 128-bit form,
compiled to WebAssembly (csrc/web/, pages/kernels.wasm): its numbers are, to the bit, those of x86-64-v2. The inputs of
int8 products, which the library rounds to bytes, are not rounded there.
"""

from __future__ import annotations

import base64
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..associative.hopfield import Hopfield
from ..associative.patterns import OFF
from ..cells import CELLS
from ..core import encoded
from ..core.checks import (
    Array,
    boolean,
    instance,
    integer,
    parted,
    real_array,
    shape_error,
    shown,
    string,
    strings,
)
from ..layers.attention import MultiheadAttention
from .charmodel import CharModel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["attention", "characters", "recall"]

PAGES = Path(__file__).parent / "pages"
FLOAT32 = np.dtype("<f4")


def characters(model: CharModel, text: str = "") -> str:
    """A page to type into a character model, and to see the gates and states of its units; `text` is there at first.

    Everything that is no character of the model is left out. TypeError for another model, ValueError where weights are
    not finite.

        from pathlib import Path
        from pyrnn.app import show

        page = show.characters(pyrnn.load("model.safetensors"), "A list is ")  # such as `pyrnn train` writes
        Path("page.html").write_text(page, encoding="utf-8")
    """
    instance("characters", "model", model, CharModel, "a character model, such as pyrnn train writes")
    string("characters", "text", text)
    sizes = model.sizes
    layers = "" if sizes["layers"] == 1 else f"{sizes['layers']} layers of "
    return _page("characters", model.state_dict(), {
        "title": f"{str(sizes['cell']).upper()}, {layers}{sizes['hidden']} units, {len(model.vocabulary)} characters",
        "text": text,
        "characters": list(model.vocabulary.characters),
        "states": list(CELLS[str(sizes["cell"])].states),
        "eps": CELLS["layernormlstm"].options["eps"][0],
        **sizes,
    })  # fmt: skip


def recall(net: Hopfield, shape: tuple[int, int], names: Sequence[str] | None = None) -> str:
    """A page to draw states of a Hopfield net, of `shape` (height, width), and to see it recall.

    It has the patterns that the net still knows, called by `names`, or by their numbers. ValueError where shape is not
    that of a state, or there is no pattern, TypeError for another net.

        from pathlib import Path
        from pyrnn.app import show

        Path("page.html").write_text(show.recall(net, (10, 10)), encoding="utf-8")  # a net of 100 units
    """
    instance("recall", "net", net, Hopfield, "a pyrnn.Hopfield")
    height, width = (
        integer("recall", "shape", side, 1) for side in parted("recall", "shape", shape, "height", "width")
    )
    patterns = net.patterns
    if patterns is None or not len(patterns):
        raise ValueError("recall: the net knows no patterns, expected at least one")
    if height * width != net.n_units:
        raise ValueError(f"recall: shape is {shown(shape)}, expected one of the net's {net.n_units} units")
    names = [str(p) for p in range(len(patterns))] if names is None else strings("recall", "names", names)
    if len(names) != len(patterns):
        raise ValueError(f"recall: there are {len(names)} names, expected {len(patterns)}")
    arrays = {"weights": net.weights, "threshold": net.threshold, "patterns": patterns}
    title = f"Hopfield net, {net.n_units} units, {len(patterns)} patterns"
    return _page("recall", arrays, {"title": title, "shape": [height, width], "names": names, "off": OFF[net.states]})


def attention(layer: MultiheadAttention, characters: str, embedding: ArrayLike, positions: ArrayLike, text: str,
              is_causal: bool = False) -> str:  # fmt: skip
    """A page to type a sequence, and to see how every place of it attends to the others.

    Character k has the vector embedding[k], (V, E), and at place t the layer is given embedding[k] + positions[t],
    (P, E): no more than P places are read. TypeError for another layer, ValueError for other shapes, and for a layer
    whose keys are not of size E.

        from pathlib import Path
        from pyrnn.app import show

        layer, embedding = pyrnn.MultiheadAttention(8, 2), rng.normal(size=(3, 8))
        page = show.attention(layer, "abc", embedding, np.zeros((20, 8)), "abcab")
        Path("page.html").write_text(page, encoding="utf-8")
    """
    instance("attention", "layer", layer, MultiheadAttention, "a pyrnn.MultiheadAttention")
    characters, text = string("attention", "characters", characters), string("attention", "text", text)
    is_causal = boolean("attention", "is_causal", is_causal)
    if layer.kdim != layer.embed_dim or layer.vdim != layer.embed_dim:
        raise ValueError("attention: the layer's kdim and vdim are not its embed_dim, as in attention to itself")
    vectors = {"embedding": embedding, "positions": positions}
    arrays = {name: real_array("attention", name, given, FLOAT32) for name, given in vectors.items()}
    for name, array in arrays.items():
        rows = len(characters) if name == "embedding" else "P"
        if array.shape[1:] != (layer.embed_dim,) or len(array) != (len(array) if rows == "P" else rows):
            raise shape_error("attention", name, array.shape, f"({rows}, {layer.embed_dim})")
    heads = "head" if layer.num_heads == 1 else "heads"
    return _page("attention", {**layer.state_dict(), **arrays}, {
        "title": f"Attention, {layer.num_heads} {heads}, {layer.embed_dim} numbers a place",
        "text": text,
        "characters": list(characters),
        "causal": is_causal,
        "heads": layer.num_heads,
        "kv_heads": layer.num_kv_heads,
    })  # fmt: skip


def _page(name: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> str:
    """The page `name` of the folder, with all that it needs inside."""
    carried = {key: _carried(key, matrix) for key, matrix in encoded.matrices(arrays).items()}
    # No tag can begin in the data, nor can half of a surrogate pair keep them from being UTF-8.
    whole = {**facts, "library": library(), "arrays": carried}
    text = json.dumps(whole, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = (PAGES / f"{name}.html").read_text(encoding="utf-8")
    for part in ("head.html", "shared.css", "shared.js"):
        page = page.replace(f"{{{{{part}}}}}", (PAGES / part).read_text(encoding="utf-8"))
    return page.replace("{{data}}", text)


@functools.cache
def library() -> str:
    """The kernels as a page carries them: a WebAssembly module, deflated."""
    return base64.b64encode(zlib.compress((PAGES / "kernels.wasm").read_bytes(), 9)).decode()


def _carried(name: str, matrix: Array | encoded.Int8) -> dict[str, Any]:
    """An array as the page reads it, `array` of pages/shared.js."""
    if isinstance(matrix, encoded.Int8):
        return {**_bytes(matrix.numbers), "scale": _carried(name, matrix.scale)}
    if matrix.dtype == np.uint16:
        return _bytes(matrix.astype("<u2", copy=False))
    numbers = np.asarray(matrix, FLOAT32)
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"a page of these weights is of no use: {name} is not finite")
    return _bytes(numbers)


def _bytes(array: Array) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "base64": data}
