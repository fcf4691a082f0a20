"""SIGKILL while a snapshot is written: the next start finds a whole one or none, and the same states either way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from infra.embedded import in_memory, open_ledger
from infra.streams.records import read_lines
from ledger.snapshot import hash_of_states
from tests.chaos.test_kill import mixed_records

# The child: writes snapshots again and again as it ingests, and dies before or after the store takes one of its parts.
CHILD: Final = """
import os, signal, sys
from infra.embedded import open_ledger
from infra.snapshots import Snapshots
from infra.streams.records import read_lines
with open_ledger(sys.argv[2]) as shard:
    shard.snapshots = Snapshots(shard, every=40)
    shard.listeners[:] = [shard.snapshots.follow]
    left, put = int(sys.argv[3]), shard.store.put_snapshot_part
    def dying(*part):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        put(*part)
    shard.store.put_snapshot_part = dying
    for _ in shard.ingest(read_lines("records", open(sys.argv[1], "rb")), batch_size=20):
        pass
"""


@pytest.mark.parametrize("part", [1, 2, 3, 4, 5, 6])
def test_a_snapshot_cut_off_is_none(tmp_path: Path, part: int) -> None:
    lines = mixed_records(11)[:600]
    source = tmp_path / "records.jsonl"
    source.write_text("\n".join(lines) + "\n")
    child = subprocess.run([sys.executable, "-c", CHILD, source, tmp_path / "l.db", str(part)], check=False)
    assert child.returncode == -signal.SIGKILL

    with source.open("rb") as stream, open_ledger(tmp_path / "l.db") as shard:
        # Each snapshot has three parts: states, accounts, and what makes it whole, written last.
        assert (shard.notice, bool(shard.snapshots.position)) == (None, part > 3)
        list(shard.ingest(read_lines("records", stream)))
        whole = in_memory()
        stream.seek(0)
        list(whole.ingest(read_lines("records", stream), batch_size=20))
        assert shard.root == whole.root
        assert hash_of_states(shard.house) == hash_of_states(whole.house)
        shard.snapshots.take()
    with open_ledger(tmp_path / "l.db") as shard:
        assert (shard.notice, shard.snapshots.position) == (None, whole.house.position)
        assert hash_of_states(shard.house) == hash_of_states(whole.house)
