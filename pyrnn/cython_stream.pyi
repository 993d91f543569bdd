"""The part of cython_stream.pyx that Python sees."""

from ._arrays import Array
from .stream import Stream

def repeat(stream: Stream[Array] | Stream[tuple[Array, Array]], x: Array, y: Array, count: int) -> None: ...
