"""Streams of records that keep a small clearing house busy: Hypothesis strategies, and the player that speaks them.

A stream is a list of steps (`record_steps`), drawn without any ledger. What was played is a list of lines, which
other tests feed to other ledgers. Neighbours: `test_ledger_machine` (laws after every event), `test_determinism`
(the same lines, other ways).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from infra.shard import Outcome, Shard
from infra.store.commit import InboxKey
from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from ledger.amounts import exact
from ledger.clearing_house import ClearingHouse
from ledger.nomination import Nominator
from projections.audit import Row
from projections.book import Book
from tests.property.record_steps import (
    ACCOUNTS,
    ASSETS,
    INSTRUMENTS,
    MUMBLED,
    Clock,
    Cures,
    Deposits,
    FillsOrder,
    Funding,
    Line,
    ListsAsset,
    ListsInstrument,
    MovesFund,
    Mumbles,
    Opens,
    Prices,
    Publishes,
    Record,
    SaysAgain,
    Scene,
    Step,
    Trades,
    Withdraws,
    rulebook,
)
from tests.property.record_steps_of_accounts import (
    Chooses,
    EndsWithdrawal,
    Halts,
    MovesMargin,
    Orders,
    Reports,
    Reverses,
    SetsRate,
    Settles,
    Transfers,
)

MAPPER: Final = "infra.store.mapper:EventMapper"
SOURCE: Final = "records.jsonl"


# --- playing -----------------------------------------------------------------------------------------------------


def memory_ledger(nominator: Nominator, *, venue: SimulatedVenue | None = None) -> Shard:
    """An empty ledger in memory, under a nominator of the caller's choice."""
    house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                          nominator=nominator)
    shard = Shard(house, venue=venue)
    shard.open()
    return shard


def delivered(lines: Sequence[Line], *, source: str = SOURCE) -> list[Delivered]:
    """Lines as a file delivers them."""
    return [read(Place(source, line=number), raw) for number, raw in enumerate(lines, 1)]


