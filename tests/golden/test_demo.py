"""The demo over the whole three days: what a risk desk would expect of them, and one root however it was fed."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console
from typer.testing import CliRunner

from infra.cli import app
from infra.demo.book import VENUE
from infra.demo.run import Tally, records, run_demo
from infra.embedded import LedgerReader, in_memory, open_ledger
from ledger.errors import LedgerUnreadable
from ledger.events import (
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    RecordRejected,
)
from projections.merkle import root_of

SEED = 20190924
ACCOUNTS = 200
# Records after which the first run was interrupted, and up to which it is compared with another batch size: the
# second lies behind the worst of the fall.
INTERRUPTED_AT = 12_000
COMPARED_AT = 56_000


class Demo(NamedTuple):
    """One run: the ledger, what it printed, and its events counted."""

    ledger: Path
    printed: str
    tally: Tally


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A run that was interrupted, and then run again as a user would."""
    ledger = tmp_path_factory.mktemp("demo") / "demo-ledger.db"
    with open_ledger(ledger, venue=VENUE) as shard:
        for _ in shard.ingest(islice(records(SEED, ACCOUNTS), INTERRUPTED_AT), batch_size=997):
            pass
    printed = StringIO()
    run_demo(ledger, accounts=ACCOUNTS, seed=SEED, console=Console(file=printed, width=120))
    tally = Tally()
    with LedgerReader(ledger) as reader:
        tally.follow(reader.log())
    return Demo(ledger, printed.getvalue(), tally)


def printed_commands(demo: Demo) -> Iterator[list[str]]:
    for line in demo.printed.splitlines():
        if "clearing " in line and "--ledger" in line:
            yield line.split()[1:]


def test_calls_are_issued_and_end_in_every_usual_way(demo: Demo) -> None:
    kinds = demo.tally.kinds

    assert kinds[MarginCallIssued] >= 20
    assert kinds[MarginCallMet] >= 10
    assert kinds[MarginCallExpired] + kinds[MarginCallSuperseded] >= 3
    assert demo.tally.open_calls == 0


def test_liquidations_happen_mostly_in_the_hours_of_the_fall(demo: Demo) -> None:
    times = [time for _, time in demo.tally.liquidations.values()]
    fall = [time for time in times if 18 * 60 <= time // 60_000_000_000 % 1_440 < 20 * 60]

    assert demo.tally.kinds[LiquidationStarted] == len(times) >= 20
    assert len(fall) > len(times) / 2


def test_most_accounts_survive(demo: Demo) -> None:
    liquidated = {account for account, _ in demo.tally.liquidations.values()}

    assert 5 <= len(liquidated) <= ACCOUNTS / 3


def test_the_fund_stands_and_every_loss_is_covered(demo: Demo) -> None:
    assert demo.tally.claimed == demo.tally.covered < demo.tally.contributed


def test_bad_records_are_rejected_and_the_stream_goes_on(demo: Demo) -> None:
    assert demo.tally.kinds[RecordRejected] >= 15


def test_the_summary_says_that_it_is_balanced(demo: Demo) -> None:
    lines = {" ".join(line.split()) for line in demo.printed.splitlines()}

    assert "balanced yes" in lines
    assert "house sizes zero in every market" in lines
    assert "sum 0 0 0" in lines


def test_the_root_does_not_depend_on_batches_store_or_interruption(demo: Demo) -> None:
    shard = in_memory(venue=VENUE)
    for _ in shard.ingest(islice(records(SEED, ACCOUNTS), COMPARED_AT), batch_size=61):
        pass

    with LedgerReader(demo.ledger) as reader:
        hashes = b"".join(row[0] for row in reader.connection.cursor().execute(
            "SELECT hashes FROM merkle_leaves ORDER BY first_position"))
    first = (hashes[at:at + 32] for at in range(0, 32 * shard.house.position, 32))
    assert root_of(first) == shard.root


def test_the_commands_that_it_ends_with_work_as_printed(demo: Demo) -> None:
    commands = list(printed_commands(demo))

    assert ["calls", "account", "replay"] == [words[0] for words in commands]
    # The third takes as long as the demo; tests of replay have ledgers of their own.
    for words in commands[:2]:
        answer = CliRunner().invoke(app, words)
        assert (0, False) == (answer.exit_code, "No margin calls" in answer.output), answer.output


def test_another_ledger_is_not_taken_for_this_demo(tmp_path: Path) -> None:
    ledger = tmp_path / "other.db"
    with open_ledger(ledger) as shard:
        shard.apply(list(islice(records(SEED + 1, 1), 10)))

    with pytest.raises(LedgerUnreadable, match="holds another ledger"):
        run_demo(ledger, accounts=1, seed=SEED, console=Console(file=StringIO()))
