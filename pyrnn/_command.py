"""Whether this process is the command line, and its Ctrl-C until it runs. The first import of the package.

The command `pyrnn` and `python -m pyrnn` import the package before any code of theirs, and end in a line, never in a
traceback.
"""

import os
import sys

_before = None  # what Ctrl-C did, where it does something else for now


def is_command_line() -> bool:
    """Whether this process is one of the two; to be asked while the package is imported."""
    if sys.argv[:1] == ["-m"]:  # as long as Python looks for the module
        return "pyrnn" in sys.orig_argv[: sys.orig_argv.index("-m") + 2] if "-m" in sys.orig_argv else False
    return os.path.basename(sys.argv[0] if sys.argv else "") == "pyrnn"


def interruptible() -> None:
    """From here Ctrl-C is a KeyboardInterrupt again, which cleans up."""
    if _before is not None:
        import signal

        signal.signal(signal.SIGINT, _before)


if is_command_line():
    import signal
    import threading

    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # not where it is ignored
        _before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once and without a word, as the system does it
