"""The house shard and transfers between shards on a real broker: claims are paid once, money is in one place."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.embedded import LedgerReader
from infra.replay import replay_ledger
from infra.streams.parts import HOUSE, ShardId, shards_of
from infra.streams.topics import OUTCOMES
from ledger.errors import LedgerUnreadable
from ledger.events import (
    FundDrawn,
    FundMoved,
    ShortfallClaimed,
    ShortfallCovered,
    TransferReceived,
    TransferReturned,
    TransferSent,
)
from tests.streams.clients import Cluster, Process, value_of, wait_until
from tests.streams.test_service import asked, record

PARTITIONS = 2
SHARDS = shards_of(PARTITIONS)
NAMES = [f"A{number}" for number in range(8)]
FUND = Decimal(5000)


@pytest.fixture
def two_shards(kafka: str) -> Iterator[Cluster]:
    """A service's topics with two shards and their house."""
    with Cluster(kafka, f"t{uuid.uuid4().hex[:8]}.", partitions=PARTITIONS) as made:
        yield made


class Logs:
    """The events of all shards, as they stand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, shard: ShardId) -> Path:
        return self.folder / f"desk-{shard}.db"

    def events(self, *kinds: type[Any]) -> list[tuple[ShardId, Any]]:
        found: list[tuple[ShardId, Any]] = []
        for shard in SHARDS:
            try:
                with LedgerReader(self.path(shard)) as reader:
                    found += [(shard, recorded.event) for recorded in reader.log() if isinstance(recorded.event, kinds)]
            except LedgerUnreadable:
                continue
        return found

    def is_settled(self, transfers: int) -> bool:
        """Whether every account fell short and was answered, and all collateral that was sent is somewhere."""
        counts = Counter(type(event) for _, event in self.events(
            ShortfallClaimed, ShortfallCovered, TransferSent, TransferReceived, TransferReturned))
        return (counts[ShortfallClaimed] == counts[ShortfallCovered] == len(NAMES)
                and counts[TransferSent] == transfers == counts[TransferReceived] + counts[TransferReturned])


def opening() -> list[dict[str, Any]]:
    """Every account long 1 at 10,000 with 1,000 paid in and 100 to give away, against a maker who has enough."""
    rows = [record("asset", "usd", asset="USD", quantum="0.01"),
            record("instrument", "btc", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
                   tick_size="0.01", lot_size="0.001"),
            record("fund-movement", "m", fund="insurance", asset="USD", amount=str(FUND), kind="contribution"),
            record("price", "p0", instrument="BTC-USD", price="10000", source="feed"),
            record("account", "o-M", account="M", margin_mode="cross", kind="liquidity-provider"),
            record("deposit", "d-M", account="M", asset="USD", amount="1000000")]
    for name in NAMES:
        rows += [record("account", f"o-{name}", account=name, margin_mode="cross"),
                 record("deposit", f"d-{name}", account=name, asset="USD", amount="1100"),
                 *trade("open", name, "buy", "10000")]
    return rows


def trade(trade_id: str, name: str, side: str, price: str) -> list[dict[str, Any]]:
    other = "sell" if side == "buy" else "buy"
    return [record("fill", f"{trade_id}-{name}-{who}", account=account, trade_id=f"{trade_id}-{name}",
                   instrument="BTC-USD", side=how, size="1", price=price)
            for who, account, how in (("taker", name, side), ("maker", "M", other))]


def test_claims_and_transfers_of_shards_survive_every_death(two_shards: Cluster, tmp_path: Path) -> None:
    """SIGKILL of workers while claims and transfers are under way; then nothing is lost, doubled or made up."""
    logs, dice, numbers = Logs(tmp_path), random.Random(3), iter(range(100))

    def start() -> Process:
        return Process(two_shards, "worker", "--ledger", str(tmp_path / "desk-{shard}.db"),
                       log=tmp_path / f"worker-{next(numbers)}.log")

    def other_than(name: str) -> str:
        return dice.choice([account for account in (*NAMES, "M", "nobody") if account != name])

    transfers = [record("transfer", f"t{number}", account=name, to_account=other_than(name), asset="USD", amount="1")
                 for number, name in enumerate(NAMES * 8)]
    ruin = [record("price", "p1", instrument="BTC-USD", price="8000", source="feed"),
            *(row for name in NAMES for row in trade("close", name, "sell", "8000"))]
    two_shards.send_all(opening())
    workers = [start(), start()]
    try:
        # All is given away before it is lost, since nothing leaves an account under liquidation.
        for part, kind, count in ((transfers, TransferSent, 5), (ruin, ShortfallClaimed, 1), ((), FundDrawn, 2)):
            if part is ruin:
                wait_until(lambda: len(logs.events(TransferSent)) == len(transfers), "all transfers are sent")
            two_shards.send_all(part)
            wait_until(lambda kind=kind, count=count: len(logs.events(kind)) >= count,  # type: ignore[misc]
                       f"{count} of {kind}", log=workers[-1].log)
            workers.pop(0).kill()
            workers.append(start())
        wait_until(lambda: logs.is_settled(len(transfers)), "all is settled", log=workers[-1].log)
        wait_until(lambda: [(shard, 0, 0) for shard in SHARDS] == standings(two_shards, tmp_path),
                   "all is read and published", log=workers[-1].log)
        back = two_shards.read(OUTCOMES, until=lambda found: sum(
            value_of(row)["event"] == "transfer-returned" for row in found) == sum(
                row["to_account"] == "nobody" for row in transfers))
    finally:
        for process in workers:
            process.kill()

    require_whole(logs)
    assert {(value_of(row)["to_account"], value_of(row)["outcome"]) for row in back
            if value_of(row)["event"] == "transfer-returned"} == {("nobody", "refused")}
    sent = {event.transfer_id: event for _, event in logs.events(TransferSent)}
    assert {row["id"] for row in transfers} == sent.keys()
    assert sorted(sent) == sorted(event.transfer_id for _, event in logs.events(TransferReceived, TransferReturned))


def standings(cluster: Cluster, folder: Path) -> list[tuple[ShardId, int, int]]:
    """What `clearing status` says of every shard: its name, what it has still to read and to publish."""
    rows = json.loads(asked(cluster, folder, "status", "--json", code=0))
    return [(row["shard"], row["stream_lag"], row["relay_lag"]) for row in rows]


def require_whole(logs: Logs) -> None:
    """The fund paid what it had, once; every ledger follows from its facts; together they are one."""
    claimed = [event for _, event in logs.events(ShortfallClaimed)]
    covered = [event for _, event in logs.events(ShortfallCovered)]
    assert {0, 1} == {shard for shard, _ in logs.events(ShortfallClaimed)}
    assert [HOUSE] == [shard for shard, _ in logs.events(FundMoved)]
    assert FUND == sum(event.covered for event in covered) < sum(event.amount for event in claimed)
    assert Counter((event.claim_id, event.account, event.amount) for _, event in logs.events(FundDrawn)) == Counter(
        (event.claim_id, event.account, event.covered) for event in covered)
    for shard in SHARDS:
        assert [] == replay_ledger(logs.path(shard)).differences
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "reconcile", "--json", *(
            word for shard in SHARDS for word in ("--ledger", str(logs.path(shard))))],
        capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
