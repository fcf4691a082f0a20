"""Several shards over several workers on PostgreSQL: owned by one at a time, taken over when their worker dies."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from infra.embedded import open_reader
from infra.replay import replay_ledger
from infra.streams.parts import ShardId, shards_of
from infra.streams.topics import OUTPUTS
from ledger.errors import LedgerUnreadable
from tests.shards import new_shard
from tests.streams.clients import Cluster, Process, position_of, wait_until
from tests.streams.test_service import expected_of, stream

PARTITIONS = 2
SHARDS = shards_of(PARTITIONS)


@pytest.fixture
def two_shards(kafka: str) -> Iterator[Cluster]:
    """A service's topics with two shards."""
    with Cluster(kafka, f"t{uuid.uuid4().hex[:8]}.", partitions=PARTITIONS) as made:
        yield made


@pytest.fixture
def ledger(postgres: str) -> Iterator[str]:
    """Where the shards' ledgers are, with `{shard}` for the number; removed afterwards."""
    stem = f"test_{uuid.uuid4().hex[:8]}_"
    with ExitStack() as stack:
        shards = [stack.enter_context(new_shard(postgres, f"{stem}{shard}")) for shard in SHARDS]
        yield shards[0].url.replace(shards[0].shard, f"{stem}{{shard}}")


def address(ledger: str, shard: ShardId) -> str:
    return ledger.replace("{shard}", str(shard))


def progress(ledger: str) -> tuple[int, bool]:
    """Records read by all shards, and whether everything in their logs is published."""
    read, is_published = 0, True
    for shard in SHARDS:
        try:
            with open_reader(address(ledger, shard)) as reader:
                rows = reader.ask("SELECT COALESCE(SUM(next_offset), 0) FROM stream_position "
                                  "WHERE source LIKE '%accounts.v1'")
                published = reader.ask("SELECT COALESCE(MAX(position), 0) FROM relay_position")
                read += int(rows[0][0])
                is_published &= int(published[0][0]) == reader.end() > 0
        except LedgerUnreadable:
            is_published = False
    return read, is_published


def test_workers_that_die_are_replaced_and_neither_side_can_tell(two_shards: Cluster, ledger: str,
                                                                 tmp_path: Path) -> None:
    """SIGKILL and SIGSTOP of workers while records flow: each output once and in order, logs that replay clean."""
    rows = stream(900)
    of_accounts = sum("account" in row for row in rows)
    dice = random.Random(5)
    logs = iter(tmp_path / f"worker-{number}.log" for number in range(100))

    def start() -> Process:
        return Process(two_shards, "worker", "--ledger", ledger, log=next(logs))

    workers, frozen = [start(), start()], []
    try:
        for at in range(0, len(rows), 240):
            two_shards.send_all(rows[at:at + 240])
            time.sleep(dice.uniform(0.5, 2.0))
            victim = workers.pop(0)
            if at == 480:
                victim.freeze()
                frozen.append(victim)
            else:
                victim.kill()
            workers.append(start())
        for left in frozen:
            left.thaw()
        wait_until(lambda: progress(ledger) == (of_accounts, True), f"{of_accounts} records of accounts are read",
                   log=workers[-1].log)
    finally:
        for process in (*workers, *frozen):
            with suppress(ProcessLookupError):
                process.kill()

    for topic in OUTPUTS:
        wanted = {shard: expected_of(address(ledger, shard), f"shard-{shard}", topic, two_shards.prefix)
                  for shard in SHARDS}
        total = sum(map(len, wanted.values()))
        seen = two_shards.read(topic, until=lambda found, total=total: len(found) >= total)  # type: ignore[misc]
        for shard in SHARDS:
            mine = [row for row in seen if dict(row.headers)["ce_id"].startswith(f"shard-{shard}:".encode())]
            # Over several partitions only the order of each key is told.
            assert sorted(wanted[shard]) == sorted((position_of(row), row.value) for row in mine), topic
            for key in {row.key for row in mine}:
                positions = [position_of(row) for row in mine if row.key == key]
                assert positions == sorted(positions)
    for shard in SHARDS:
        assert [] == replay_ledger(address(ledger, shard)).differences
