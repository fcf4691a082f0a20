"""Laws that hold after every event, whatever records come: conservation, a book that misses nobody, honest folds.

Two ledgers hear the same stream: one under the book, one under the naive nominator that names everybody. A witness
stands between house and nominator and looks at every event as it is folded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import Phase, event, given, settings

from infra.shard import Shard
from infra.streams.records import Delivered
from infra.venue import SimulatedVenue
from ledger import account as accounts
from ledger import asset as assets
from ledger import insurance_fund
from ledger import market as markets
from ledger.account import AccountState
from ledger.amounts import ZERO, exact
from ledger.asset import AssetState
from ledger.between_shards import BETWEEN
from ledger.clearing_house import ClearingHouse
from ledger.encoding import decode, encode
from ledger.events import (
    EVENTS,
    TOPICS,
    Cause,
    Event,
    FillPosted,
    FundingSettled,
    InterestSettled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallIssued,
    MarketSettled,
    PositionSettled,
    Recorded,
    ShortfallClaimed,
)
from ledger.house import House
from ledger.insurance_fund import FundState
from ledger.market import MarketState
from ledger.nomination import Everybody, Nominator, PoolPlace
from ledger.postings import ACCOUNT, CROSS, IN_TRANSIT, WITHHELD, fund_owner, postings
from ledger.risk.margin import PoolMargin, below, liquidatable
from projections.audit import replay
from projections.book import NOTIONAL_PER_MAINTENANCE, RELATIVE_TOLERANCE, Book
from tests.property.records_strategy import (
    MAPPER,
    MemoryRows,
    Record,
    Stream,
    delivered,
    memory_ledger,
    play,
    rulebook,
    streams,
)

Row = tuple[str, int, str, bytes]
TIME: Final = "2019-09-24T18:00:00Z"
LISTED: Final[list[Record]] = [
    {"type": "asset", "asset": "USD", "quantum": "0.00001"},
    {"type": "instrument", "instrument": "X-USD", "base": "X", "quote": "USD", "contract_type": "linear",
     "tick_size": "0.01", "lot_size": "1"},
    {"type": "account", "account": "a", "margin_mode": "cross"}]


class Witness:
    """A nominator that passes everything on, and holds every event and every round of decisions to the laws."""

    def __init__(self, nominator: Nominator) -> None:
        self.nominator = nominator
        self.house: ClearingHouse | None = None
        self.topics: Counter[str] = Counter()
        # Equity of each account when the market that is being settled took its price, and the record that settles it.
        self.equities: dict[str, Decimal] = {}
        self.settling: Cause | None = None

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        self.house = house
        self.topics[recorded.event.TOPIC] += 1
        self.nominator.applied(recorded, house)
        require_balanced_event(recorded)
        require_conservation(house)
        require_flagged_leg(recorded.event)
        require_named_by_position(recorded)
        self._require_equity(recorded.event, house)

    def _require_equity(self, fact: Event, house: ClearingHouse) -> None:
        """Settling changes no equity: of daily profit, funding and interest nothing, of an end less than a quantum."""
        if isinstance(fact, MarketSettled):
            self.equities = {name: equity_of(house, state) for name, state in house.accounts.items()}
            self.settling = fact.cause
        elif fact.cause != self.settling or not isinstance(fact, (PositionSettled, FundingSettled, InterestSettled)):
            self.equities = {}
        elif fact.account in self.equities:
            state = house.accounts[fact.account]
            before, after = self.equities[fact.account], equity_of(house, state)
            self.equities[fact.account] = after
            lost = ZERO
            if isinstance(fact, PositionSettled) and fact.kind != "daily":
                quantum = house.assets[fact.settlement_asset].quantum
                lost = 2 * quantum * (house.price_of(house.rules(state))(fact.settlement_asset) or ZERO)
            assert before - lost <= after <= before, f"{fact!r} takes equity from {before} to {after}"

    def rules_changed(self, house: ClearingHouse) -> None:
        self.nominator.rules_changed(house)

    def take(self) -> Collection[PoolPlace]:
        found = self.nominator.take()
        if isinstance(self.nominator, Book) and self.house is not None:
            require_figures(self.nominator, self.house)
        return found


# --- laws --------------------------------------------------------------------------------------------------------


def equity_of(house: ClearingHouse, state: AccountState) -> Decimal:
    """What the account is worth over all its pools."""
    return sum((house.margin(state, pool).account_equity for pool in state.pools()), ZERO)


def require_flagged_leg(fact: Event) -> None:
    """A long is long and a short is short; a fill that goes beyond its leg is a fact, and says so."""
    if not isinstance(fact, FillPosted) or fact.position == "net":
        return
    opened = fact.size > fact.closed_size
    against = fact.position_size * (1 if fact.position == "long" else -1) < 0
    assert ("leg-exceeded" in fact.flags) == (opened and against), f"{fact!r}"


def require_named_by_position(recorded: Recorded) -> None:
    """Calls, liquidations, orders and claims are named by the position in the log where they begin."""
    match recorded.event:
        case MarginCallIssued(call_id=name) | LiquidationStarted(liquidation_id=name) | LiquidationOrderPlaced(
                order_id=name) | ShortfallClaimed(claim_id=name):
            assert int(name.rpartition("-")[2]) == recorded.position, f"{name} at {recorded.position}"


def require_balanced_event(recorded: Recorded) -> None:
    sums: Counter[str] = Counter()
    for line in postings(recorded.event):
        sums[line.asset] += line.amount  # type: ignore[assignment]

    assert not any(sums.values()), f"{recorded.event!r} moves {dict(sums)}"


def require_conservation(house: ClearingHouse) -> None:
    """Per asset, pools and owners sum to zero; per instrument, sizes do; the house's sums are those of the pools."""
    held: dict[str, Decimal] = {}
    sizes: dict[str, Decimal] = {}
    for state in house.accounts.values():
        for balances in state.balances.values():
            for asset, amount in balances.items():
                held[asset] = held.get(asset, ZERO) + amount
        for (instrument, _, _), position in state.positions.items():
            sizes[instrument] = sizes.get(instrument, ZERO) + position.size
            assert position.size, f"{state.account} holds nothing of {instrument}"
    against: dict[str, Decimal] = {}
    for (owner, asset), amount in house.house.balances.items():
        if owner == ACCOUNT:
            assert held.get(asset, ZERO) == amount, f"pools hold {held.get(asset)} {asset}, posted were {amount}"
        else:
            against[asset] = against.get(asset, ZERO) + amount
    for asset in held.keys() | against.keys():
        assert held.get(asset, ZERO) == -against.get(asset, ZERO), f"{asset} does not sum to zero"
    for instrument in sizes.keys() | house.house.sizes.keys():
        assert sizes.get(instrument, ZERO) == -house.house.sizes.get(instrument, ZERO), f"sizes of {instrument}"


