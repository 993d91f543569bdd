"""Models in JSON, as audio plugins have them: RTNeural's layers, GuitarML's state dicts and NAM's .nam."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from ..core.checks import Array, shown
from ..core.layer import at_most
from ..layers.fold import folded, in_line
from ..layers.graph import INPUT, Graph, Merge
from ..layers.learned_state import LearnedState
from ..layers.linear import Linear
from ..layers.recurrent import GRU, LSTM, RNN
from ..layers.sequential import Sequential
from . import keras_layers
from .weights import within

MOST_MEMORY = 8  # bytes of Python's lists and numbers for each byte of a file
SMALL = 1_000_000  # bytes of a file that may ask for more
FLOAT, LIST = 40, 128  # bytes of a number in a list and of a list that holds little
SPARE = 10_000  # numbers beyond those of the file that its layers may have


def from_json(path: str | os.PathLike[str]) -> Any:
    """The model in a JSON file of RTNeural, GuitarML (Automated-GuitarAmpModelling) or NAM (Neural Amp Modeler, .nam).

    x is (T, N, I) or (T, I). Of RTNeural: layers dense, time-distributed-dense, lstm, gru, conv1d, batchnorm, prelu and
    activation, a Sequential; its conv1d are causal where they keep the number of steps, a batchnorm becomes a part of
    the layer beside it (`fold_batch_norms`). Of GuitarML and AIDA-X: inputs that are added to what comes out, in a
    Graph. Of NAM: architecture LSTM, whose learned first state, with which calls and streams begin, is a
    `LearnedState`. Sample rates, levels and what else is said of sound is left out. ValueError with the name of the
    file for other layers and architectures, and for numbers that have no place.

        model = pyrnn.from_json("amp.nam")
        stream = model.stream()
        y_t = stream.step(x_t)
    """
    return within("from_json", path, "a JSON file of a model", lambda file, size: _model(_document(file, size)))


def read_arrays(file: BinaryIO, size: int) -> dict[str, Array]:
    """The arrays in an open file of so many bytes, by the names that they have in it."""
    document = _document(file, size)
    if isinstance(document.get("layers"), list):
        layers = enumerate(_all(document["layers"], "layers"))
        return {f"layers.{k}.{name}": array for k, layer in layers for name, array in _weights(layer).items()}
    if "architecture" in document:
        if document["architecture"] == "LSTM":
            return _nam(document)
        return {"weights": _array(document.get("weights"), "weights")}
    state = document.get("state_dict", document)
    arrays = {name: _array(value, name) for name, value in state.items() if isinstance(value, list)}
    if not arrays:
        raise ValueError(
            "it is JSON without layers, a state dict or an architecture, as RTNeural, GuitarML and NAM have"
        )
    return arrays


def _document(file: BinaryIO, size: int) -> dict[str, Any]:
    content = file.read()
    needed = FLOAT * content.count(b",") + LIST * (content.count(b"[") + content.count(b"{"))
    if needed > MOST_MEMORY * max(size, SMALL):
        raise ValueError(f"what it holds takes more memory than {MOST_MEMORY} times the file")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is JSON, but no object")
    return document


def _array(value: Any, name: str) -> Array:
    """A list of numbers, or of lists of numbers of one length."""
    waiting = [value]
    while waiting:  # NumPy would make a text of each number beside a text, as long as that
        entries = waiting.pop()
        if not isinstance(entries, list) or not set(map(type, entries)) <= {int, float, list}:
            raise ValueError(f"{name} is {shown(value)}, expected a list of numbers")
        waiting += [entry for entry in entries if isinstance(entry, list)]
    try:
        found = np.array(value)
    except ValueError:
        raise ValueError(f"{name} is a list of lists of different lengths") from None
    if found.dtype.kind not in "iuf":  # integers that no dtype has
        raise ValueError(f"{name} is {shown(value)}, expected a list of numbers")
    return found.astype(np.float32)


def _all(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"its {name} are {shown(value)}, expected a list of objects")
    return value


def _model(document: dict[str, Any]) -> Any:
    if "architecture" in document:
        return _of_nam(document)
    if "model_data" in document and "state_dict" in document:
        return _of_guitarml(document)
    if "in_shape" in document and "layers" in document:
        return _of_rtneural(document)
    if any(name.endswith("weight_ih_l0") for name in document):
        raise ValueError(
            "it is a state dict, which does not tell what its layers make together: make the model, and "
            "model.load_state_dict(pyrnn.read_weights(path))"
        )
    raise ValueError(
        "it is JSON of neither RTNeural nor GuitarML nor NAM, which have in_shape, model_data, architecture"
    )


def _with_skip(layers: dict[str, Any], skip: Any, inputs: int, outputs: int) -> Any:
    """The layers one after the other, and the first `skip` inputs added to what comes out."""
    if type(skip) not in (int, bool) or skip < 0 or skip > inputs or (skip and skip not in (1, outputs)):
        raise ValueError(f"it adds {shown(skip)} of {inputs} inputs to {outputs} outputs")
    layers, wires = folded(layers, in_line(list(layers)))
    if not skip:
        return Sequential(**layers)
    source, last = INPUT, list(layers)[-1]
    if (inputs, outputs) != (skip, skip):
        passed = Linear(inputs, outputs, bias=False)
        passed.params["weight"] = np.eye(outputs, inputs) if skip == outputs else np.eye(1, inputs).repeat(outputs, 0)
        layers["skip"], wires["skip"], source = passed, [INPUT], "skip"
    return Graph(wires | {"sum": [last, source]}, **layers, sum=Merge("add"))


# ---- RTNeural

# The class of Keras that a layer of RTNeural's is of, and the names of its arrays.
KINDS: dict[str, tuple[str, Sequence[str]]] = {
    "dense": ("Dense", ("kernel", "bias")),
    "time-distributed-dense": ("Dense", ("kernel", "bias")),
    "lstm": ("LSTM", ("kernel", "recurrent_kernel", "bias")),
    "gru": ("GRU", ("kernel", "recurrent_kernel", "bias")),
    "conv1d": ("Conv1D", ("kernel", "bias")),
    "batchnorm": ("BatchNormalization", ("gamma", "beta", "moving_mean", "moving_variance")),
    "prelu": ("PReLU", ("alpha",)),
    "activation": ("Activation", ()),
}
RECURRENT = ("lstm", "gru")
OF_SOUND = ("samplerate", "sample_rate", "esr", "in_shape", "layers", "in_skip", "input_batch", "output_batch")


def _weights(layer: dict[str, Any]) -> dict[str, Array]:
    """The arrays of a layer by their names in Keras."""
    kind, weights = layer.get("type"), layer.get("weights", [])
    if kind not in KINDS:
        raise ValueError(f"a layer of it is {shown(kind)}, expected one of {', '.join(KINDS)}")
    names = KINDS[kind][1]
    if not isinstance(weights, list) or len(weights) > len(names):
        raise ValueError(f"the weights of a {kind} are {shown(weights)}, expected {', '.join(names) or 'none'}")
    names = names[2:] if kind == "batchnorm" and len(weights) == 2 else names
    return {name: _array(value, f"the {name} of a {kind}") for name, value in zip(names, weights, strict=False)}


def _of_rtneural(document: dict[str, Any]) -> Any:
    for name, value in document.items():
        if name not in OF_SOUND and not isinstance(value, (str, dict)):
            raise ValueError(f"it has {name}={shown(value)}, which is not known here")
    shape = document["in_shape"]
    inputs, layers = shape[-1], dict[str, Any]()
    with at_most(SPARE + 4 * sum(array.size for layer in document["layers"] for array in _weights(layer).values())):
        for k, layer in enumerate(_all(document["layers"], "layers")):
            name = f"{layer['type'].replace('-', '_')}_{k}"
            try:
                made, shape = _layer(layer, shape)
            except (TypeError, ValueError) as error:
                raise ValueError(f"layer {k} ({layer['type']}): {error}") from error
            layers |= {f"{name}_{what}" if what else name: own for what, own in made.items()}
        return _with_skip(layers, document.get("in_skip", 0), inputs, shape[-1])


def _layer(layer: dict[str, Any], before: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """The layers that one of RTNeural's becomes, and the shape of what comes out."""
    kind, shape, arrays = layer["type"], layer["shape"], _weights(layer)
    options = {name: value for name, value in layer.items() if name not in ("type", "shape", "weights")}
    if kind in (*RECURRENT, "batchnorm", "prelu") and options.pop("activation", "") not in ("", None, "tanh"):
        raise ValueError("it has another activation than tanh, which RTNeural does not read")
    if options.get("activation") == "":
        options.pop("activation")
    if kind in RECURRENT:
        options |= {"return_sequences": True, "recurrent_activation": "sigmoid", "units": shape[-1]}
        options |= {"reset_after": True} if kind == "gru" else {}
    elif kind == "conv1d":
        options["dilation_rate"] = options.pop("dilation")
        options |= {"filters": shape[-1], "padding": _padding(before, shape, options)}
    elif kind == "batchnorm":
        options |= {"scale": "gamma" in arrays, "center": "gamma" in arrays}
    elif kind != "activation" and kind != "prelu":
        options["units"] = shape[-1]
    features = arrays["kernel"].shape[-2] * options.get("groups", 1) if "kernel" in arrays else before[-1]
    if features != before[-1]:
        raise ValueError(f"it reads {features} features, and {shown(before[-1])} come")
    if "kernel" not in arrays and shape[-1] != before[-1]:
        raise ValueError(f"it makes {shown(shape[-1])} features of {before[-1]}")
    own = keras_layers.Own(KINDS[kind][0], options, arrays, batch_first=False)
    return keras_layers.layers_of(own), shape


