"""Damaged files: what random changes make of the bytes of a whole one, and what a reader says of them."""

import time

import numpy as np

SECONDS = 1.0  # that no reader may take, by its processor time


def mutated(whole, count, seed=0):
    """Copies with some of their bytes changed, cut, added and in other places."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            place, length = int(rng.integers(len(content))), int(rng.integers(1, 9))
            what = rng.integers(6)
            if what == 0:
                content[place] ^= 1 << int(rng.integers(8))
            elif what == 1:
                content[place] = int(rng.integers(256))
            elif what == 2:
                del content[place : place + length]
            elif what == 3:
                content[place:place] = rng.bytes(length)
            elif what == 4:
                other = int(rng.integers(len(content)))
                content[place : place + length] = content[other : other + length]
            elif rng.random() < 0.2:
                del content[place:]
            if not content:
                content = bytearray(b"x")
        yield bytes(content)


def told(path, content, read):
    """What the error says that `read` makes of a file with this content, "" where there is none: it names the file."""
    path.write_bytes(content)
    start = time.process_time()
    message = ""
    try:
        read(path)
    except (OSError, ValueError) as error:
        message = str(error)
        assert path.name in message
    assert time.process_time() - start < SECONDS
    return message