def require_honest_funds(house: ClearingHouse) -> None:
    """What a fund's own events say it holds is what is posted to it; what is withheld is what is held for accounts.

    Between two records only: a draw is posted by the account's next event.
    """
    for (fund, asset), state in house.funds.items():
        assert state.balance == house.house.balance(fund_owner(fund), asset), f"{fund} fund in {asset}"
        assert state.balance >= 0
    held: Counter[str] = Counter()
    for account in house.accounts.values():
        for hold in account.holds.values():
            held[hold.asset] += hold.amount  # type: ignore[assignment]
    for asset in house.assets:
        assert held[asset] == house.house.balance(WITHHELD, asset), f"{asset} withheld is not what is held"
        assert not house.house.balance(IN_TRANSIT, asset), f"{asset} is in transit between two records"


def require_figures(book: Book, house: ClearingHouse) -> None:
    """The book has exactly the pools that margin counts, and their figures within its tolerance."""
    places = set()
    for state in house.accounts.values():
        if not state.is_margined:
            continue
        for pool in state.pools():
            places.add((state.account, pool))
            margin = house.margin(state, pool)
            equity, maintenance = book.figures(state.account, pool)
            tolerance = tolerance_of(house, state, pool, margin)
            assert abs(Decimal(equity) - margin.margin_equity) <= tolerance, (
                f"{pool} of {state.account}: equity {equity}, exactly {margin.margin_equity}")
            assert abs(Decimal(maintenance) - margin.maintenance_margin) <= tolerance, (
                f"{pool} of {state.account}: maintenance {maintenance}, exactly {margin.maintenance_margin}")
    assert places == book.places()


