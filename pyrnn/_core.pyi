"""Types of the compiled module. Its submodules, one per op, are written as classes of static functions here."""

# ruff: noqa: N801

from collections.abc import Sequence
from typing import Any, ClassVar, final, overload

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Matrix = Array | tuple[Array, Array]  # of fewer bits: uint16, or int8 and a scale for each row
Entries = Sequence[Matrix | None]  # weights or a state, None where absent
State = tuple[Array, ...]
Result = tuple[Array, State]

def isa() -> str: ...
def isas() -> list[str]: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def quota_cpus(groups: str, mount: str) -> int: ...
def copied(array: Array) -> Array: ...
def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array: ...
def fma_peak(dtype: str, threads: int) -> float: ...
def bandwidth(bytes: int, threads: int) -> float: ...

@final
class Pullback:
    @overload
    def __call__(self, dy: Array | None, dstate: Entries | None, grads: Entries) -> Result: ...
    @overload
    def __call__(
        self, dy: Array | None, dstate: Entries | None, grads: Entries, need_dx: bool = True
    ) -> tuple[Array | None, State]: ...

@final
class PackedLinear:
    def forward(self, x: Array) -> Array: ...

class WindowedLinear:
    def forward(self, x: Array) -> Array: ...
    def continued(self, past: Array, x: Array) -> tuple[Array, Array]: ...

class Stream:
    def step(self, x: Array) -> Array: ...
    def run(self, x: Array) -> Array: ...
    def step_from(self, x: Array, state: Sequence[Array]) -> Result: ...
    def forward(
        self, x: Array, state: Entries | None,
        *, ids: Array | None = None, lengths: Array | None = None, reset: Array | None = None, reverse: bool = False,
        out: Array | None = None,
    ) -> Result: ...  # fmt: skip
    def get_state(self) -> State: ...
    def set_state(self, state: Sequence[Array]) -> None: ...
    def take(self, rows: Array) -> Stream: ...
    def reset(self, rows: Array | None = None) -> None: ...

@final
class ConvolutionStream:
    def step(self, x: Array) -> Array | None: ...
    def run(self, x: Array) -> Array: ...
    def get_state(self) -> tuple[Array, int]: ...
    def set_state(self, state: tuple[Array, int]) -> None: ...
    def take(self, rows: Array) -> ConvolutionStream: ...
    def reset(self, rows: Array | None = None) -> None: ...

class Cell:  # rnn, lstm and so on; some take options of their own
    WEIGHTS: ClassVar[tuple[str, ...]]
    SHAPES: ClassVar[dict[str, str]]
    STATES: ClassVar[tuple[str, ...]]
    GATES: ClassVar[str]
    @staticmethod
    def forward(
        x: Array, state: Entries | None, weights: Entries,
        *, ids: Array | None = None, lengths: Array | None = None, reset: Array | None = None, reverse: bool = False,
        out: Array | None = None, **options: Any
    ) -> Result: ...  # fmt: skip
    @staticmethod
    def vjp(
        x: Array, state: Entries | None, weights: Entries,
        *, ids: Array | None = None, lengths: Array | None = None, reset: Array | None = None, reverse: bool = False,
        checkpoint_every: int | None = None, per_row: bool = False, out: Array | None = None, **options: Any
    ) -> tuple[Result, Pullback]: ...  # fmt: skip
    @staticmethod
    def stream(layers: Sequence[Entries], batch: int, **options: Any) -> Stream: ...

def __getattr__(name: str) -> type[Cell]: ...

class attention:
    OPTIONS: ClassVar[tuple[str, ...]]
    @staticmethod
    def forward(
        query: Array, key: Array, value: Array, mask: Array | None = None, **options: Any
    ) -> tuple[Array, Array]: ...
    @staticmethod
    def backward(
        dout: Array, query: Array, key: Array, value: Array, out: Array, stats: Array, mask: Array | None = None,
        **options: Any
    ) -> tuple[Array, Array, Array]: ...  # fmt: skip

class additive_attention:
    @staticmethod
    def forward(
        query: Array, key: Array, value: Array, score: Array, lengths: Array | None = None
    ) -> tuple[Array, Array]: ...
    @staticmethod
    def backward(
        dout: Array, query: Array, key: Array, value: Array, score: Array, weights: Array, dscore: Array,
        lengths: Array | None = None,
    ) -> tuple[Array, Array, Array]: ...  # fmt: skip

