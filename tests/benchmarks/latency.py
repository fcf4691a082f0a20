"""Single records: how long one waits, from bytes to durable, when each is a batch of its own.

Beside it, writing and syncing a bare block of 4 KiB, block by block between the records, so that both meet the same
disk. It never measures a queue: the next record comes when the last is done.
"""

from __future__ import annotations

import time

from tests.benchmarks.figures import Sample
from tests.benchmarks.machine import bare_file, percentile
from tests.benchmarks.stage import Stage, require_applied


def single_records(stage: Stage) -> Sample:
    """Seconds at the 99th percentile."""
    shard = stage.shard
    stage.tell(f"{stage.scale.singles:,} records, one at a time")
    times, bare = [], []
    with bare_file(stage.folder) as write:
        for raw in stage.mix.take(stage.scale.singles):
            started = time.perf_counter()
            outcomes = shard.apply(list(stage.deliver((raw,))))
            times.append(time.perf_counter() - started)
            require_applied(outcomes)
            bare.append(write())
    synced = percentile(bare, 99)
    return Sample(percentile(times, 99), {
        "bound: 2 x bare fdatasync p99 + 1 ms": 2 * synced + 0.001, "bare 4 KiB fdatasync, p99": synced},
                  {"p50": percentile(times, 50), "bare p50": percentile(bare, 50), "records": len(times)})
