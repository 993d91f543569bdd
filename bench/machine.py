"""The machine's limits, measured in the same run as everything else: multiply-adds per second and reading memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from pyrnn import _core, kernels

SIZES = (1 << 15, 1 << 19, 1 << 23, 1 << 28)  # bytes per thread: for most CPUs first, second, third cache and memory


class Machine:
    """Peak and bandwidth with so many threads.

    Other work on the machine disturbs the probes too, so they are repeated with every row, and the best value so far
    counts: what the machine can do.
    """

    def __init__(self, threads: int, dtype: str):
        for probe in ("fma_peak", "bandwidth"):
            if not hasattr(_core, probe):
                raise SystemExit(f"the compiled module has no {probe}(): build pyrnn again")
        self.threads, self.dtype = threads, dtype
        self.name, self.isa = cpu_name(), kernels.isa()
        self.peaks: list[float] = []
        self._bandwidth: dict[int, float] = {}
        for size in self.sizes:
            self.measure(size)

    @property
    def sizes(self) -> list[int]:
        return [size * self.threads for size in SIZES]

    def measure(self, size: int) -> None:
        """Probe the peak, and the bandwidth at this size."""
        self.peaks.append(probe(lambda: _core.fma_peak(self.dtype, self.threads)))
        size = rounded(size)
        value = probe(lambda: _core.bandwidth(size, self.threads))
        self._bandwidth[size] = max(value, self._bandwidth.get(size, 0))

    @property
    def peak(self) -> float:
        """GFLOP/s of multiply-adds in registers."""
        return max(self.peaks)

    def bandwidth(self, size: int) -> float:
        """GB/s of reading so many bytes again and again, as measured at the nearest power of two."""
        return self._bandwidth[rounded(size)]

    def limit(self, flops: float, size: float, footprint: int) -> tuple[str, float]:
        """What binds, "FMA" or "mem", and the seconds it takes: `flops`, or moving `size` bytes of a `footprint`."""
        return max(
            ("FMA", flops / self.peak / 1e9), ("mem", size / self.bandwidth(footprint) / 1e9), key=lambda x: x[1]
        )


def rounded(size: int) -> int:
    return 1 << max(12, (size * 2 // 3).bit_length())


def probe(call: Callable[[], float], seconds: float = 0.05) -> float:
    """The largest value of several calls."""
    end = time.perf_counter() + seconds
    value = call()
    while time.perf_counter() < end:
        value = max(value, call())
    return value


def cpus() -> int:
    """The CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU's own name, or what the platform knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