class MemoryRows:
    """A ledger in memory as replay reads one."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def log_rows(self, after: int, limit: int) -> Sequence[Row]:
        return [Row(row.id, str(row.originator_id), row.originator_version, row.topic, row.state)
                for row in self.shard.store.select_notifications(after + 1, limit)]

    def head(self) -> tuple[int, int, bytes] | None:
        head = self.shard.store.head()
        return None if head is None else (head.position, head.log_time, head.root)

    def inbox(self) -> Mapping[InboxKey, int]:
        return dict(self.shard.store.inbox())

    def source_positions(self) -> Mapping[tuple[str, int], int]:
        return {place: position.next_offset for place, position in self.shard.store.source_positions().items()}

    def leaves(self) -> bytes:
        return self.shard.store.leaves()


class Stream(NamedTuple):
    """Steps, and whether the simulated venue answers liquidation orders."""

    steps: Sequence[Step]
    venue: bool


def play(stream: Stream, shard: Shard) -> Iterator[tuple[Line, Outcome]]:
    """Speak a stream to a ledger line by line, each in a batch of its own."""
    scene = Scene(shard.house)
    for step in stream.steps:
        with exact():
            said = step.say(scene)
        if said is not None:
            raw = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
            scene.said.append(raw)
            outcome = shard.apply([read(Place(SOURCE, line=len(scene.said)), raw)])[0]
            yield raw, outcome


def lines_of(stream: Stream) -> list[Line]:
    """The lines of a stream, as a ledger of our own would hear them."""
    return [line for line, _ in play(stream, memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None))]


# --- strategies --------------------------------------------------------------------------------------------------

_seconds = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 10, 10, 31, 61, 121, 301, 901, 3601])
_late = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 5, 100, 4000])
_account = st.integers(0, 4)
_instrument = st.sampled_from(sorted(INSTRUMENTS))
_asset = st.sampled_from(sorted(ASSETS))
_factors = st.sampled_from(["1", "0.9999", "1.0001", "0.999", "1.001", "0.997", "1.003", "0.995", "1.005", "0.99",
                            "1.01", "0.98", "1.02", "0.95", "1.05", "0.9", "1.1", "0.8", "1.24", "0.75", "1.3", "0.5"])
_wild_factors = st.sampled_from(["0.000001", "0.01", "100", "1000000", "0", "1000000000000"])
_amounts = st.sampled_from(["0.01", "1", "50", "300", "1000", "2500.55", "20000"])
_wild_amounts = st.sampled_from(["0.000000000000000001", "999999999999999999.999999999999999999",
                                 "100000000000000000", "123456789012.123456789012345678"])
_held = {"USD": st.sampled_from(["20", "100", "1000", "1000", "5000.25"]),
         "BTC": st.sampled_from(["0.001", "0.05", "0.2", "1.23456789"]),
         "ETH": st.sampled_from(["0.5", "5", "40.1234"])}

_publishes = st.builds(Publishes, st.sampled_from([0, 1, 1, 2, 2, 3, 4]), st.sampled_from([None, None, -10, 100, 1000]))
_opens = st.builds(
    Opens, st.sampled_from(ACCOUNTS), st.sampled_from(["cross", "cross", "isolated"]),
    st.sampled_from(["net", "net", "hedge"]),
    st.sampled_from(["client"] * 6 + ["liquidity-provider", "external-venue", "house"]),
    st.sampled_from([None] * 8 + ["house", "house", "brisk", "stern", "coin"]))
_relists = st.one_of(
    st.builds(ListsAsset, _asset, st.sampled_from(["0.01", "0.0001", "0.00000001"]), st.booleans()),
    st.builds(ListsInstrument, _instrument, st.sampled_from([None, None, "5"]),
              st.sampled_from([None, None, None, "linear", "inverse"])))
_asset_or_held = st.one_of(_asset, st.just("held"), st.just("held"))
_withdraws = st.builds(Withdraws, _account, _asset_or_held, st.sampled_from([None, None, "0.1", "0.5", "1", "2"]),
                       st.sampled_from([0, 0, 1, -1]), _late, st.sampled_from([None, False, True, True]))
_fills_order = st.builds(
    FillsOrder, st.integers(0, 3), st.sampled_from(["1", "1", "0.5", "0.1", "2"]),
    st.sampled_from([None, "1", "1", "0.98", "1.02", "0.7", "1.4"]), _late,
    st.sampled_from([None, None, None, "its own", "net", "long", "short"]), st.sampled_from([0] * 8 + [6, 21, 61]))
_cures = st.builds(Cures, st.integers(0, 3), st.sampled_from([-1, 0, 0, 0, 1, 1000]), _late,
                   st.sampled_from([0, 0, 0, 10, 61]))
_funding = st.builds(Funding, _instrument, st.sampled_from(["0.0001", "-0.0003", "0.01", "-0.02", "0", "0.0333333"]),
                     st.sampled_from([None, None, "1", "1.01"]))
_moves_fund = st.builds(
    MovesFund, st.sampled_from(["insurance", "insurance", "default", "house"]), _asset, _amounts,
    st.sampled_from(["contribution", "withdrawal", "withdrawal", "recovery"]))
_says_again = st.builds(SaysAgain, st.integers(0, 40),
                        st.sampled_from(["same", "same", "spaced", "unknown field", "changed"]))
_mumbles = st.builds(Mumbles, st.sampled_from(MUMBLED))
_reverses = st.builds(Reverses, st.integers(0, 9), st.sampled_from(["exact"] * 4 + ["other amount", "unknown"]))
_ends_withdrawal = st.builds(EndsWithdrawal, st.integers(0, 3), st.booleans(),
                             st.sampled_from([True, True, True, True, False]), _seconds)
_chooses = st.builds(
    Chooses, _account, st.one_of(st.none(), _instrument), st.sampled_from([None, "2", "5", "12.5", "100"]),
    st.sampled_from([None, None, "cross", "isolated"]), st.sampled_from([None, None, None, "net", "hedge"]))
_transfers = st.builds(Transfers, _account, _account, _asset_or_held,
                       st.sampled_from([None, None, "0.1", "0.5", "1", "2"]), st.sampled_from([0, 0, 1, -1]))
_moves_margin = st.builds(MovesMargin, st.integers(0, 3), st.booleans(),
                          st.sampled_from([None, None, "0.1", "0.5", "1"]), st.sampled_from([0, 0, 1, -1]),
                          st.booleans())
_orders = st.builds(Orders, _account, st.integers(0, 3), _instrument, st.sampled_from(["buy", "sell"]),
                    st.sampled_from(["0", "0.5", "1", "2", "5"]), st.sampled_from(["1", "0.95", "1.05"]),
                    st.sampled_from([None, None, False, True]))
# High rates, so that an hour costs something.
_rates = st.sampled_from(["0", "0.08", "-0.02", "1", "30", "-10", "500"])
_sets_rate = st.builds(SetsRate, _asset, _rates, _rates)
_reports = st.builds(Reports, st.integers(0, 60), st.sampled_from(["its own", "its own", "somebody's", "gone"]),
                     st.sampled_from(["filled", "expired", "cancelled", "rejected"]))
_halts = st.builds(
    Halts, st.booleans(), st.one_of(st.just("all"), _instrument, _account, st.just("nobody")),
    st.sampled_from(["liquidations", "liquidations", "new-risk", "withdrawals"]), st.integers(0, 3))
_settles = st.builds(Settles, _instrument, st.sampled_from(["1", "1", "0.98", "1.02", "0.9", "1.15"]),
                     st.sampled_from(["daily", "daily", "daily", "expiry", "delisting"]))


def _trades(factors: st.SearchStrategy[str], *, wild: bool) -> st.SearchStrategy[Trades]:
    fees = ["0.5", "-0.25", "0.001", "3"]
    return st.builds(
        Trades, _account, _instrument, st.sampled_from(["buy", "sell"]),
        st.sampled_from(["0.8", "1.1", "1.15", "1.2", "1.3", "1.4", "1.52", "1.6", "2", "3", "10", "-1", "-0.5", "-2"]
                        + (["0.00001", "0.00000000000001"] if wild else [])),
        st.one_of(st.just("1"), factors) if wild else st.sampled_from(["1", "1", "1", "1.002", "0.998", "0.95", "1.1"]),
        st.sampled_from([None, None, *fees]), st.sampled_from([None, None, None, *ASSETS]),
        st.sampled_from([None, "cross", "isolated"]), st.sampled_from([None, None, "3", "20", "7.5"]),
        st.sampled_from([None] * 8 + ["order-1", "order-77", "order-unknown"]), _late, _seconds,
        st.sampled_from([None, None, None, "long", "short"]))


def _prices(factors: st.SearchStrategy[str]) -> st.SearchStrategy[Prices]:
    return st.builds(Prices, _instrument, factors, st.sampled_from(["a", "a", "a", "a", "b", "c"]),
                     st.sampled_from([None] * 7 + ["mark", "index"]),
                     st.sampled_from([None, 0, 0, 0, 1, 5, -1, -3]), _late, _seconds)


@cache
def _kinds(*, wild: bool) -> list[tuple[int, st.SearchStrategy[Any]]]:
    """Steps of every kind, with their weights."""
    factors = st.one_of(_factors, _factors, _wild_factors) if wild else _factors
    amounts = st.one_of(_amounts, _wild_amounts) if wild else _amounts
    return [
        (8, _trades(factors, wild=wild)), (14, _prices(factors)), (4, _fills_order), (4, _cures),
        (2, st.builds(Deposits, _account, _asset, amounts)), (3, _withdraws), (2, _funding), (1, _moves_fund),
        (1, st.builds(Clock, _seconds)), (1, _says_again), (1, _mumbles), (1, _opens),
        (1, st.one_of(_publishes, _relists)), (1, _reverses), (2, _ends_withdrawal), (1, _chooses), (2, _transfers),
        (3, _moves_margin), (1, _orders), (1, _sets_rate), (1, _reports), (2, _halts), (1, _settles)]


@st.composite
def _steps(draw: st.DrawFn, *, wild: bool, steps_max: int) -> list[Step]:
    """Steps of all kinds, with up to three kinds that come far more often: what meets seldom meets there."""
    kinds = _kinds(wild=wild)
    favourites = draw(st.sets(st.integers(0, len(kinds) - 1), max_size=3))
    weighted = [one for index, (weight, one) in enumerate(kinds) for _ in range(weight + 8 * (index in favourites))]
    step = st.sampled_from(weighted).flatmap(lambda one: one)
    return draw(st.lists(step, min_size=min(15, steps_max), max_size=steps_max))


@st.composite
def openings(draw: st.DrawFn) -> list[Step]:
    """What a stream begins with: mostly everything that it needs, now and then too little or in another order."""
    steps: list[Step] = []
    if draw(st.integers(0, 3)):
        steps.append(draw(_publishes))
    steps += [ListsAsset(asset, quantum, True) for asset, quantum in ASSETS.items()]
    listed = [ListsInstrument(name) for name in INSTRUMENTS]
    steps += listed if draw(st.integers(0, 7)) else listed[:draw(st.integers(1, 2))]
    marked = [Prices(name, "1", "a", None, 0, 0, 0) for name in INSTRUMENTS]
    if not draw(st.integers(0, 4)):
        del marked[draw(st.integers(0, len(marked) - 1))]
    steps += marked
    if not draw(st.integers(0, 2)):
        steps += [SetsRate(asset, draw(_rates), draw(_rates)) for asset in ASSETS]
    if draw(st.booleans()):
        steps.append(MovesFund("insurance", "USD", draw(_amounts), "contribution"))
    for name in ACCOUNTS[:draw(st.integers(2, 5))]:
        opened = draw(_opens)
        # The first is opened for sure: there is always somebody to trade.
        steps.append(opened._replace(account=name, rulebook=opened.rulebook if name != ACCOUNTS[0] else None))
    for account in range(5):
        asset = draw(st.sampled_from(["USD", "USD", "BTC", "ETH"]))
        steps.append(Deposits(account, asset, draw(_held[asset])))
    # Some stand near a line from the start.
    steps += draw(st.lists(_trades(_factors, wild=False), max_size=3))
    return steps


@st.composite
def streams(draw: st.DrawFn, *, steps_max: int = 40, wild: bool | None = False) -> Stream:
    """A stream of an opening and up to `steps_max` steps; `wild` ones also hold amounts and prices at the bounds."""
    is_wild = draw(st.sampled_from([False, False, False, True])) if wild is None else wild
    steps = draw(openings())
    steps += draw(_steps(wild=is_wild, steps_max=steps_max))
    return Stream(steps, draw(st.booleans()))


__all__ = ["INSTRUMENTS", "MAPPER", "MUMBLED", "SOURCE", "Cures", "Deposits", "Funding", "Line", "ListsAsset",
           "ListsInstrument", "MemoryRows", "Mumbles", "Opens", "Prices", "Record", "SaysAgain", "Scene", "Step",
           "Stream", "Trades", "Withdraws", "delivered", "lines_of", "memory_ledger", "play", "rulebook", "streams"]
