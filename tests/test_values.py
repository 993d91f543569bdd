"""Random calls of the public functions against the plain model of tests/plain.py; fuzz_calls.py makes many more."""

import numpy as np
import pytest
from cells import cases
from value_checks import CHECKS

COUNTS = {  # 20 of the others
    "check_recurrent": 30,
    "check_stream": 60,
    "check_attention": 100,
    "check_multihead_attention": 40,
    "check_losses": 60,
    "check_optimizers": 40,
    "check_hopfield": 100,
    "check_dense_hopfield": 60,
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_values(check):
    for seed in range(cases(COUNTS.get(check.__name__, 20))):
        try:
            check(np.random.default_rng([seed, 13]))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
