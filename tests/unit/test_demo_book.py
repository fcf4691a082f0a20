"""The demo's book: the same on every run, two sides to every trade, sizes in lots, accounts that open sound."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path

from infra.demo.book import MARKETS, OPENING, SOURCE, book
from infra.demo.run import CANDLES, START
from infra.embedded import in_memory
from infra.streams.candles import read_candles
from infra.streams.records import Delivered, open_input
from ledger.amounts import NANOSECONDS, exact, is_multiple
from ledger.commands import PostFill
from ledger.events import FillPosted, Recorded

SEED = 20190924
ACCOUNTS = 60
UNTIL = START + 3 * 3_600 * NANOSECONDS
LOTS = {market.instrument: market.lot for market in MARKETS}

# What another process prints of the same records.
PRINT_HASH = "from tests.unit.test_demo_book import hash_of; print(hash_of())"


def candles() -> Iterator[Delivered]:
    """The first three hours."""
    with open_input(str(CANDLES)) as stream:
        for delivered in read_candles("candles", stream):
            if delivered.command is not None and delivered.command.time >= UNTIL:
                return
            yield delivered


def records_of(seed: int = SEED) -> list[Delivered]:
    return list(book(seed, ACCOUNTS, candles()))


records = cache(records_of)


def hash_of() -> str:
    return sha256(repr(records()).encode()).hexdigest()


def fills() -> list[PostFill]:
    return [delivered.command for delivered in records() if isinstance(delivered.command, PostFill)]


def test_the_same_seed_gives_the_same_records() -> None:
    assert records() == records_of()


def test_another_seed_gives_other_records() -> None:
    assert records() != records_of(SEED + 1)


def test_the_records_do_not_depend_on_the_decimal_context() -> None:
    with exact():
        inside = records_of()

    assert records() == inside


def test_the_records_do_not_depend_on_the_order_of_hashes() -> None:
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", PRINT_HASH], cwd=root, env={**os.environ, "PYTHONHASHSEED": "4711"},
                             capture_output=True, text=True, check=True).stdout

    assert hash_of() == printed.strip()


def test_a_record_of_the_book_stands_after_the_marks_of_its_time_and_before_the_next() -> None:
    times = [(delivered.command.time, delivered.place.source == SOURCE) for delivered in records()
             # A deposit may be one that is sent again, with the time that it had.
             if delivered.command is not None and delivered.command.TYPE not in ("deposit", "clock")]

    assert sorted(times) == times


def test_lines_of_the_book_are_numbered_without_a_gap() -> None:
    lines = [delivered.place.line for delivered in records() if delivered.place.source == SOURCE]

    assert list(range(1, len(lines) + 1)) == lines


def test_ids_are_used_once_but_for_the_slips() -> None:
    ids = [delivered.command.id for delivered in records()
           if delivered.place.source == SOURCE and delivered.command is not None]

    # Within three hours one deposit is sent twice.
    assert len(ids) - 1 == len(set(ids))


def test_the_two_sides_of_every_trade_meet() -> None:
    trades: defaultdict[str, list[PostFill]] = defaultdict(list)
    for fill in fills():
        trades[fill.trade_id].append(fill)

    assert len(trades) > 30
    for taker, maker in trades.values():
        assert {"buy", "sell"} == {taker.side, maker.side}
        assert (taker.instrument, taker.size, taker.price, taker.time) == (
            maker.instrument, maker.size, maker.price, maker.time)
        assert (False, True) == (taker.account.startswith("LP-"), maker.account.startswith("LP-"))
        assert ("taker", "maker") == (taker.liquidity, maker.liquidity)
        assert taker.fee > 0 >= maker.fee


def test_sizes_are_multiples_of_the_lot() -> None:
    assert [] == [fill for fill in fills() if not is_multiple(fill.size, LOTS[fill.instrument])]


def test_some_positions_are_isolated_with_a_leverage() -> None:
    isolated = [fill for fill in fills() if fill.margin_mode == "isolated"]

    assert isolated
    assert all(fill.leverage is not None and fill.leverage >= 2 for fill in isolated)


def test_accounts_open_sound() -> None:
    events: list[Recorded] = []
    shard = in_memory()
    shard.listeners.append(events.extend)

    kinds = {outcome.kind for outcome in shard.ingest(records())}

    opening = [recorded.event for recorded in events
               if isinstance(recorded.event, FillPosted) and (recorded.event.order_id or "").startswith(OPENING)]
    assert {"applied", "duplicate"} == kinds
    assert len(opening) > 20
    assert [] == [fill for fill in opening if fill.flags]
    assert {Decimal(0)} == set(shard.house.house.sizes.values())
    assert shard.is_balanced()
