"""The machine: what a figure was measured on, and how fast its disk makes 4 KiB durable.

It never measures the ledger.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

BLOCK: Final = b"\xa5" * 4_096


def facts(folder: Path) -> dict[str, Any]:
    """The machine in words, and the median of 200 writes of 4 KiB with fdatasync on the disk that is used."""
    with bare_file(folder) as write:
        synced = median(write() for _ in range(200))
    return {"machine": f"{_processor()}, {platform.system()} {platform.release()}", "cores": os.cpu_count(),
            "python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "disk": str(folder),
            "fdatasync_median_seconds": synced}


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


class _Writer:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __call__(self) -> float:
        """Append 4 KiB and make them durable; the seconds that took."""
        started = time.perf_counter()
        os.write(self.descriptor, BLOCK)
        os.fdatasync(self.descriptor)
        return time.perf_counter() - started


@contextmanager
def bare_file(folder: Path) -> Iterator[_Writer]:
    """A file beside the ledger's, to write bare blocks to."""
    path = folder / "bare.bin"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        yield _Writer(descriptor)
    finally:
        os.close(descriptor)
        path.unlink()


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
