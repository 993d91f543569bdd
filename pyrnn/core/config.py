"""What a layer says of itself: the arguments that make its like, and its line where it is printed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import shown

if TYPE_CHECKING:
    from .layer import Layer

QUANTIZED = "quantized"  # in a config, beside the arguments: what `quantize` was called with


def config(layer: Layer) -> dict[str, Any]:
    """The arguments of its class, from its attributes of the same names; of a model's layers types and configs."""
    values: dict[str, Any] = {}
    for name, parameter in _arguments(layer).items():
        if parameter.kind is parameter.VAR_KEYWORD:
            values |= {child: _typed(layer, child, held) for child, held in children(layer).items()}
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            values[name] = _plain(layer, name)
    if layer.quantized:
        values[QUANTIZED] = layer.quantized
    return values


def made(call: str, name: str, value: Any) -> Any:
    """A layer out of the form that `config` gives it inside a model; anything else as it is."""
    if not isinstance(value, Mapping) or set(value) != {"type", "config"}:
        return value
    import pyrnn

    kind = getattr(pyrnn, str(value["type"]), None)
    if value["type"] not in pyrnn.__all__ or not isinstance(kind, type):
        raise ValueError(f"{call}: the type of {name} is {shown(value['type'])}, expected the name of a layer of pyrnn")
    arguments, form = value["config"], None
    if isinstance(arguments, Mapping) and QUANTIZED in arguments:
        form = arguments[QUANTIZED]
        arguments = {name: argument for name, argument in arguments.items() if name != QUANTIZED}
    layer = kind(**arguments)
    return layer if form is None else layer.quantize(form)


def described(layer: Layer) -> str:
    """As torch prints it, with the number of parameters: GRU(8, 16, num_layers=2)  # 2,880 parameters."""
    held = children(layer)
    count = f"  # {layer.num_parameters:,} parameters" if layer.num_parameters else ""
    if held:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in held.items()]
        return "\n".join([f"{type(layer).__name__}(", *lines, f"){_quantized(layer)}{count}"])
    return line(layer) + count


def line(layer: Layer) -> str:
    """The call that makes its like, defaults left out."""
    parts = []
    for name, parameter in _arguments(layer).items():
        value = getattr(layer, name, parameter.default)
        if value is parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # a class of the user's own that does not keep it
        value = value.name if isinstance(value, np.dtype) else value
        if parameter.default is parameter.empty:
            parts.append(shown(value))
        elif value != parameter.default:
            parts.append(f"{name}={shown(value)}")
    return f"{type(layer).__name__}({', '.join(parts)}){_quantized(layer)}"


def _quantized(layer: Layer) -> str:
    return f".quantize({layer.quantized!r})" if layer.quantized else ""


def _arguments(layer: Layer) -> dict[str, inspect.Parameter]:
    """Of its class, but for rng and what is no plain value."""
    signature = inspect.signature(type(layer))
    return {name: p for name, p in signature.parameters.items() if name not in layer._unwritten}


def children(layer: Layer) -> dict[str, Layer]:
    """The layers of a model by the names of their attributes, with those in lists and dicts as list.0 and so on."""
    from .layer import Layer
    from .model import Model

    found: dict[str, Layer] = {}

    def enter(name: str, value: Any) -> None:
        if isinstance(value, Layer):
            found[name] = value
        elif isinstance(value, (list, tuple)):
            for k, entry in enumerate(value):
                enter(f"{name}.{k}", entry)
        elif isinstance(value, dict):
            for key, entry in value.items():
                enter(f"{name}.{key}", entry)

    if isinstance(layer, Model):
        for name, value in layer._attributes().items():
            if not name.startswith("_"):
                enter(name, value)
    return found


def _typed(layer: Layer, name: str, held: Layer) -> dict[str, Any]:
    import pyrnn

    kind = type(held).__name__
    if getattr(pyrnn, kind, None) is not type(held) or "." in name:
        what = "in a list or dict" if "." in name else f"{kind}, which is not pyrnn's"
        raise TypeError(
            f"{type(layer).__name__}.config: {name} is {what}, and can only be written down by its own class"
        )
    return {"type": kind, "config": held.config()}


def _plain(layer: Layer, name: str) -> Any:
    call = f"{type(layer).__name__}.config"
    if not hasattr(layer, name):
        raise TypeError(f"{call}: its argument {name} is not among its attributes")
    from .layer import Layer

    value = getattr(layer, name)
    value = value.name if isinstance(value, np.dtype) else value
    if isinstance(value, Layer):
        return _typed(layer, name, value)
    if not _is_json(value):
        raise TypeError(f"{call}: {name} is {shown(value)}, which JSON cannot hold")
    return value


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, (bool, int, float, str, type(None)))
