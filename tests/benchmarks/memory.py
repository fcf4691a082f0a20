"""Memory: the peak resident size of a process that runs the demo.

Run as a program it is that process, and prints its own peak in bytes. It never measures the process of the
benchmarks, whose peak the kernel hands on to children as their `ru_maxrss`.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from infra.demo.run import run_demo
from tests.benchmarks.figures import Sample
from tests.benchmarks.stage import Stage

SEED: Final = 20_190_924


def demo_memory(stage: Stage) -> Sample:
    """Peak resident size in MB (10^6 bytes)."""
    accounts = stage.scale.demo_accounts
    stage.tell(f"running the demo with {accounts:,} accounts in a process of its own")
    started = time.perf_counter()
    told = subprocess.run([sys.executable, "-m", "tests.benchmarks.memory", str(stage.folder), str(accounts)],
                          stdout=subprocess.PIPE, text=True, check=True)
    return Sample(int(told.stdout) / 1e6, {}, {"accounts": accounts, "seconds": time.perf_counter() - started})


def peak_bytes() -> int:
    """The peak of this process since its program began."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1_024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as own:
        run_demo(Path(own) / "demo.ledger", accounts=int(sys.argv[2]), seed=SEED, console=Console(file=io.StringIO()))
    print(peak_bytes())