def tolerance_of(house: ClearingHouse, state: AccountState, pool: str, margin: PoolMargin) -> Decimal:
    """What the book allows itself: relative to equity, margin and gross, and a quantum of funding or interest a row."""
    price_of = house.price_of(house.rules(state))
    gross = sum((abs(amount) * (price_of(asset) or 0) for asset, amount in state.balances.get(pool, {}).items()), ZERO)
    slack = sum((house.assets[asset].quantum * (price_of(asset) or 0) for asset in state.balances.get(pool, {})
                 if asset in house.bearing), ZERO)
    for key, position in state.positions_of(pool):
        market = house.markets[key[0]]
        worth = price_of(market.settlement_asset) or ZERO
        gross += abs(position.cost - position.size * market.contract_size * position.funding_index) * worth
        slack += house.assets[market.settlement_asset].quantum * worth
    relative = Decimal(RELATIVE_TOLERANCE) * (
        abs(margin.margin_equity) + Decimal(NOTIONAL_PER_MAINTENANCE) * margin.maintenance_margin + gross)
    # The book's own tolerance is a float, too.
    return (relative + slack) * Decimal("1.000001")


def require_settled(house: ClearingHouse) -> None:
    """Between two records every pool has what its ratio calls for: no more, no less."""
    orders: set[str] = set()
    for state in house.accounts.values():
        for pool in state.pools():
            orders.update(state.liquidations[pool].orders if pool in state.liquidations else ())
            if state.is_margined:
                require_settled_pool(house, state, pool)
    assert orders == set(house.open_orders)


def require_settled_pool(house: ClearingHouse, state: AccountState, pool: str) -> None:
    margin, lines, where = house.margin(state, pool), house.rules(state).thresholds, f"{pool} of {state.account}"
    call, running = state.calls.get(pool), state.liquidations.get(pool)
    if margin.unpriced:
        return
    if running is not None:
        assert call is None, f"{where} is called and liquidated at once"
        assert pool not in state.due, f"{where} is liquidated and still waits for it"
        assert margin.positions, f"the liquidation of {where} has nothing left to do"
        assert below(margin, running.stop_level), f"{where} stands at the stop line and is liquidated"
        wanted = {(row.holding.instrument, row.holding.position_side): abs(row.holding.size)
                  for row in margin.positions}
        placed = {(order.instrument, order.position_side): order.remaining for order in running.orders.values()}
        assert wanted == placed, f"orders of {where} do not fit its positions"
        return
    is_blocked = house.is_blocked(state, pool)
    assert is_blocked or not liquidatable(margin, lines), f"{where} is past the liquidation line and nothing is done"
    assert is_blocked or pool not in state.due, f"the call of {where} expired and nothing is done"
    if call is not None:
        assert below(margin, call.cure_level), f"{where} is cured and still called"
        assert call.deadline > house.log_time, f"the deadline of {where} passed"
    elif below(margin, lines.call):
        assert pool in state.due, f"{where} is below the call line and not called"
    elif below(margin, lines.warning):
        assert pool in state.warned, f"{where} is below the warning line and not warned"
    if not is_blocked and not margin.positions:
        assert margin.margin_equity >= 0, f"{where} owes and nothing is done"


# --- folds -------------------------------------------------------------------------------------------------------


class Folded:
    """All states, folded from stored rows by the aggregates' own evolve alone."""

    def __init__(self, rows: Iterator[tuple[int, Row]]) -> None:
        self.accounts: dict[str, AccountState] = {}
        self.markets: dict[str, MarketState] = {}
        self.assets: dict[str, AssetState] = {}
        self.funds: dict[tuple[str, str], FundState] = {}
        self.house = House()
        self.sizes: dict[str, Decimal] = {}
        self.log_time = 0
        for position, (stream, _, topic, state) in rows:
            self._fold(position, stream, Recorded(position, stream, 0, decode(topic, state)))

    def _fold(self, position: int, stream: str, recorded: Recorded) -> None:
        fact = recorded.event
        kind, _, name = stream.partition(":")
        if kind == "account":
            self.accounts[name] = accounts.evolve(self.accounts.get(name), fact)
        elif kind == "market":
            self.markets[name] = markets.evolve(self.markets.get(name), fact, position)
        elif kind == "asset":
            self.assets[name] = assets.evolve(self.assets.get(name), fact)
        elif kind == "fund":
            place = (name.partition(":")[0], name.partition(":")[2])
            self.funds[place] = insurance_fund.evolve(self.funds.get(place) or FundState(*place), fact)
        if isinstance(fact, FillPosted):
            self.house.trade(fact)
        elif isinstance(fact, PositionSettled):
            self.house.settle(fact)
        self.house.post(postings(fact))
        self.log_time = max(self.log_time, fact.time)


