"""torch.nn's RNN, LSTM and GRU on our kernels, and the change of a model's modules into these."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..core.checks import boolean, shown
from .recurrent import OnTape, Stack, new_states, recurrent, run
from .tensors import applied, obstacle, plain, refused, taped

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _Ours(nn.RNNBase):
    """forward of the three: what torch.nn's does, errors included, with the kernels in the place of torch's loops."""

    fallback: bool = False

    def forward(self, input: Any, hx: Any = None) -> Any:
        x, batch_sizes, order, back = input if isinstance(input, PackedSequence) else (input, None, None, None)
        weights = self._weights()
        state: Any = () if hx is None else hx if self.mode == "LSTM" else (hx,)
        if not self._fits(x, batch_sizes, state, weights):
            return super().forward(input, hx)  # torch's error
        tensors, trace = (x, *state, *weights), False
        if not plain(tensors, x.dtype):
            why = obstacle(tensors)
            if why and not self.fallback:
                raise refused(type(self).__name__, why)
            if why or any(t.dtype is not x.dtype for t in tensors):
                return super().forward(input, hx)
            trace = True
        if batch_sizes is not None:
            state = [part.index_select(1, order) for part in state] if order is not None else state
            y, *final = self._run(x, batch_sizes, state, weights, trace)
            final = [part.index_select(1, back) for part in final] if back is not None else final
            return PackedSequence(y, batch_sizes, order, back), self._joined(final)
        if x.dim() == 3:
            y, *final = self._run(x, None, state, weights, trace)
            return y, self._joined(final)
        row = 0 if self.batch_first else 1
        y, *final = self._run(x.unsqueeze(row), None, [part.unsqueeze(1) for part in state], weights, trace)
        return y.squeeze(row), self._joined([part.squeeze(1) for part in final])

    def _joined(self, state: Sequence[Tensor]) -> Any:
        return tuple(state) if self.mode == "LSTM" else state[0]

    def _weights(self) -> list[Tensor]:
        """As they are now: parameters, what functional_call puts in their place, or what a hook has computed."""
        own: Any = self._parameters
        try:
            return [own[name] for name in self._flat_weights_names]
        except KeyError:
            return [getattr(self, name) for name in self._flat_weights_names]

    def _fits(self, x: Any, batch_sizes: Tensor | None, state: Any, weights: Sequence[Tensor]) -> bool:
        """Whether torch would take this."""
        if not isinstance(x, Tensor):
            return False
        shape = x.shape
        axes = len(shape)
        if axes not in ((2, 3) if batch_sizes is None else (2,)) or shape[-1] != self.input_size:
            return False
        if batch_sizes is None and not shape[self.batch_first and axes == 3]:
            return False
        if x.dtype is not weights[0].dtype and not torch.is_autocast_enabled("cpu"):
            return False
        if not (isinstance(state, (tuple, list)) and all(isinstance(part, Tensor) for part in state)):
            return False
        if not state:
            return True
        rows = () if axes == 2 else (shape[not self.batch_first],)
        if batch_sizes is not None:
            rows = (int(batch_sizes[0]),)
        lead = (self.num_layers * (2 if self.bidirectional else 1), *rows)
        expected = [(*lead, self.proj_size or self.hidden_size), (*lead, self.hidden_size)]
        found = [tuple(part.shape) for part in state]
        return found == expected[: 2 if self.mode == "LSTM" else 1]

    def _run(
        self, x: Tensor, batch_sizes: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], trace: bool
    ) -> Sequence[Tensor]:
        """y, final states of x (T, N, I), or (N, T, I) with batch_first, or (S, I)."""
        stack = Stack(self.mode, self.bias, self.num_layers, self.bidirectional, self.batch_first, self.fallback)
        if not (self.dropout and self.training and self.num_layers > 1):
            return _call(stack, x, batch_sizes, state, weights, trace)
        own, directions = len(weights) // self.num_layers, 2 if self.bidirectional else 1
        finals = []
        for k in range(self.num_layers):
            x = nn.functional.dropout(x, self.dropout) if k else x
            part = [h[k * directions : (k + 1) * directions] for h in state]
            layer = weights[k * own : (k + 1) * own]
            x, *final = _call(stack._replace(num_layers=1), x, batch_sizes, part, layer, trace)
            finals.append(final)
        return x, *(torch.cat(part) for part in zip(*finals, strict=True))


def _call(
    stack: Stack, x: Tensor, batch_sizes: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], trace: bool
) -> Sequence[Tensor]:
    if trace:
        if batch_sizes is not None and not state:  # the number of rows is then in a shape
            state = new_states(stack, weights, x, int(batch_sizes[0]))
        result: Sequence[Tensor] = recurrent(x, batch_sizes, list(state), list(weights), *stack[:5])
    elif taped((*weights, x, *state)):
        result = applied(OnTape, stack, batch_sizes, len(state), x, *state, *weights)
    else:
        result = run(stack, x, batch_sizes, state, weights, False)[0]
    return result


class RNN(_Ours, nn.RNN):
    """torch.nn.RNN on the kernels of pyrnn.RNN: the same arguments, parameters, state dict, calls and errors.

    What holds for all three: tensors on the CPU, float32 or float64, are read where they lie. Packed sequences are one
    call of the kernel. Initial values and dropout between layers follow torch.manual_seed (dropout draws other masks
    than torch.nn). RuntimeError, or torch's own implementation in a module from `accelerate(..., fallback=True)`, for
    other devices and dtypes, torch.autocast, torch.func transforms, forward-mode and second derivatives. A backward
    with retain_graph=True walks forward again from the second time on. torch.compile passes over them without a graph
    break where torch._dynamo.config.allow_rnn is set; the compiled way back walks forward once more.

        layer = pyrnn.torch.RNN(8, 16, nonlinearity="relu")
        y, h = layer(torch.ones(5, 3, 8))  # (T, N, I) -> (T, N, H), (1, N, H)
    """


class LSTM(_Ours, nn.LSTM):
    """torch.nn.LSTM on the kernels of pyrnn.LSTM, proj_size too. Everything else as in RNN.

    layer = pyrnn.torch.LSTM(8, 16, num_layers=2)
    y, (h, c) = layer(torch.ones(5, 3, 8))  # (T, N, I) -> (T, N, H), ((2, N, H), (2, N, H))
    """


class GRU(_Ours, nn.GRU):
    """torch.nn.GRU on the kernels of pyrnn.GRU. Everything else as in RNN.

    layer = pyrnn.torch.GRU(8, 16, bidirectional=True)
    y, h = layer(torch.ones(5, 3, 8))  # (T, N, I) -> (T, N, 2*H), (2, N, H)
    """


_OURS: dict[type[nn.Module], type[_Ours]] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}


def accelerate(module: ModuleT, fallback: bool = False) -> ModuleT:
    """Every nn.RNN, nn.LSTM and nn.GRU in a module, itself too, becomes ours: in place, with its own parameters, hooks
    and state dict. Subclasses and parametrised modules are left as they are. The module, for convenience.

    fallback  what the kernels cannot do (see `RNN`) is left to torch's own implementation; else it is a RuntimeError.
              For second derivatives it is torch's too. It can be changed by another call.

    TypeError for what is no module, a warning where there is nothing to change.

        model = pyrnn.torch.accelerate(model)
    """
    if not isinstance(module, nn.Module):
        hint = ", such as a state dict is loaded into" * isinstance(module, Mapping)
        raise TypeError(f"accelerate: module is {shown(module)}, expected a torch.nn.Module{hint}")
    fallback = boolean("accelerate", "fallback", fallback)
    parts = [part for part in module.modules() if type(part) in _OURS or type(part) in _OURS.values()]
    for part in parts:
        part.__class__ = _OURS.get(type(part), type(part))
        cast(_Ours, part).fallback = fallback
    if not parts:
        what = f"{type(module).__name__} has no nn.RNN, nn.LSTM or nn.GRU (subclasses and parametrised ones are left)"
        warnings.warn(f"accelerate: {what}, and is as it was", stacklevel=2)
    return module