def _padding(before: Sequence[Any], shape: Sequence[Any], options: dict[str, Any]) -> str:
    """Of a convolution, by the numbers of steps that go in and come out where these are known: RTNeural's is causal."""
    steps, left = before[-2], shape[-2]
    if steps == left:
        return "causal"
    reach = math.prod(options["dilation_rate"]) * (math.prod(options["kernel_size"]) - 1)
    if steps is None or left is None or left != steps - reach:
        raise ValueError(f"it makes {shown(left)} steps of {shown(steps)}")
    return "valid"


# ---- GuitarML

UNITS: dict[Any, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def _of_guitarml(document: dict[str, Any]) -> Any:
    data, state = document["model_data"], document["state_dict"]
    kind = UNITS.get(data.get("unit_type"))
    if data.get("model") != "SimpleRNN" or kind is None:
        raise ValueError(f"its model is {shown(data.get('model'))} of {shown(data.get('unit_type'))} units, expected a "
                         f"SimpleRNN of {', '.join(UNITS)}")  # fmt: skip
    arrays = {name: _array(value, name) for name, value in state.items()}
    inputs, hidden, outputs = (data[name] for name in ("input_size", "hidden_size", "output_size"))
    with at_most(SPARE + 4 * sum(array.size for array in arrays.values())):
        rec = kind(inputs, hidden, data.get("num_layers", 1), bias="rec.bias_ih_l0" in arrays)
        layers: dict[str, Any] = {"rec": rec, "lin": Linear(hidden, outputs, bias="lin.bias" in arrays)}
        Sequential(**layers).load_state_dict(arrays)
        return _with_skip(layers, data.get("skip", 0), inputs, outputs)


# ---- NAM


def _nam(document: dict[str, Any]) -> dict[str, Array]:
    """What the numbers of an LSTM are: of each layer the weights of x and of h side by side, one bias, the first h and
    c; then the weights and the bias of what is behind."""
    flat, config = _array(document.get("weights"), "weights"), document["config"]
    inputs, hidden, count = (_size(config, name) for name in ("input_size", "hidden_size", "num_layers"))
    outputs = _size(config, "out_channels", 1)
    if _size(config, "in_channels", inputs) != inputs:
        raise ValueError(f"its LSTM takes {inputs} inputs, and it says {config['in_channels']} channels")
    sizes: dict[str, tuple[int, ...]] = {}
    for k in range(min(count, flat.size)):
        sizes[f"both_l{k}"] = (4 * hidden, (hidden if k else inputs) + hidden)
        sizes |= {f"bias_l{k}": (4 * hidden,), f"h_l{k}": (hidden,), f"c_l{k}": (hidden,)}
    sizes |= {"head.weight": (outputs, hidden), "head.bias": (outputs,)}
    needed = sum(math.prod(shape) for shape in sizes.values())
    if flat.ndim != 1 or flat.size != needed:
        raise ValueError(
            f"its weights are of shape {flat.shape}, expected {needed} numbers for {count} layers of {hidden}"
        )
    ends = np.cumsum([math.prod(shape) for shape in sizes.values()])[:-1]
    parts = {name: part.reshape(shape) for (name, shape), part in zip(sizes.items(), np.split(flat, ends), strict=True)}
    arrays: dict[str, Array] = {}
    for k in range(count):
        own = hidden if k else inputs
        arrays[f"rnn.layer.weight_ih_l{k}"] = parts[f"both_l{k}"][:, :own].copy()
        arrays[f"rnn.layer.weight_hh_l{k}"] = parts[f"both_l{k}"][:, own:].copy()
        arrays[f"rnn.layer.bias_ih_l{k}"] = parts[f"bias_l{k}"]
        arrays[f"rnn.layer.bias_hh_l{k}"] = np.zeros(4 * hidden, np.float32)
    for name in "hc":
        arrays[f"rnn.start.{name}"] = np.stack([parts[f"{name}_l{k}"] for k in range(count)])
    return arrays | {name: parts[name] for name in ("head.weight", "head.bias")}


def _size(config: Mapping[str, Any], name: str, usual: Any = None) -> int:
    value = config.get(name, usual)
    if type(value) is not int or value < 1:
        raise ValueError(f"its {name} is {shown(value)}, expected a number from 1 on")
    return value


def _of_nam(document: dict[str, Any]) -> Any:
    if document["architecture"] != "LSTM":
        raise ValueError(f"its architecture is {shown(document['architecture'])}, of NAM's the LSTM alone is read here")
    arrays = _nam(document)
    hidden, inputs = arrays["head.weight"].shape[1], arrays["rnn.layer.weight_ih_l0"].shape[1]
    rnn = LearnedState(LSTM(inputs, hidden, len(arrays["rnn.start.h"])))
    model = Sequential(rnn=rnn, head=Linear(*arrays["head.weight"].shape[::-1]))
    model.load_state_dict(arrays)
    return model