def rows_of(shard: Shard) -> list[Row]:
    return [(str(row.originator_id), row.originator_version, row.topic, row.state)
            for row in shard.store.select_notifications(1, 1_000_000)]


def reopened(shard: Shard) -> Shard:
    """Another writer over the same rows, in memory: as after a restart."""
    house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                          nominator=Book())
    house.recorder = house.events.recorder = shard.house.recorder
    again = Shard(house, venue=shard.venue)
    again.open()
    return again


def require_same_states(expected: ClearingHouse, came: ClearingHouse) -> None:
    """All that decisions rest on."""
    assert expected.accounts == came.accounts
    assert expected.markets == came.markets
    assert expected.assets == came.assets
    assert expected.funds == came.funds
    assert expected.rulebooks == came.rulebooks
    assert expected.versions == came.versions
    assert (expected.position, expected.log_time) == (came.position, came.log_time)
    assert list(expected.open_orders.items()) == list(came.open_orders.items())
    assert expected.house.balances == came.house.balances
    assert expected.house.sizes == came.house.sizes


def records_of(records: Sequence[Record]) -> list[Delivered]:
    return delivered([json.dumps({"id": f"r{number}", "time": TIME, **record}).encode()
                      for number, record in enumerate(records)])


def require_same_topics(records: Sequence[Record]) -> list[str]:
    """The topics of a log that the book and everybody agree on."""
    logs = []
    for nominator in (Everybody(), Book()):
        shard = memory_ledger(nominator)
        for record in records_of(records):
            shard.apply([record])
        logs.append(rows_of(shard))

    assert logs[0] == logs[1]
    return [topic.removeprefix("clearing.").removesuffix(":1") for _, _, topic, _ in logs[0]]



def fill(side: str, size: str, price: str, number: int = 1) -> Record:
    return {"type": "fill", "account": "a", "trade_id": f"t{number}", "instrument": "X-USD", "side": side,
            "size": size, "price": price}


def fills_of(shard: Shard) -> list[FillPosted]:
    """The fills of a log, in its order."""
    facts = [decode(topic, state) for _, _, topic, state in rows_of(shard)]
    return [fact for fact in facts if isinstance(fact, FillPosted)]


def mark(price: str, time: str = TIME) -> Record:
    return {"type": "price", "instrument": "X-USD", "price": price, "source": "a", "time": time}


# --- the machine -------------------------------------------------------------------------------------------------


def ledger(stream: Stream, nominator: Nominator) -> Shard:
    return memory_ledger(nominator, venue=SimulatedVenue() if stream.venue else None)


@given(stream=streams())
def test_laws_hold_after_every_event(stream: Stream) -> None:
    witness = Witness(Book())
    shard = ledger(stream, witness)
    for _ in play(stream, shard):
        with exact():
            require_settled(shard.house)
            require_honest_funds(shard.house)

    assert shard.is_balanced()
    for topic in sorted(witness.topics):
        event(topic)


@given(stream=streams(wild=True))
def test_laws_hold_after_every_event_at_the_bounds_of_numbers(stream: Stream) -> None:
    shard = ledger(stream, Witness(Book()))
    for _ in play(stream, shard):
        with exact():
            require_settled(shard.house)

    assert shard.is_balanced()


@given(stream=streams(wild=None))
def test_book_finds_the_same_events_in_the_same_order_as_looking_at_everybody(stream: Stream) -> None:
    naive, screened = ledger(stream, Everybody()), ledger(stream, Book())
    for expected, came in zip(play(stream, naive), play(stream, screened), strict=True):
        assert expected == came
        assert [(row.originator_id, encode(row.event)) for row in naive.house.pending] == [
            (row.originator_id, encode(row.event)) for row in screened.house.pending]

    assert rows_of(naive) == rows_of(screened)
    assert naive.root == screened.root


