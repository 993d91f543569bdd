"""What is compared with pyrnn: which peers are installed, their threads, and their ways to run and differentiate."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import pyrnn

from .harness import Run, Settings

NAMES = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx"), "jax": ("jax",)}  # and the modules each needs
RAGGED = ("torch", "onnxruntime")  # have recurrent layers that take lengths


def installed() -> list[str]:
    """The peers that can be imported here."""
    return [name for name, modules in NAMES.items() if all(map(importlib.util.find_spec, modules))]


def prepare(settings: Settings) -> dict[str, str]:
    """Give everybody the same number of threads (onnxruntime: in `onnx_run`); the versions by name."""
    pyrnn.set_num_threads(settings.threads)
    if "torch" in settings.peers:
        import torch

        torch.set_num_threads(settings.threads)
    if "jax" in settings.peers:
        os.environ["NPROC"] = str(settings.threads)  # the size of its thread pool, read when it is made
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", settings.dtype == "float64")
    return {name: version_of(name) for name in ("pyrnn", *settings.peers)}


def version_of(name: str) -> str:
    """The installed version; pyrnn may also be run from its sources."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def torch_both(forward: Callable[[], Any], inputs: Sequence[Any], dy: Any) -> Run:
    """forward() -> y and then the gradients of `inputs` for the gradient `dy` of y."""
    import torch

    def run() -> object:
        y = forward()
        return y.detach(), torch.autograd.grad(y, inputs, dy)

    return run


def torch_forward(forward: Callable[[], Any]) -> Run:
    """forward() without a record for autograd."""
    import torch

    return torch.inference_mode()(forward)


def jax_forward(function: Callable[..., Any], *inputs: np.ndarray) -> Run:
    """function(*inputs), compiled; the inputs lie ready on the device."""
    import jax

    compiled, ready = jax.jit(function), jax.device_put(inputs)
    return lambda: jax.block_until_ready(compiled(*ready))


def jax_both(function: Callable[..., Any], dy: np.ndarray, *inputs: np.ndarray) -> Run:
    """y = function(*inputs) and the gradients of all inputs for the gradient `dy` of y, compiled as one."""
    import jax

    def both(dy: Any, *inputs: Any) -> Any:
        y, pullback = jax.vjp(function, *inputs)
        return y, pullback(dy)

    return jax_forward(both, dy, *inputs)


def onnx_run(
    op: str, attributes: dict[str, Any], inputs: dict[str, np.ndarray | None], outputs: list[str], fed: list[str],
    settings: Settings, *, opset: int = 17, ir_version: int = 8,
) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:  # fmt: skip
    """A model of one node: feeds -> outputs. Inputs in `fed` are fed, the others are its constants; "" stands for an
    output that nobody wants.
    """
    from onnx import TensorProto, helper, numpy_helper

    given = {name: array for name, array in inputs.items() if array is not None}
    node = helper.make_node(op, [name if name in given else "" for name in inputs], outputs, **attributes)
    feeds = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(given[name].dtype), given[name].shape)
        for name in fed
    ]
    kind = TensorProto.FLOAT if settings.dtype == "float32" else TensorProto.DOUBLE
    wanted = [name for name in outputs if name]
    results = [helper.make_tensor_value_info(name, kind, None) for name in wanted]
    constants = [numpy_helper.from_array(array, name) for name, array in given.items() if name not in fed]
    graph = helper.make_graph([node], "bench", feeds, results, constants)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=ir_version)
    session = onnx_session(model, settings)
    return lambda feeds: session.run(wanted, feeds)


def onnx_session(model: Any, settings: Settings) -> Any:
    """An onnxruntime session of a ModelProto."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
