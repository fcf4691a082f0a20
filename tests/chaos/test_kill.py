"""SIGKILL at random moments: the same records from the start end in the same log; nothing acknowledged is lost."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from infra.embedded import open_ledger
from infra.replay import replay_ledger
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue

SEED: Final = 20190924
RECORDS: Final = 3_000
KILLS: Final = 12

# The child: ingests a file and says, after each commit, how far the ledger is.
CHILD: Final = """
import sys
from infra.embedded import open_ledger
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
with open_ledger(sys.argv[2], venue=SimulatedVenue()) as shard:
    shard.listeners.append(lambda _: print(shard.frontier.size, flush=True))
    for _ in shard.ingest(read_lines("records", open(sys.argv[1], "rb")), batch_size=int(sys.argv[3])):
        pass
print("done", flush=True)
"""


def record(kind: str, name: str, second: int, /, **fields: str) -> str:
    minutes, seconds = divmod(second // 4, 60)
    hours, minutes = divmod(minutes, 60)
    at = f"2019-09-24T{hours:02d}:{minutes:02d}:{seconds:02d}.{second % 4 * 25:02d}Z"
    return json.dumps({"type": kind, "id": name, "time": at, **fields})


def mixed_records(seed: int) -> list[str]:
    """Accounts that trade through a random walk of one market, with cash, funding, clocks, refusals and bad lines."""
    dice = random.Random(seed)
    lines = [
        record("asset", "usd", 0, asset="USD", quantum="0.01"),
        record("instrument", "i", 0, instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
               tick_size="0.01", lot_size="0.001"),
        record("asset", "btc", 0, asset="BTC", quantum="0.00000001", pricing_instrument="BTC-USD"),
        record("fund-movement", "m", 0, fund="insurance", asset="USD", amount="10000", kind="contribution"),
        record("price", "p", 0, instrument="BTC-USD", price="10000", source="x"),
    ]
    names = [f"A{number}" for number in range(40)]
    for name in names:
        lines.append(record("account", f"open{name}", 0, account=name, margin_mode="cross"))
        lines.append(record("deposit", f"first{name}", 0, account=name, asset="USD",
                            amount=str(dice.randint(200, 3_000))))
    price = 10_000
    for number in range(RECORDS):
        second, name = number, dice.choice(names)
        match dice.choices(["price", "fill", "deposit", "withdrawal", "funding", "clock", "bad"],
                           [40, 40, 8, 4, 2, 4, 2])[0]:
            case "price":
                price = max(2_000, price + dice.randint(-160, 150))
                lines.append(record("price", f"p{number}", second, instrument="BTC-USD", price=str(price), source="x"))
            case "fill":
                lines.append(record(
                    "fill", f"f{number}", second, account=name, trade_id=f"t{number}", instrument="BTC-USD",
                    side=dice.choice(["buy", "sell"]), size=f"0.{dice.randint(1, 400):03d}", price=str(price),
                    fee="0.1", margin_mode=dice.choice(["cross", "cross", "isolated"])))
            case "deposit":
                lines.append(record("deposit", f"d{number}", second, account=name, asset=dice.choice(["USD", "BTC"]),
                                    amount=f"0.{dice.randint(1, 99):02d}"))
            case "withdrawal":
                lines.append(record("withdrawal", f"w{number}", second, account=name, asset="USD",
                                    amount=str(dice.randint(1, 2_000))))
            case "funding":
                lines.append(record("funding", f"u{number}", second, instrument="BTC-USD", rate="0.0001"))
            case "clock":
                lines.append(record("clock", f"c{number}", second))
            case _:
                lines.append(dice.choice(["{", record("deposit", "usd", second, account=name, asset="USD", amount="1"),
                                          record("deposit", f"x{number}", second, account="nobody", asset="USD",
                                                 amount="1")]))
    return lines


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    path.write_text("\n".join(mixed_records(SEED)) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(records: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The root of a run that nothing disturbed."""
    with open_ledger(tmp_path_factory.mktemp("undisturbed") / "ledger.db", venue=SimulatedVenue()) as shard:
        with records.open("rb") as stream:
            list(shard.ingest(read_lines("records", stream)))
        assert shard.is_balanced()
        return shard.root


def offer(records: Path, ledger: Path, batch: int, *, kill_after: float | None) -> tuple[int, bool]:
    """Offer all records; the last position that the child reported as durable, and whether it came to the end."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(records), str(ledger), str(batch)], stdout=subprocess.PIPE,
                          text=True) as child:
        if kill_after is not None:
            # The clock starts with the first commit (or the end), so that kills fall into the work and not before it.
            first = child.stdout.readline() if child.stdout else ""
            time.sleep(kill_after)
            child.send_signal(signal.SIGKILL)
        else:
            first = ""
        said = first.split() + (child.stdout.read().split() if child.stdout else [])
    return max((int(word) for word in said if word.isdigit()), default=0), "done" in said


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_killed_at_random_moments_and_offered_the_same_records_the_log_is_that_of_an_undisturbed_run(
        batch: int, records: Path, undisturbed: bytes, tmp_path: Path) -> None:
    dice, ledger, interrupted = random.Random(SEED + batch), tmp_path / "ledger.db", 0
    for _ in range(KILLS // 3):
        durable, finished = offer(records, ledger, batch, kill_after=dice.uniform(0, 0.8))
        interrupted += not finished
        with open_ledger(ledger, venue=SimulatedVenue()) as shard:
            assert shard.house.position >= durable
    offer(records, ledger, batch, kill_after=None)

    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        assert undisturbed == shard.root
        assert shard.is_balanced()
    assert interrupted > 0
    assert [] == replay_ledger(ledger).differences