def test_book_keeps_no_error_of_a_position_that_is_closed() -> None:
    """Found by search: increments left -7e-12 of an equity that was exactly zero, and the warning never ended."""
    topics = require_same_topics([
        *LISTED, mark("1598.94"), {"type": "deposit", "account": "a", "asset": "USD", "amount": "51446.68"},
        fill("buy", "556", "1598.94"), fill("sell", "556", "1506.41", 2)])

    assert ["margin-warned", "fill-posted", "warning-ended"] == topics[-3:]


@pytest.mark.parametrize("cash", ["1.02996", "1.02997", "1.02998", "1.02999"])
def test_book_keeps_no_error_of_a_price_that_is_gone(cash: str) -> None:
    """At 10^12 a float has no room for cents, which decide who is warned when the price is back at 1."""
    topics = require_same_topics([
        *LISTED, mark("2"), {"type": "deposit", "account": "a", "asset": "USD", "amount": cash}, fill("buy", "1", "2"),
        mark("1000000000000", "2019-09-24T19:00:00Z"), mark("1", "2019-09-24T20:00:00Z")])

    assert ["price-recorded", "price-recorded", "margin-warned"] == topics[-3:]


@pytest.mark.parametrize("position_mode", ["net", "hedge"])
@pytest.mark.parametrize("position_side", [None, "net", "long", "short"])
@pytest.mark.parametrize("margin_mode", ["cross", "isolated"])
@pytest.mark.parametrize("size", ["1", "12"])
def test_fill_of_an_order_that_its_own_time_ends_leaves_one_outcome(
        position_mode: str, position_side: str | None, margin_mode: str, size: str) -> None:
    """Found by search: admitted as a fill of the open order, it was rejected once its time had ended that order.

    The timers' events were recorded all the same, in the name of a record that "changed nothing"; replay differed.
    """
    long = "long" if position_mode == "hedge" else None
    shard = memory_ledger(Witness(Book()))
    outcomes = list(shard.ingest(records_of([
        *LISTED[:2], {**LISTED[2], "position_mode": position_mode, "margin_mode": margin_mode}, mark("100"),
        {"type": "deposit", "account": "a", "asset": "USD", "amount": "50"},
        {**fill("buy", "10", "100"), "position_side": long, "leverage": "20"}, mark("94"),
        {**fill("sell", size, "94", 2), "liquidation_order_id": "order-9", "position_side": position_side,
         "time": "2019-09-24T18:10:00Z"}])))
    fits = position_side is None or (position_mode == "net") == (position_side == "net")
    topics = [topic for _, _, topic, _ in rows_of(shard)]

    assert "applied" == outcomes[-2].kind
    assert "clearing.liquidation-order-placed:1" == topics[8]
    assert ("applied" if fits else "rejected") == outcomes[-1].kind
    assert fits or (10, "clearing.record-rejected:1") == (len(topics), topics[-1])
    assert [] == replay(MemoryRows(shard)).differences


def test_what_was_sold_beyond_a_long_position_can_be_bought_back() -> None:
    """A fill of a liquidation order is posted also where it exceeds the position; its repair must be, too."""
    shard = memory_ledger(Book())
    outcomes = list(shard.ingest(records_of([
        *LISTED[:2], {**LISTED[2], "position_mode": "hedge"}, mark("100"),
        {"type": "deposit", "account": "a", "asset": "USD", "amount": "50"},
        {**fill("buy", "10", "100"), "position_side": "long"}, mark("94"),
        {**fill("sell", "12", "94", 2), "liquidation_order_id": "order-9"},
        {**fill("buy", "1", "94", 3), "position_side": "long"}, {**fill("buy", "1", "94", 4), "position_side": "long"},
        {**fill("sell", "1", "94", 5), "position_side": "long"}])))

    assert ["applied"] * 4 == [outcome.kind for outcome in outcomes[-4:]]
    assert [["leg-exceeded", "order-exceeded"], [], [], ["leg-exceeded"]] == [
        [flag for flag in fact.flags if flag != "initial-margin-breached"] for fact in fills_of(shard)[-4:]]
    assert Decimal(-1) == shard.house.accounts["a"].positions["X-USD", "cross", "long"].size


