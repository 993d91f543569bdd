"""`python -m bench` and `python -m pyrnn.bench`."""

from . import run

run()
