from .stream import Stream
from ._arrays import Array

def repeat(stream: Stream[Array] | Stream[tuple[Array, Array]], x: Array, y: Array, count: int) -> None: ...