def test_claim_behind_a_cancelled_order_is_named_by_its_own_position() -> None:
    """Found by search: a fill that closes without naming the order leaves it to be cancelled, and the claim follows."""
    shard = memory_ledger(Witness(Book()))
    list(shard.ingest(records_of([
        *LISTED, mark("100"), {"type": "deposit", "account": "a", "asset": "USD", "amount": "50"},
        fill("buy", "10", "100"), mark("94"), fill("sell", "10", "90", 2)])))
    claims = [(position, decode(topic, state)) for position, (_, _, topic, state) in enumerate(rows_of(shard), 1)
              if topic == ShortfallClaimed.TOPIC]

    assert [(12, "claim-12")] == [(position, vars(claim)["claim_id"]) for position, claim in claims]


def test_a_transfer_that_is_refused_is_no_record_of_its_receiver() -> None:
    """Found by search: the receiver's liquidation was quoted anew at the interest of the moment, or not, at will."""
    topics = require_same_topics([
        *LISTED, {**LISTED[2], "account": "b"}, mark("100"),
        {"type": "interest-rate", "asset": "USD", "borrow_rate": "0", "lend_rate": "1"},
        {"type": "deposit", "account": "a", "asset": "USD", "amount": "50"}, fill("buy", "10", "100"), mark("95.5"),
        {"type": "transfer", "account": "b", "to_account": "a", "asset": "USD", "amount": "1",
         "time": "2019-09-24T18:00:09Z"}])

    assert ["liquidation-order-placed", "transfer-refused"] == topics[-2:]


def test_two_sources_cannot_hold_two_withdrawals_of_one_id() -> None:
    """Found by reading: the second hold took the place of the first, whose amount was withheld for ever."""
    shard = memory_ledger(Witness(Book()))
    list(shard.ingest(records_of([*LISTED, {"type": "deposit", "account": "a", "asset": "USD", "amount": "50"}])))

    def offer(source: str, **fields: object) -> tuple[str, str | None]:
        outcome = shard.apply(delivered([json.dumps({"time": TIME, **fields}).encode()], source=source))[0]
        return outcome.kind, outcome.reason

    held = {"type": "withdrawal", "id": "w", "account": "a", "asset": "USD", "amount": "20", "hold": True}
    assert ("applied", None) == offer("desk", **held)
    assert ("rejected", "withdrawal-held") == offer("web", **held)
    assert ("applied", None) == offer("web", type="withdrawal-settled", id="e", account="a", withdrawal="w")
    assert {} == shard.house.accounts["a"].holds
    assert not shard.house.house.balance(WITHHELD, "USD")
    assert Decimal(30) == shard.house.accounts["a"].balance(CROSS, "USD")


@pytest.mark.parametrize(("sizes", "exceeding"), [
    (("-1", "-1", "1", "2"), "1100"), (("2", "-3", "-1", "3"), "0110"), (("2", "-2", "-1", "1"), "0010"),
    (("-1", "3", "-1", "-2"), "1001")], ids=str)
@pytest.mark.parametrize("leg", ["long", "short"])
def test_a_fill_that_goes_beyond_its_leg_is_posted_and_flagged(leg: str, sizes: Sequence[str], exceeding: str) -> None:
    """Facts are never refused. Sizes are signed along the leg: -1 sells the long one, or buys the short one."""
    shard = memory_ledger(Witness(Book()))
    sides = ("buy", "sell") if leg == "long" else ("sell", "buy")
    outcomes = list(shard.ingest(records_of([
        *LISTED[:2], {**LISTED[2], "position_mode": "hedge"}, mark("100"),
        {"type": "deposit", "account": "a", "asset": "USD", "amount": "5000"},
        *({**fill(sides[size.startswith("-")], size.lstrip("-"), "100", number), "position_side": leg}
          for number, size in enumerate(sizes))])))

    assert {"applied"} == {outcome.kind for outcome in outcomes}
    assert exceeding == "".join("1" if "leg-exceeded" in fact.flags else "0" for fact in fills_of(shard))


