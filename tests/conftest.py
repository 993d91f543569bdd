"""Fixtures that several test files use, and threads that share small work too."""

import os

import numpy as np
import pytest

os.environ["PYRNN_WAKE"] = "always"  # before pyrnn is imported; a test's calls are small and far between


@pytest.fixture
def rng():
    return np.random.default_rng(0)
