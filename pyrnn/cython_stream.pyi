"""The part of cython_stream.pyx that Python sees."""

from .core.checks import Array
from .layers.stream import Stream

def repeat(stream: Stream[Array] | Stream[tuple[Array, Array]], x: Array, y: Array, count: int) -> None: ...
