"""Memory: the peak resident size of a process that runs the demo, or where there is none, that ingests the mix.

Run as a program it is that process, and prints its own peak in bytes. It never measures the process of the
benchmarks, whose peak the kernel hands on to children as their `ru_maxrss`.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.benchmarks.figures import Sample
from tests.benchmarks.stage import QUICK, Scale, Stage

DEMO: Final = "infra.demo.run"
SEED: Final = 20_190_924


def demo_memory(stage: Stage) -> Sample:
    """Peak resident size in MB (10^6 bytes)."""
    what = "demo" if find_spec(DEMO) is not None else "mix"
    accounts = stage.scale.demo_accounts
    stage.tell(f"running the {what} with {accounts:,} accounts in a process of its own")
    told = subprocess.run([sys.executable, "-m", "tests.benchmarks.memory", what, str(stage.folder), str(accounts)],
                          stdout=subprocess.PIPE, text=True, check=True)
    return Sample(int(told.stdout) / 1e6, {}, {"of": what, "accounts": accounts})


def peak_bytes() -> int:
    """The peak of this process since its program began."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1_024


def _run(what: str, folder: Path, accounts: int) -> None:
    if what == "demo":
        import_module(DEMO).run_demo(folder / "demo.ledger", accounts=accounts, seed=SEED,
                                     console=Console(file=io.StringIO()))
        return
    scale = Scale(accounts, QUICK.records, 0, 0, 0, accounts)
    with Stage(folder, scale, lambda _: None) as stage:
        for _ in stage.shard.ingest(stage.deliver(stage.mix.take(max(scale.records.values())))):
            pass


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as own:
        _run(sys.argv[1], Path(own), int(sys.argv[3]))
    print(peak_bytes())