@pytest.mark.parametrize("quote", ["USD", "BTC", "ETH"], ids=["valued at once", "over one mark", "over two marks"])
def test_numbers_of_full_length_never_outgrow_exact_arithmetic(quote: str) -> None:
    """Found by reading: 18 and 18 digits a number, valued over two marks, stopped the writer at the first order."""
    amount, price = "12345678901234567.123456789012345671", "12345678901.123456789012345673"
    names = ("a", "b")
    shard = memory_ledger(Witness(Book()))
    outcomes = list(shard.ingest(records_of([
        *({"type": "asset", "asset": asset, "quantum": "0.000000000000000001", "pricing_instrument": priced_by}
          for asset, priced_by in (("USD", None), ("BTC", "BTC-USD"), ("ETH", "ETH-BTC"))),
        *({"type": "instrument", "instrument": name, "base": base, "quote": settled, "contract_type": "linear",
           "tick_size": "0.01", "lot_size": "0.000000000000000001", "contract_size": amount}
          for name, base, settled in (("BTC-USD", "BTC", "USD"), ("ETH-BTC", "ETH", "BTC"), ("X-USD", "X", quote))),
        {"type": "rulebook", "rulebook": rulebook("fine", instruments={"*": {"requirement": {
            "variant": "brackets:1", "brackets": [
                {"floor": "0", "initial": "0.040000000000000001", "maintenance": "0.020000000000000001"},
                {"floor": "50000.000000000000000001", "initial": "0.050000000000000003",
                 "maintenance": "0.030000000000000007"}]}}})},
        *({**mark(price), "instrument": name} for name in ("BTC-USD", "ETH-BTC", "X-USD")),
        *({"type": "account", "account": name, "margin_mode": "cross"} for name in names),
        *({"type": "deposit", "account": name, "asset": asset, "amount": amount} for asset in ("USD", "BTC", "ETH")
          for name in names),
        *({**fill("buy", amount, price), "account": name} for name in names),
        {"type": "funding", "instrument": "X-USD", "rate": "0.012345678901234567"},
        mark("12345678901.023456789012345671"), mark("11345678900.023456789012345671"), fill("sell", amount, price)])))

    assert {"applied"} == {outcome.kind for outcome in outcomes}
    assert "clearing.liquidation-order-placed:1" in {topic for _, _, topic, _ in rows_of(shard)}
    assert [] == replay(MemoryRows(shard)).differences


def test_version_of_a_shipped_rulebook_is_taken() -> None:
    """Decisions name their rulebook by name and version: `house` 1 must not mean two things."""
    shard = memory_ledger(Book())
    house, next_house = rulebook("house", 1), rulebook("house", 2, title="another")
    outcomes = list(shard.ingest(records_of([
        {"type": "rulebook", "rulebook": {**house, "title": "another"}}, {"type": "rulebook", "rulebook": house},
        {"type": "rulebook", "rulebook": next_house}, {"type": "rulebook", "rulebook": {**next_house, "title": "x"}}])))

    assert [("rejected", "rulebook"), ("applied", None), ("applied", None), ("rejected", "rulebook")] == [
        (outcome.kind, outcome.reason) for outcome in outcomes]


@given(stream=streams())
def test_stored_events_read_back_as_the_same_bytes_and_states_are_their_folds(stream: Stream) -> None:
    shard = ledger(stream, Book())
    for _ in play(stream, shard):
        pass
    rows = rows_of(shard)
    for _, _, topic, state in rows:
        assert state == encode(decode(topic, state))
    with exact():
        folded = Folded(iter(enumerate(rows, 1)))

    house = shard.house
    assert folded.accounts == house.accounts
    assert folded.markets == house.markets
    assert folded.assets == house.assets
    assert folded.funds == house.funds
    assert folded.house.balances == house.house.balances
    assert folded.house.sizes == house.house.sizes
    assert folded.log_time == house.log_time
    require_same_states(house, reopened(shard).house)


@settings(max_examples=150, derandomize=True, phases=[Phase.generate], database=None)
@given(stream=streams())
def _collect(topics: Counter[str], stream: Stream) -> None:
    shard = ledger(stream, Book())
    for _ in play(stream, shard):
        pass
    topics.update({topic for _, _, topic, _ in rows_of(shard)})


def test_streams_reach_every_event_and_trouble_often() -> None:
    """The laws above mean little where nothing happens."""
    topics: Counter[str] = Counter()
    _collect(topics)

    # What shards send each other, no client can (tests/unit/test_between_shards.py).
    between = {event.TOPIC for event in EVENTS if event.ANSWERS in BETWEEN}
    assert between == TOPICS.keys() - topics.keys()
    assert 30 <= topics["clearing.margin-call-issued:1"]
    assert 30 <= topics["clearing.liquidation-completed:1"]
    assert 10 <= topics["clearing.shortfall-claimed:1"]
    assert 10 <= topics["clearing.funding-settled:1"]

