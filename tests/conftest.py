"""Fixtures that several test files use, threads that share small work too, and what CI says of skipped tests."""

import collections
import os
import signal

import numpy as np
import pytest
from skips import RUNS

os.environ.setdefault("PYRNN_WAKE", "always")  # before pyrnn is imported; a test's calls are small and far between
# Processes started here inherit what a shell in the background, or nohup, has set.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_torch_thread():
    """torch's threads spin beside ours on small calls."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items):
    """What waits for the runs on lower instruction sets comes late, but before tests that need the CPUs to themselves.

    A run that has test_isa.py alone has it at its end.
    """
    waiting = [item for item in items if item.originalname == "test_parity_and_same_bits"]
    others = [item for item in items if item not in waiting]
    place = next((k for k, item in enumerate(others) if item.path.name == "test_threads.py"), len(others))
    items[:] = others[:place] + waiting + others[place:]


def pytest_report_header():
    return f"numpy {np.__version__}"


def skipped(config):
    """The reports of skipped tests and files."""
    return config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])


def unlisted(config):
    """Those that tests/skips.py does not list for the run that PYRNN_SKIPS names."""
    if "PYRNN_SKIPS" not in os.environ:
        return []
    listed = RUNS[os.environ["PYRNN_SKIPS"]]
    return [report for report in skipped(config) if not any(words in report.longrepr[2] for words in listed)]


def pytest_sessionfinish(session):
    if session.exitstatus == pytest.ExitCode.OK and unlisted(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if "PYRNN_SKIPS" not in os.environ:
        return
    reasons = collections.Counter(report.longrepr[2] for report in skipped(config))
    terminalreporter.section("skipped tests and files")
    terminalreporter.line(f"{reasons.total()} in all")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} {reason}")
    for report in unlisted(config):
        terminalreporter.line(f"NOT LISTED in tests/skips.py: {report.nodeid}", red=True)
