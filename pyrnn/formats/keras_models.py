"""Keras' models as models here: which layers there are, and what each of them takes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import cut, shown
from ..core.layer import Layer, at_most
from ..layers.fold import folded, in_line
from ..layers.graph import INPUT, Function, Graph
from ..layers.sequential import Sequential
from . import keras, keras_layers
from .weights import within

MODELS = ("Sequential", "Functional", "Model")
CONSTANT = ["_CONSTANT_VALUE", -1]  # what an argument of Keras 2 that is no tensor begins with
FUNCTION = "a function"  # the kind of a layer that the user gives
SPARE = 10_000  # numbers beyond those of the file that its layers may have


class Node(NamedTuple):
    """A layer of the model, and where what it takes comes from."""

    name: str
    kind: str
    options: Any  # its config, or a function that makes it out of its arrays
    sources: list[str]
    given: tuple[str, ...] = ()  # what else its call is given, in words


def from_keras(source: Any, config: Any = None) -> Any:
    """The model that one of Keras is, with `batch_first`: the same values, and the same results to rounding.

    source  a .keras file, an .h5 file of a model, or of weights alone with `config`; or a model or a layer of keras or
            tf.keras that is there. For files neither of them is needed, nor h5py
    config  what the source does not tell, or tells otherwise. Of weights alone: the text of Keras' `model.to_json()`,
            or for each layer its options in Keras' words: {"rnn": {"recurrent_activation": "sigmoid"}, "out": {}}; in
            the order of the model where the file, of Keras 3, has none. What is left out is as Keras has it by default,
            the class is told where the arrays do not, {"class_name": "Dropout"}, and "inbound" lists the layers whose
            results it takes, else the one before. In place of the options of a layer that has no counterpart here may
            stand a function of its arrays, in the order of the file, that gives a layer of pyrnn or another function;
            so may one of numbers as "activation"

    A Sequential, or a Graph where layers meet; of one layer the layer, where it has a counterpart by itself. What was
    for training alone, and `stateful`, is left out: a call begins with zeros, `stream` goes on; a BatchNormalization
    becomes a part of the layer beside it, where it can (`fold_batch_norms`). OSError or ValueError
    with the name of the file and of the layer, for one that is damaged, that has no counterpart here, whose arrays have
    no place, and for what is not told. Nothing that the file holds is run: a Lambda has no counterpart.

        model = pyrnn.from_keras("model.keras")
        model = pyrnn.from_keras("weights.h5", config=pyrnn.text.read("model.json"))
    """
    if isinstance(source, (str, os.PathLike)):
        expected = "Keras' .keras or .h5"
        return within("from_keras", source, expected, lambda file, size: _model(keras.read(file, size), config))
    if not hasattr(source, "get_config") or not hasattr(source, "weights") or isinstance(source, type):
        raise TypeError(f"from_keras: source is {shown(source)}, expected a file, or a model or a layer of Keras")
    try:
        return _model(keras.live(source), config)
    except (KeyError, ValueError) as error:
        raise ValueError(f"from_keras: {type(source).__name__}: {error}") from error


def _model(model: keras.Model, config: Any) -> Any:
    described, told = _description(model, config)
    nodes = list(_told(model, told) if described is None else _described(described, told))
    placed = _placed(model, nodes, described is not None and model.numbered)
    arrays = [array for own in model.weights.values() for array in own.values()]
    numbers = [array for array in arrays if array.dtype.kind == "f"]
    dtype = "float64" if numbers and all(array.dtype == np.float64 for array in numbers) else "float32"
    version = keras.major(model.version or _version(described))
    if version == 1:
        raise ValueError("it is of Keras 1, whose layers are not read here")
    layers: dict[str, Any] = {}
    inputs: dict[str, list[str]] = {}
    ends: dict[str, str] = {}  # of each layer of Keras the last of those that it becomes
    ranks: dict[str, int | None] = {}  # and how many axes that gives
    with at_most(4 * sum(array.size for array in arrays) + SPARE):
        for node in nodes:
            try:
                sources = _ends(node, ends)
                rank = ranks[node.sources[0]] if node.sources else None
                made = _made(node, placed[node.name], version, dtype, rank)
                ranks[node.name] = None
                if node.kind != FUNCTION:
                    ranks[node.name] = keras_layers.rank_behind(node.kind, node.options, rank)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{node.name} ({node.kind}): {error}") from error
            for what, layer in made.items():
                name = _fit(f"{node.name}_{what}" if what else node.name, layers)
                layers[name], inputs[name] = layer, sources
                sources = [name]
            ends[node.name] = sources[0]
    if not layers:
        raise ValueError("it has no layers")
    if described is not None and described["class_name"] not in MODELS and len(layers) == 1:
        return next(iter(layers.values()))
    layers, inputs = folded(layers, inputs)
    return Sequential(**layers) if inputs == in_line(list(layers)) else Graph(inputs, **layers)


def _ends(node: Node, ends: Mapping[str, str]) -> list[str]:
    """What the layer takes, by the names of layers here."""
    for source in node.sources:
        if source not in ends:
            raise ValueError(f"it takes {shown(source)}, which is not before it")
    if node.given and node.kind != FUNCTION:
        raise ValueError(f"its call is given {cut(', '.join(node.given))}, which is not read here")
    if len(node.sources) > 1 and node.kind not in (*keras_layers.MERGES, FUNCTION):
        raise ValueError(f"it takes {len(node.sources)} inputs")
    return [ends[source] for source in node.sources] or [INPUT]


def _fit(name: str, taken: Mapping[str, Any]) -> str:
    """A name that a layer of a model can have."""
    name = re.sub(r"\W", "_", name)
    name = f"layer_{name}" if not name.isidentifier() else name
    while name in taken or name in ("inputs", "rng", INPUT) or hasattr(Graph, name) or name.startswith("_"):
        name = f"layer{name}" if name.startswith("_") else f"{name}_"
    return name


def _made(
    node: Node, weights: Mapping[str, Any], version: int | None, dtype: str, rank: int | None
) -> dict[str, Layer]:
    if node.kind == FUNCTION:
        made = node.options(*weights.values())
        if isinstance(made, Layer) or callable(made):
            return {"": made if isinstance(made, Layer) else Function(made)}
        raise TypeError(f"the function in config gives {shown(made)}, expected a layer or a function")
    arrays = keras_layers.named(node.kind, node.options, weights)
    return keras_layers.layers_of(keras_layers.Own(node.kind, node.options, arrays, version, dtype, rank=rank))


def _placed(model: keras.Model, nodes: list[Node], numbered: bool) -> dict[str, dict[str, Any]]:
    """The arrays of each node; in the files of Keras 3 it is looked up by its class and its number."""
    names = _counted(nodes) if numbered else {node.name: node.name for node in nodes}
    left = dict(model.weights)
    placed = {node.name: left.pop(names[node.name], {}) for node in nodes}
    lost = [name for name, own in left.items() if own]
    if lost:
        raise ValueError(f"it holds arrays of {', '.join(lost)}, which is not among its layers")
    return placed


def _counted(nodes: list[Node]) -> dict[str, str]:
    """The names that the layers have in the files of Keras 3."""
    met: dict[str, int] = {}
    names = {}
    for node in nodes:
        name = keras.snake(node.kind)
        names[node.name] = f"{name}_{met[name]}" if name in met else name
        met[name] = met.get(name, 0) + 1
    return names


# ---- what a model says of its layers


def _description(model: keras.Model, config: Any) -> tuple[Any, dict[str, Any]]:
    """How Keras describes the model, None where it is told layer by layer, and what is told of its layers."""
    if isinstance(config, (str, bytes)):
        try:
            config = json.loads(config)
        except ValueError as error:
            raise ValueError(f"config is no JSON, expected the text of model.to_json() or a dict: {error}") from error
    if config is not None and not isinstance(config, Mapping):
        raise ValueError(f"config is {shown(config)}, expected the text of model.to_json() or a dict of layers")
    if config is not None and {"class_name", "config"} <= config.keys():
        return config, {}
    return model.described, dict(config or {})


def _version(described: Any) -> str | None:
    """The version of the Keras that wrote a description: since Keras 3 there are modules in it and no version."""
    said: str | None = (described or {}).get("keras_version", "3.0" if "module" in (described or {}) else None)
    return said


def _described(described: Mapping[str, Any], told: dict[str, Any]) -> Iterator[Node]:
    """The layers of a model as Keras describes it, each behind those that it takes."""
    nodes = list(_layers(described))
    unknown = [name for name in told if name not in {node.name for node in nodes}]
    if unknown:
        names = cut(", ".join(node.name for node in nodes))
        raise ValueError(f"config tells of {shown(unknown[0])}, and its layers are {names}")
    for node in nodes:
        own = told.get(node.name, {})
        yield (
            node._replace(kind=FUNCTION, options=own)
            if callable(own)
            else node._replace(options={**node.options, **own})
        )


def _layers(described: Mapping[str, Any]) -> Iterator[Node]:
    kind, config = described["class_name"], described["config"]
    if kind not in MODELS:
        yield Node(config["name"], kind, config, [])
        return
    entries = config if isinstance(config, list) else config["layers"]
    nodes: list[Node] = []
    for entry in entries:
        own, inner = entry["config"], entry["class_name"]
        name = entry.get("name", own.get("name"))
        if not isinstance(name, str) or any(node.name == name for node in nodes):
            raise ValueError(f"a layer of it has the name {shown(name)}")
        if inner in MODELS:
            raise ValueError(f"{name} is a model inside of it, which is not read here")
        in_line = [node.name for node in nodes[-1:]]
        taken = (in_line,) if kind == "Sequential" else _call(name, entry["inbound_nodes"])
        nodes.append(Node(name, inner, own, *taken))
    if kind == "Sequential":
        yield from nodes
        return
    inputs, outputs = (list(_tensors(config[which])) for which in ("input_layers", "output_layers"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
    yield from _sorted(nodes, outputs[0])


def _call(name: str, calls: list[Any]) -> tuple[list[str], tuple[str, ...]]:
    """The layers whose results a layer of a functional model takes, and what else it is given: of Keras 2
    [[[name, 0, 0, {...}], ...]], of Keras 3 [{"args": [...], "kwargs": {...}}] with tensors in it."""
    if len(calls) > 1:
        raise ValueError(f"{name} is used {len(calls)} times, which is not read here")
    if not calls:
        return [], ()
    call = calls[0]
    if isinstance(call, Mapping):
        args, options = call["args"], dict(call.get("kwargs", {}))
    else:
        args = [call] if isinstance(call[0], str) else call
        options = {option: value for entry in args for own in entry[3:] for option, value in own.items()}
    if list(_tensors(options)):
        raise ValueError(f"{name} is given tensors by name ({', '.join(options)}), which is not read here")
    # None and False are what the arguments are that are left out: mask, training, initial_state
    named = tuple(
        f"{option}={shown(value)}" for option, value in options.items() if value is not None and value is not False
    )
    return list(_tensors(args)), (*(shown(value) for value in _constants(args)), *named)


def _is_tensor(value: Any) -> bool:
    """Whether this is [name of a layer, 0, 0, ...], of Keras 2."""
    return len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int and type(value[2]) is int


def _constants(value: Any, depth: int = 0) -> Iterator[Any]:
    """What is neither tensors nor lists of them, in the arguments of a call."""
    if isinstance(value, (list, tuple)):
        if list(value[:2]) == CONSTANT:
            yield value[2]
        elif not _is_tensor(value):
            for k, entry in enumerate(value):
                if depth or not k or (entry is not None and entry is not False):
                    yield from _constants(entry, depth + 1)
    elif not isinstance(value, Mapping) or value.get("class_name") != "__keras_tensor__":
        yield value


def _tensors(value: Any, depth: int = 0) -> Iterator[str]:
    """The names of the layers whose results are in this."""
    if depth > 16:
        raise ValueError("its layers are described in too many lists")
    if isinstance(value, Mapping):
        history = value["config"]["keras_history"] if value.get("class_name") == "__keras_tensor__" else None
        for entry in value.values() if history is None else [history]:
            yield from _tensors(entry, depth + 1)
    elif isinstance(value, (list, tuple)):
        if list(value[:2]) == CONSTANT:
            return
        if _is_tensor(value):
            if (value[1], value[2]) != (0, 0):
                raise ValueError(
                    f"result {value[2]} of use {value[1]} of {value[0]} is needed, the first alone is read"
                )
            yield value[0]
        else:
            for entry in value:
                yield from _tensors(entry, depth + 1)


def _sorted(nodes: list[Node], output: str) -> Iterator[Node]:
    """The nodes, each behind those that it takes, the output last."""
    waiting, known = {node.name: node for node in nodes}, set[str]()
    if len(waiting) != len(nodes) or output not in waiting:
        raise ValueError("its layers are not what its output is made of")
    while waiting:
        ready = [node for node in waiting.values() if known.issuperset(node.sources)]
        if not ready:
            raise ValueError(f"{next(iter(waiting))} takes what no layer gives")
        node = next((node for node in ready if node.name != output), ready[0])
        if node.name == output and len(waiting) > 1:
            raise ValueError(f"the result of {', '.join(name for name in waiting if name != output)} is taken by none")
        known.add(node.name)
        yield waiting.pop(node.name)


def _told(model: keras.Model, told: Mapping[str, Any]) -> Iterator[Node]:
    """The layers of a file of weights alone, of which `config` tells what they are."""
    missing = [name for name in model.weights if name not in told]
    if missing:
        known = {name: _template(name, model) for name in model.weights}
        raise ValueError(
            "it holds weights alone, which tell neither activations nor what layers there are besides. config tells "
            "it: the text of model.to_json(), or the options of each layer in Keras' words, as "
            f"{cut(known, 2000)}. It lacks {', '.join(missing)}"
        )
    if model.ordered:
        unknown = [name for name in told if name not in model.weights]
        if unknown:
            raise ValueError(f"config tells of {shown(unknown[0])}, and its layers are {cut(', '.join(model.weights))}")
        told = {name: told[name] for name in model.weights}
    before: list[str] = []
    for name, own in told.items():
        if callable(own):
            yield Node(name, FUNCTION, own, before)
        else:
            options, weights = dict(own), model.weights.get(name, {})
            kind = options.pop("class_name", keras_layers.kind_of(name, weights, model.numbered))
            if kind is None:
                raise ValueError(f"what {name} is cannot be told by its arrays: config is to have its class_name")
            sources = list(options.pop("inbound", before))
            if kind == "Bidirectional" and "layer" not in options:  # told as if they were those of the layer in it
                half = {path.rpartition("/")[2]: array for path, array in weights.items() if "forward_" in path}
                inner = {"class_name": keras_layers.kind_of("", half, False), "config": options}
                options = {"layer": inner}
            yield Node(name, kind, options, sources)
        before = [name]


def _template(name: str, model: keras.Model) -> dict[str, str]:
    kind = keras_layers.kind_of(name, model.weights[name], model.numbered)
    if kind in ("LSTM", "GRU", "Bidirectional"):
        return {"recurrent_activation": "..."}
    return {} if kind else {"class_name": "..."}