class linear:
    @staticmethod
    def forward(x: Array, weight: Matrix, bias: Array | None, *, precision: str = "float32") -> Array: ...
    @staticmethod
    def backward(
        dy: Array, x: Array, weight: Array, dweight: Array, dbias: Array | None, *, precision: str = "float32",
        after_relu: bool = False,
    ) -> Array: ...  # fmt: skip
    @staticmethod
    def packed(weight: Matrix, bias: Array | None, activation: str = "identity") -> PackedLinear: ...
    @staticmethod
    def windowed(
        weight: Array, bias: Array | None, activation: str = "identity", stride: int = 1, dilation: int = 1,
        before: int = 0, after: int = 0,
    ) -> WindowedLinear: ...  # fmt: skip
    @staticmethod
    def activated(x: Array, activation: str) -> Array: ...

class embedding:
    @staticmethod
    def forward(ids: Array, weight: Matrix) -> Array: ...
    @staticmethod
    def backward(dy: Array, ids: Array, dweight: Array) -> None: ...

class conv1d:
    @staticmethod
    def forward(
        x: Array, weight: Array, bias: Array | None,
        *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0, after: int = 0,
        lengths: Array | None = None,
    ) -> Array: ...  # fmt: skip
    @staticmethod
    def backward(
        dy: Array, x: Array, weight: Array, dweight: Array, dbias: Array | None,
        *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0, after: int = 0,
        lengths: Array | None = None,
    ) -> Array: ...  # fmt: skip
    @staticmethod
    def stream(
        weight: Array, bias: Array | None, batch: int,
        *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0,
    ) -> ConvolutionStream: ...  # fmt: skip

class cross_entropy:
    @staticmethod
    def forward(logits: Array, targets: Array, weights: Array | None = None) -> tuple[float, Array]: ...

class layer_norm:
    @staticmethod
    def forward(x: Array, weight: Array, bias: Array | None, eps: float) -> Array: ...
    @staticmethod
    def record(x: Array, weight: Array, bias: Array | None, eps: float) -> tuple[Array, Array, Array]: ...
    @staticmethod
    def backward(dy: Array, normal: Array, inverse: Array, weight: Array) -> tuple[Array, Array, Array]: ...

class ctc:
    @staticmethod
    def forward(
        logits: Array, targets: Array, target_lengths: Array, lengths: Array | None = None, blank: int = 0
    ) -> tuple[Array, Array]: ...

class crf:
    @staticmethod
    def forward(
        scores: Array, tags: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
    ) -> tuple[Array, Array, Array, Array, Array]: ...
    @staticmethod
    def marginals(
        scores: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
    ) -> tuple[Array, Array]: ...
    @staticmethod
    def decode(
        scores: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
    ) -> tuple[Array, Array]: ...

class hopfield:
    @staticmethod
    def pack(on: Array) -> Array: ...
    @staticmethod
    def hebbian(bits: Array, negative: Array, dtype: str = "float32") -> Array: ...
    @staticmethod
    def overlaps(bits: Array, negative: Array, state: Array) -> Array: ...
    @staticmethod
    def pattern_fields(bits: Array, negative: Array, overlaps: Array, state: Array) -> Array: ...
    @staticmethod
    def pattern_sweep(
        bits: Array, negative: Array, overlaps: Array, state: Array, order: Array, threshold: Array,
        external: Array | None = None, off: int = -1,
    ) -> Array: ...  # fmt: skip
    @staticmethod
    def dense_sweep(
        bits: Array, negative: Array, overlaps: Array, state: Array, order: Array, gap: Array,
        external: Array | None = None, relative: bool = False,
    ) -> Array: ...  # fmt: skip
    @staticmethod
    def fields(weights: Array, state: Array) -> Array: ...
    @staticmethod
    def sweep(
        weights: Array, fields: Array, state: Array, order: Array, threshold: Array, external: Array | None = None,
        off: int = -1,
    ) -> Array: ...  # fmt: skip

class adam:
    @staticmethod
    def step(
        params: Array, grads: Array, m: Array, v: Array,
        *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool = False,
    ) -> None: ...  # fmt: skip

class sgd:
    @staticmethod
    def step(
        params: Array, grads: Array, velocity: Array | None,
        *, lr: float, momentum: float, weight_decay: float, nesterov: bool,
    ) -> None: ...  # fmt: skip

class rmsprop:
    @staticmethod
    def step(
        params: Array, grads: Array, square: Array, velocity: Array | None,
        *, lr: float, keep: float, add: float, eps: float, weight_decay: float, momentum: float,
    ) -> None: ...  # fmt: skip

class norm:
    @staticmethod
    def l2(flat: Array) -> float: ...
