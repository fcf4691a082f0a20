"""Laws of the journal over events of any amounts: every event balances by itself, and so does any log of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.amounts import ZERO, exact
from ledger.events import (
    AccountOpened,
    Cause,
    CollateralConverted,
    Deposited,
    Event,
    Evidence,
    FillPosted,
    FundingItem,
    FundingSettled,
    FundMoved,
    InstrumentListed,
    Recorded,
    RulebookVersion,
    ShortfallClaimed,
    ShortfallCovered,
    Trigger,
    Withdrawn,
)
from ledger.postings import ACCOUNT, CROSS, postings
from projections.accounts import POSITIONS
from projections.journal import imbalances
from projections.markets import MARKETS
from projections.read_model import ALL, ReadModels

ACCOUNTS = ("A1", "A2", "é")
INSTRUMENTS = ("BTC-USD", "ETH-BTC")
SIGNED = st.decimals(min_value=-10**17, max_value=10**17, places=18)
POSITIVE = st.decimals(min_value=0, max_value=10**17, places=18).filter(bool)
SIZES = st.integers(min_value=1, max_value=5).map(Decimal)
ASSETS = st.sampled_from(("USD", "BTC"))
MODES = st.sampled_from(("cross", "isolated"))
SIDES = st.sampled_from(("net", "long", "short"))
POOLS = st.sampled_from((CROSS, "isolated:BTC-USD:net"))
STAMP: dict[str, Any] = {"time": 0, "cause": Cause(source="file", type="fill", id="r1", time=0)}
EVIDENCE = Evidence(
    account_equity=ZERO, margin_equity=ZERO, collateral_value=ZERO, unrealised_pnl=ZERO, initial_margin=ZERO,
    maintenance_margin=ZERO, balances={}, marks={}, positions=[], rulebook=RulebookVersion(name="house", version=1),
    trigger=Trigger(position=1, type="price"))


def fills(size_after: st.SearchStrategy[Decimal]) -> st.SearchStrategy[FillPosted]:
    return st.builds(
        FillPosted, **{name: st.just(value) for name, value in STAMP.items()}, account=st.sampled_from(ACCOUNTS),
        trade_id=st.sampled_from(("T1", "T2", "T3")), instrument=st.sampled_from(INSTRUMENTS),
        side=st.sampled_from(("buy", "sell")), size=SIZES, price=POSITIVE, fee=SIGNED, fee_asset=st.none(),
        liquidation_order_id=st.none(), mode=MODES, position=SIDES, settlement_asset=ASSETS, charged_asset=ASSETS,
        closed_size=st.just(ZERO), realised_pnl=SIGNED, rounding=SIGNED, position_size=size_after,
        position_cost=SIGNED, position_leverage=st.none() | POSITIVE, funding_index=SIGNED, isolated_margin=SIGNED,
        flags=st.just([]))


ITEMS = st.builds(FundingItem, instrument=st.sampled_from(INSTRUMENTS), margin_mode=MODES, position_side=SIDES,
                  asset=ASSETS, index=SIGNED, payment=SIGNED, rounding=SIGNED)


def of(kind: type[Event], /, **fields: Any) -> st.SearchStrategy[Event]:
    """Events of one type, of any account and amount."""
    return st.builds(kind, **{name: st.just(value) for name, value in STAMP.items()}, **fields)


ACCOUNT_IDS = st.sampled_from(ACCOUNTS)
CASH = st.one_of(
    of(Deposited, account=ACCOUNT_IDS, asset=ASSETS, amount=POSITIVE, balance=SIGNED),
    of(Withdrawn, account=ACCOUNT_IDS, asset=ASSETS, amount=POSITIVE, balance=SIGNED),
    of(CollateralConverted, account=ACCOUNT_IDS, pool=POOLS, liquidation_id=st.just("L1"), sold_asset=ASSETS,
       sold_amount=POSITIVE, bought_asset=ASSETS, bought_amount=POSITIVE, price=POSITIVE, fee_rate=POSITIVE,
       evidence=st.just(EVIDENCE)))
EVENTS = st.one_of(
    fills(SIGNED), CASH,
    of(FundingSettled, account=ACCOUNT_IDS, items=st.lists(ITEMS, max_size=4)),
    of(ShortfallClaimed, account=ACCOUNT_IDS, pool=POOLS, liquidation_id=st.just("L1"), claim_id=st.just("C1"),
       asset=ASSETS, amount=POSITIVE, recourse=st.just("limited"), evidence=st.just(EVIDENCE)),
    of(ShortfallCovered, account=ACCOUNT_IDS, claim_id=st.just("C1"), asset=ASSETS, claimed=POSITIVE,
       fund=st.sampled_from(("insurance", "default", "house")), covered=POSITIVE, uncovered=POSITIVE),
    of(FundMoved, fund=st.sampled_from(("insurance", "default", "house")), asset=ASSETS, amount=POSITIVE,
       kind=st.sampled_from(("contribution", "withdrawal", "recovery")), contributor=st.none(), before=SIGNED,
       after=SIGNED))


@given(EVENTS)
def test_the_postings_of_every_event_sum_to_zero_per_asset(event: Event) -> None:
    sums: dict[str, Decimal] = {}
    with exact():
        for line in postings(event):
            sums[line.asset] = sums.get(line.asset, ZERO) + line.amount

    assert {asset: ZERO for asset in sums} == sums


@given(EVENTS)
def test_a_posting_moves_something_and_names_a_pool_exactly_where_an_account_owns_it(event: Event) -> None:
    for line in postings(event):
        assert line.amount
        assert (line.owner == ACCOUNT) == bool(line.account) == bool(line.pool)


def log_of(events: Sequence[Event]) -> list[Recorded]:
    """A log of the events behind what they need; sizes after each fill are those that follow from the fills."""
    listed: list[Event] = [InstrumentListed(
        **STAMP, instrument=instrument, base="BTC", quote="USD", contract_type="linear", contract_size=Decimal(1),
        tick_size=Decimal(1), lot_size=Decimal(1)) for instrument in INSTRUMENTS]
    opened: list[Event] = [AccountOpened(
        **STAMP, account=account, margin_mode="cross", position_mode="net", kind="client") for account in ACCOUNTS]
    sizes: dict[tuple[str, ...], Decimal] = {}
    log: list[Recorded] = []
    for event in (*listed, *opened, *events):
        whole = event
        if isinstance(event, FillPosted):
            key = (event.account, event.instrument, event.mode, event.position)
            sizes[key] = sizes.get(key, ZERO) + (event.size if event.side == "buy" else -event.size)
            whole = event.model_copy(update={"position_size": sizes[key]})
        log.append(Recorded(len(log) + 1, getattr(event, "account", "market"), 1, whole))
    return log


def built(log: list[Recorded], pages: Sequence[int]) -> dict[str, list[tuple[Any, ...]]]:
    """Every table after the log came in pages of these lengths and then the rest, with new read models for each."""
    with closing(sqlite3.connect(":memory:")) as connection:
        ReadModels(connection).create()
        for page in (*pages, len(log)):
            models = ReadModels(connection)
            models.catch_up(lambda after, limit: log[after:after + limit], until=models.position() + page)

            assert [] == imbalances(connection)
        return {name: models.rows(name) for model in ALL for name in model.TABLES}


@settings(deadline=None)
@given(st.lists(st.one_of(fills(st.just(ZERO)), CASH), max_size=25), st.lists(st.integers(1, 6), max_size=10))
def test_a_log_balances_after_every_page_and_no_split_into_pages_changes_a_row(
    events: list[Event], pages: list[int],
) -> None:
    log = log_of(events)

    assert built(log, ()) == built(log, pages)


@settings(deadline=None)
@given(st.lists(fills(st.just(ZERO)), max_size=25))
def test_open_interest_and_open_trades_are_those_counted_from_the_fills(events: list[FillPosted]) -> None:
    log = log_of(events)
    tables = built(log, ())
    longs: dict[str, Decimal] = dict.fromkeys(INSTRUMENTS, ZERO)
    for row in tables["view_positions"]:
        longs[row[1]] += max(ZERO, Decimal(row[POSITIONS.columns.index("size")]))
    net: dict[tuple[str, str], Decimal] = {}
    for event in events:
        signed = event.size if event.side == "buy" else -event.size
        net[event.trade_id, event.instrument] = net.get((event.trade_id, event.instrument), ZERO) + signed

    assert longs == {row[0]: Decimal(row[MARKETS.columns.index("open_interest")]) for row in tables["view_markets"]}
    assert {key: size for key, size in net.items() if size} == {
        (trade, instrument): Decimal(bought) - Decimal(sold)
        for trade, instrument, bought, sold in tables["view_open_trades"]}
