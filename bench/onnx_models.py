"""Models of ONNX files by `from_onnx`: speech models that run frame by frame, and over a whole clip."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

import pyrnn

from . import peers
from .harness import Case, Op, Run, Settings, Shape

LETTERS = "T,F,C,H"
FRAMES: list[Shape] = [(1, 40, 32, 128), (4, 40, 32, 128), (4, 129, 128, 128), (16, 64, 64, 128)]
CONTINUED: list[Shape] = [(1, 40, 32, 128), (1, 80, 64, 128), (4, 64, 64, 128)]
CLIPS: list[Shape] = [(100, 40, 32, 128), (1000, 40, 32, 128), (1000, 129, 128, 128)]
LAYERS = 4


def model(steps: int, features: int, channels: int, hidden: int, continued: bool) -> tuple[Any, dict[str, str]]:
    """Four convolutions of three steps with relu, an LSTM and a head with a sigmoid, x (1, F, T) -> p (T, 1, 1); and
    which of its outputs are which of its inputs at the next call. The convolutions see zeros around x, or `continued`
    what came before it, which is a state of each."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {}
    inputs: dict[str, Any] = {"x": (1, features, steps)}
    outputs: dict[str, Any] = {"p": (steps, 1, 1)}
    state: dict[str, str] = {}
    nodes = []

    def weights(name: str, *shape: int) -> str:
        constants[name] = rng.uniform(-1, 1, shape).astype(np.float32) * shape[-1] ** -0.5
        return name

    def numbers(name: str, *values: int) -> str:
        constants[name] = np.array(values)
        return name

    def carried(name: str, *shape: int) -> str:
        inputs[name], outputs[f"{name}_out"], state[name] = shape, shape, f"{name}_out"
        return f"{name}_out"

    last = "x"
    for k in range(LAYERS):
        width = features if k == 0 else channels
        if continued:
            nodes.append(helper.make_node("Concat", [f"past{k}", last], [f"joined{k}"], axis=2))
            index = [numbers(name, value) for name, value in (("start", -2), ("end", 2**31), ("time", 2))]
            nodes.append(helper.make_node("Slice", [f"joined{k}", *index], [carried(f"past{k}", 1, width, 2)]))
            last = f"joined{k}"
        parts = [weights(f"weight{k}", channels, width, 3), weights(f"bias{k}", channels)]
        pads = [0, 0] if continued else [1, 1]
        nodes.append(helper.make_node("Conv", [last, *parts], [f"conv{k}"], pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{k}"], [f"relu{k}"]))
        last = f"relu{k}"
    nodes.append(helper.make_node("Transpose", [last], ["steps"], perm=[2, 0, 1]))
    gates = 4 * hidden
    parts = [weights("W", 1, gates, channels), weights("R", 1, gates, hidden), weights("B", 1, 2 * gates)]
    lstm = ["steps", *parts, "", "h", "c"]
    carry = [carried(name, 1, 1, hidden) for name in "hc"]
    nodes.append(helper.make_node("LSTM", lstm, ["y", *carry], hidden_size=hidden))
    nodes.append(helper.make_node("Squeeze", ["y", numbers("one", 1)], ["rows"]))
    nodes.append(helper.make_node("MatMul", ["rows", weights("head", hidden, 1)], ["logits"]))
    nodes.append(helper.make_node("Sigmoid", ["logits"], ["p"]))
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named.items()]
        for named in (inputs, outputs)
    ]
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "speech", *values, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), state


def case(shape: Shape, settings: Settings, continued: bool, streamed: bool) -> Case:
    """A call with zeros as states, or where it is streamed a step, whose states the next one begins with."""
    steps, features, channels, hidden = shape
    proto, state = model(*shape, continued)
    x = np.random.default_rng(1).standard_normal((1, features, steps)).astype(np.float32)
    ours = pyrnn.from_onnx(proto)
    first = {one.name: np.zeros(one.shape, np.float32) for one in ours.inputs if one.name in state}
    stream, feeds = ours.stream(state), {"x": x, **first}
    names = [one.name for one in ours.outputs]

    def onnxruntime() -> Run:
        session, given = peers.onnx_session(proto, settings), dict(feeds)

        def step() -> object:
            results = dict(zip(names, session.run(names, given), strict=True))
            given.update((name, results[output]) for name, output in state.items())
            return list(results.values())

        return step if streamed else lambda: session.run(names, feeds)

    convolutions = 3 * (features + (LAYERS - 1) * channels) * channels
    weights = convolutions + 4 * hidden * (channels + hidden) + hidden
    return Case(
        ours=(lambda: list(stream.step(x=x).values())) if streamed else (lambda: list(ours(**feeds).values())),
        peers={"onnxruntime": onnxruntime()} if "onnxruntime" in settings.peers else {},
        flops=2 * steps * weights,
        bytes=4 * (weights + steps * (features + LAYERS * channels + hidden)),
        footprint=4 * weights,
    )


def frame(shape: Shape, direction: str, settings: Settings) -> Case:
    return case(shape, settings, continued=False, streamed=True)


def stream(shape: Shape, direction: str, settings: Settings) -> Case:
    return case(shape, settings, continued=True, streamed=True)


def clip(shape: Shape, direction: str, settings: Settings) -> Case:
    return case(shape, settings, continued=False, streamed=False)


OPS = (
    (
        Op("onnx-frame", LETTERS, {"forward": FRAMES}, frame, own_peers=("onnxruntime",)),
        Op("onnx-stream", LETTERS, {"forward": CONTINUED}, stream, own_peers=("onnxruntime",)),
        Op("onnx-clip", LETTERS, {"forward": CLIPS}, clip, own_peers=("onnxruntime",)),
    )
    if importlib.util.find_spec("onnx")
    else ()
)
