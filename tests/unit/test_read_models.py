"""The read models as folds of hand-made events: what each table holds, whatever the pages and rebuilds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from ledger.amounts import nanoseconds
from ledger.commands import PositionSide
from ledger.errors import BrokenInvariant
from ledger.events import (
    AccountOpened,
    AccountSettingsChanged,
    AssetListed,
    Cause,
    ClockMoved,
    CollateralConverted,
    Deposited,
    Event,
    Evidence,
    FillFlag,
    FillPosted,
    FundDrawn,
    FundingIndexMoved,
    FundingItem,
    FundingSettled,
    FundMoved,
    FundMovementRefused,
    Halted,
    InstrumentListed,
    LiquidationCompleted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    OrderReserved,
    PositionSettled,
    PriceRecorded,
    PriceRejected,
    ProvisionalMarkSet,
    Recorded,
    RecordRejected,
    RulebookPublished,
    RulebookVersion,
    ShortfallClaimed,
    ShortfallCovered,
    TradingSettingsChanged,
    Trigger,
    WarningEnded,
    WithdrawalHeld,
    WithdrawalRefused,
    Withdrawn,
)
from ledger.postings import postings
from projections.accounts import Accounts
from projections.journal import Journal, imbalances
from projections.read_model import ALL, PAGE_EVENTS_MAX, ReadModels
from projections.tables import Table

D = Decimal
MIDNIGHT = nanoseconds("2019-09-24T00:00:00Z")
SECOND = 1_000_000_000


class Log:
    """A log made by hand: each event one second after the last, from a source that counts its lines."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []

    def select(self, after: int, limit: int) -> Sequence[Recorded]:
        """The events after a position, as the store gives them."""
        return self.events[after:after + limit]

    @property
    def position(self) -> int:
        return len(self.events)

    def add(self, stream: str, kind: type[Event], /, **fields: Any) -> int:
        """Append an event; the position it takes."""
        position = self.position + 1
        time = MIDNIGHT + position * SECOND
        cause = fields.pop("cause", None) or Cause(
            source="file", type=kind.ANSWERS or "clock", id=f"r{position}", time=time, line=position)
        version = 1 + sum(row.originator_id == stream for row in self.events)
        self.events.append(Recorded(position, stream, version, kind(time=time, cause=cause, **fields)))
        return position

    def account(self, kind: type[Event], account: str = "A1", /, **fields: Any) -> int:
        return self.add(f"account:{account}", kind, account=account, **fields)

    def opened(self, account: str = "A1") -> int:
        return self.account(AccountOpened, account, margin_mode="cross", position_mode="net", kind="client")

    def deposited(self, amount: str, account: str = "A1", asset: str = "USD") -> int:
        return self.account(Deposited, account, asset=asset, amount=D(amount), balance=D(amount))

    def listed(self, instrument: str = "BTC-USD", *, contract_type: str = "linear", contract_size: str = "1") -> int:
        base, quote = instrument.split("-")
        return self.add(
            f"market:{instrument}", InstrumentListed, instrument=instrument, base=base, quote=quote,
            contract_type=contract_type, contract_size=D(contract_size), tick_size=D("0.1"), lot_size=D("0.001"))

    def price(self, price: str, *, instrument: str = "BTC-USD", source: str = "oracle", sequence: int | None = None,
              kind: str = "mark", rejected: str | None = None) -> int:
        fields: dict[str, Any] = {
            "instrument": instrument, "price": D(price), "source": source, "sequence": sequence, "kind": kind}
        if rejected is None:
            return self.add(f"market:{instrument}", PriceRecorded, **fields)
        return self.add(f"market:{instrument}", PriceRejected, **fields, reason=rejected, message="too old")

    def filled(self, side: str, size: str, price: str, after: str, *, account: str = "A1", trade: str = "T1",
               instrument: str = "BTC-USD", cost: str = "0", pnl: str = "0", rounding: str = "0", fee: str = "0",
               mode: Literal["cross", "isolated"] = "cross", position: PositionSide = "net", margin: str = "0",
               order: str | None = None, asset: str = "USD", fee_asset: str | None = None, index: str = "0",
               flags: Sequence[FillFlag] = ()) -> int:
        return self.account(
            FillPosted, account, trade_id=trade, instrument=instrument, side=side, size=D(size), price=D(price),
            fee=D(fee), fee_asset=fee_asset, liquidation_order_id=order, mode=mode, position=position,
            settlement_asset=asset, charged_asset=fee_asset or asset, closed_size=D(0), realised_pnl=D(pnl),
            rounding=D(rounding), position_size=D(after), position_cost=D(cost), funding_index=D(index),
            isolated_margin=D(margin), flags=list(flags))

    def pool_event(self, kind: type[Event], /, *, pool: str = "cross", **fields: Any) -> int:
        return self.account(kind, pool=pool, evidence=evidence(), **fields)

    def warned(self, pool: str = "cross") -> int:
        return self.pool_event(MarginWarned, pool=pool, warning_level=D("1.5"))

    def called(self, call: str = "call-1", pool: str = "cross") -> int:
        return self.pool_event(
            MarginCallIssued, pool=pool, call_id=call, deadline=MIDNIGHT + 3600 * SECOND, call_asset="USD",
            call_amount=D("10.50"), eligible={"USD": D("10.50")}, call_level=D("1.2"), cure_level=D("1.3"),
            consequence="liquidated", message="Pay 10.50 USD.")

    def liquidated(self, liquidation: str = "liquidation-1", pool: str = "cross") -> int:
        return self.pool_event(LiquidationStarted, pool=pool, liquidation_id=liquidation,
                               reason="below-liquidation-line", stop_level=D("1.1"))

    def ordered(self, order: str, size: str, *, instrument: str = "BTC-USD") -> int:
        return self.pool_event(
            LiquidationOrderPlaced, liquidation_id="liquidation-1", order_id=order, instrument=instrument,
            position_side="net", side="sell", size=D(size), limit_price=D("9000"),
            expires_at=MIDNIGHT + 7200 * SECOND)

    def completed(self, outcome: str, pool: str = "cross") -> int:
        return self.pool_event(LiquidationCompleted, pool=pool, liquidation_id="liquidation-1", outcome=outcome)

    def claimed(self, amount: str, asset: str = "USD", claim: str = "claim-1") -> int:
        return self.pool_event(ShortfallClaimed, liquidation_id="liquidation-1", claim_id=claim, asset=asset,
                               amount=D(amount), recourse="limited")

    def fund_moved(self, kind: str, amount: str, before: str, after: str) -> int:
        return self.add("fund:insurance:USD", FundMoved, fund="insurance", asset="USD", amount=D(amount), kind=kind,
                        contributor="M1", before=D(before), after=D(after))

    def drawn(self, amount: str, before: str, after: str, claim: str = "claim-1") -> int:
        return self.add("fund:insurance:USD", FundDrawn, fund="insurance", asset="USD", account="A1", claim_id=claim,
                        claimed=D("30"), amount=D(amount), before=D(before), after=D(after))

    def covered(self, covered: str, uncovered: str, claim: str = "claim-1") -> int:
        return self.account(ShortfallCovered, claim_id=claim, asset="USD", claimed=D("30"), fund="insurance",
                            covered=D(covered), uncovered=D(uncovered))

    def settled_position(self, instrument: str, size: str, after: str, *, cost: str = "0", pnl: str = "0",
                         mode: Literal["cross", "isolated"] = "cross", kind: str = "expiry") -> int:
        return self.account(
            PositionSettled, instrument=instrument, kind=kind, price=D(100), mode=mode, position="net",
            settlement_asset="USD", settled_size=D(size), realised_pnl=D(pnl), rounding=D(0),
            position_size=D(after), position_cost=D(cost), isolated_margin=D(0))

    def rejected(self, cause: Cause | None = None) -> int:
        return self.add("intake:file", RecordRejected, reason="malformed", message="no JSON", known_by="at", key="1",
                        raw="x", raw_encoding="utf-8", raw_bytes=1, sha256="00", cause=cause)


def evidence(ratio: str | None = "1.15") -> Evidence:
    return Evidence(
        account_equity=D(1), margin_equity=D(1), collateral_value=D(1), unrealised_pnl=D(0), initial_margin=D(1),
        maintenance_margin=D(1), margin_ratio=None if ratio is None else D(ratio), balances={}, marks={},
        positions=[], rulebook=RulebookVersion(name="house", version=1), trigger=Trigger(position=1, type="price"))


def at(position: int) -> str:
    """The log time of the event at a position."""
    return f"2019-09-24T00:{position // 60:02}:{position % 60:02}Z"


_CONNECTIONS: list[sqlite3.Connection] = []


def connect(database: Path | str = ":memory:", **options: Any) -> sqlite3.Connection:
    """A connection that is closed when the test ends."""
    _CONNECTIONS.append(sqlite3.connect(database, **options))
    return _CONNECTIONS[-1]


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while _CONNECTIONS:
        _CONNECTIONS.pop().close()


def built(log: Log, *, page: int = PAGE_EVENTS_MAX) -> ReadModels:
    """All read models over the log, in one go or with new ones for every page."""
    connection = connect()
    models = ReadModels(connection)
    models.create()
    while models.catch_up(log.select, until=models.position() + page) < log.position:
        models = ReadModels(connection)
    return models


def table(log: Log, name: str) -> list[dict[str, Any]]:
    """The rows of a table as objects, the same for a build in one go and for pages of one and three events."""
    whole, single, triple = built(log), built(log, page=1), built(log, page=3)

    assert whole.rows(name) == single.rows(name) == triple.rows(name)
    columns = whole._tables[name].columns
    return [dict(zip(columns, row, strict=True)) for row in whole.rows(name)]


def only(log: Log, name: str) -> dict[str, Any]:
    row, = table(log, name)
    return row


def part(row: dict[str, Any], *columns: str) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)


def busy_log() -> Log:
    """A log with something for every table."""
    log = Log()
    log.add("clock", ClockMoved)
    log.add("rulebook", RulebookPublished, name="house", version=2, effective=MIDNIGHT, rulebook="house", content={})
    log.add("asset:USD", AssetListed, asset="USD", quantum=D("0.01"))
    log.listed()
    log.listed("ETH-USD", contract_size="0.1")
    log.opened()
    log.opened("A2")
    log.deposited("1000")
    log.deposited("500", "A2")
    log.price("10000", sequence=1)
    log.price("9999", sequence=2, rejected="late")
    log.filled("buy", "1.5", "10000", "1.5", cost="15000", fee="1.25")
    log.filled("sell", "1.5", "10000", "-1.5", account="A2", cost="-15000")
    log.filled("buy", "2", "200", "2", instrument="ETH-USD", mode="isolated", cost="40", margin="12", trade="T2")
    log.add("market:BTC-USD", FundingIndexMoved, instrument="BTC-USD", rate=D("0.0001"), mark_price=D("10000"),
            index_before=D(0), index_after=D(1))
    log.account(FundingSettled, items=[FundingItem(
        instrument="BTC-USD", margin_mode="cross", position_side="net", asset="USD", index=D(1), payment=D("-1.50"),
        rounding=D("0.003"))])
    log.warned()
    log.called()
    log.pool_event(MarginCallSuperseded, call_id="call-1")
    log.liquidated()
    log.ordered("order-1", "1.5")
    log.filled("sell", "0.5", "9000", "1", cost="10000", pnl="-500.01", rounding="0.01", order="order-1", trade="T3")
    log.filled("sell", "1", "9000", "0", pnl="-1000", order="order-1", trade="T4")
    log.fund_moved("contribution", "100", "0", "100")
    log.claimed("30")
    log.drawn("30", "100", "70")
    log.covered("30", "0")
    log.completed("shortfall")
    log.account(Withdrawn, "A2", asset="USD", amount=D("500"), balance=D("0"))
    log.account(TradingSettingsChanged, leverage=D(5))
    log.account(OrderReserved, order_id="o1", instrument="BTC-USD", side="buy", remaining=D(1), price=D("9000"),
                reduce_only=False)
    log.account(WithdrawalHeld, asset="USD", amount=D(3), hold=True, withdrawal="w1", balance=D(0))
    log.settled_position("ETH-USD", "2", "0", mode="isolated")
    log.add("halts", Halted, scope="all", what="withdrawals", reason="drill", by="desk")
    log.rejected()
    return log


# --- accounts ----------------------------------------------------------------------------------------------------


def test_an_account_shows_its_settings_and_its_last_event() -> None:
    log = Log()
    log.opened()
    log.account(AccountSettingsChanged, margin_mode="isolated", position_mode="hedge", kind="house", member="M1",
                rulebook="tight")
    log.deposited("5")

    row = only(log, "view_accounts")

    assert ("A1", "house", "isolated", "hedge", "M1", "tight", "healthy", at(1), at(3), 0, 3) == part(
        row, "account", "kind", "margin_mode", "position_mode", "member", "rulebook", "status", "opened_at",
        "last_event_at", "fills", "log_position")


def test_events_of_the_market_and_of_the_fund_are_not_events_of_an_account() -> None:
    log = Log()
    log.opened()
    log.listed()
    log.price("10000")
    log.drawn("0", "0", "0")

    assert 1 == only(log, "view_accounts")["log_position"]


def test_an_event_of_an_account_that_was_never_opened_is_refused() -> None:
    log = Log()
    log.deposited("5")

    with pytest.raises(BrokenInvariant, match="account A1 was never opened"):
        built(log)


def test_balances_are_the_sums_of_the_postings_by_pool_and_asset() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.deposited("1000.50")
    log.deposited("2", asset="BTC")
    log.account(Withdrawn, asset="USD", amount=D("0.50"), balance=D("1000"))
    log.filled("buy", "1", "100", "1", cost="100", mode="isolated", margin="40", fee="0.25")
    log.filled("buy", "1", "100", "1", cost="100", fee="0.001", fee_asset="BTC", trade="T2")

    balances = [part(row, "account", "pool", "asset", "amount") for row in table(log, "view_balances")]

    assert [
        ("A1", "cross", "BTC", "1.999"),
        ("A1", "cross", "USD", "960"),
        ("A1", "isolated:BTC-USD:net", "USD", "39.75"),
    ] == balances


def test_a_balance_that_comes_to_zero_stays_as_zero() -> None:
    log = Log()
    log.opened()
    log.deposited("10")
    log.account(Withdrawn, asset="USD", amount=D("10"), balance=D("0"))

    assert "0" == only(log, "view_balances")["amount"]


def test_a_refused_withdrawal_moves_nothing() -> None:
    log = Log()
    log.opened()
    log.deposited("10")
    log.account(WithdrawalRefused, asset="USD", amount=D("11"), withdrawable=D("10"), reason="beyond-withdrawable",
                message="too much", evidence=evidence())

    assert "10" == only(log, "view_balances")["amount"]
    assert 3 == only(log, "view_accounts")["log_position"]


def test_converted_collateral_and_a_claimed_shortfall_move_balances() -> None:
    log = Log()
    log.opened()
    log.deposited("3", asset="BTC")
    log.liquidated()
    log.pool_event(CollateralConverted, liquidation_id="liquidation-1", sold_asset="BTC", sold_amount=D("2"),
                   bought_asset="USD", bought_amount=D("198"), price=D("100"), fee_rate=D("0.01"))
    log.claimed("7")

    assert [("BTC", "1"), ("USD", "205")] == [part(row, "asset", "amount") for row in table(log, "view_balances")]


def test_a_position_keeps_its_totals_until_it_is_flat() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.filled("buy", "2", "100", "2", cost="200", pnl="0")
    log.filled("sell", "1", "110", "1", cost="100", pnl="10", index="3")
    log.account(FundingSettled, items=[FundingItem(
        instrument="BTC-USD", margin_mode="cross", position_side="net", asset="USD", index=D(5), payment=D("-0.75"),
        rounding=D("0.005"))])
    last = log.filled("sell", "3", "110", "-2", cost="-220", pnl="9.5", index="5")

    assert {"account": "A1", "instrument": "BTC-USD", "margin_mode": "cross", "position_side": "net",
            "settlement_asset": "USD", "size": "-2", "cost": "-220",
            "leverage": None, "funding_index": "5", "realised_pnl": "19.5", "funding": "-0.75",
            "log_position": last} == only(log, "view_positions")


def test_a_flat_position_has_no_row_and_a_new_one_starts_its_totals_anew() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.filled("buy", "2", "100", "2", cost="200")
    log.filled("sell", "2", "110", "0", pnl="20")

    assert [] == table(log, "view_positions")

    log.filled("buy", "1", "100", "1", cost="100")

    assert ("1", "0") == part(only(log, "view_positions"), "size", "realised_pnl")


def test_positions_of_one_instrument_are_kept_apart_by_mode_and_side() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.filled("buy", "1", "100", "1", position="long")
    log.filled("sell", "2", "100", "-2", position="short")
    log.filled("buy", "3", "100", "3", mode="isolated", position="long")

    assert [("cross", "long", "1"), ("cross", "short", "-2"), ("isolated", "long", "3")] == [
        part(row, "margin_mode", "position_side", "size") for row in table(log, "view_positions")]


def test_funding_settled_for_a_position_that_is_not_there_is_refused() -> None:
    log = Log()
    log.opened()
    log.account(FundingSettled, items=[FundingItem(
        instrument="BTC-USD", margin_mode="cross", position_side="net", asset="USD", index=D(5), payment=D(0),
        rounding=D(0))])

    with pytest.raises(BrokenInvariant, match="no such cross position net"):
        built(log)


def test_status_follows_warning_call_and_liquidation() -> None:
    log = Log()
    log.opened()
    log.listed()
    steps: list[Callable[[], int]] = [
        log.warned, log.called, lambda: log.pool_event(MarginCallMet, call_id="call-1"), lambda: log.called("call-2"),
        lambda: log.pool_event(MarginCallExpired, call_id="call-2"), log.liquidated,
        lambda: log.completed("recovered"), lambda: log.pool_event(WarningEnded)]
    statuses = []
    for step in steps:
        step()
        assert only(log, "view_accounts")["status"] == only(log, "view_pools")["status"]
        statuses.append(only(log, "view_accounts")["status"])

    assert ["warning", "margin-call", "warning", "margin-call", "liquidation", "liquidation", "warning",
            "healthy"] == statuses


def test_a_called_pool_counts_as_warned_without_a_warning_before() -> None:
    log = Log()
    log.opened()
    log.called()
    log.pool_event(MarginCallWithdrawn, call_id="call-1")

    assert ("warning", 1, None) == part(only(log, "view_pools"), "status", "warned", "call_id")


def test_a_pool_is_due_between_the_expiry_of_its_call_and_the_start_of_its_liquidation() -> None:
    log = Log()
    log.opened()
    log.called()
    log.pool_event(MarginCallExpired, call_id="call-1")

    assert ("liquidation", 1, None, None) == part(
        only(log, "view_pools"), "status", "due", "call_id", "liquidation_id")

    log.liquidated()

    assert ("liquidation", 0, "liquidation-1") == part(only(log, "view_pools"), "status", "due", "liquidation_id")


def test_an_account_has_the_worst_status_of_its_pools() -> None:
    log = Log()
    log.opened()
    log.warned()
    log.called("call-1", "isolated:BTC-USD:net")
    log.liquidated("liquidation-1", "isolated:ETH-USD:net")

    account = only(log, "view_accounts")

    assert ("liquidation", 1, 1, 1) == part(
        account, "status", "pools_warning", "pools_called", "pools_liquidating")
    assert [("cross", "warning"), ("isolated:BTC-USD:net", "margin-call"), ("isolated:ETH-USD:net", "liquidation")] == [
        part(row, "pool", "status") for row in table(log, "view_pools")]

    log.completed("closed", "isolated:ETH-USD:net")

    assert "margin-call" == only(log, "view_accounts")["status"]


# --- margin calls and liquidations -------------------------------------------------------------------------------


def test_an_open_call_shows_what_is_asked_by_when_and_why() -> None:
    log = Log()
    log.opened()
    issued = log.called()

    row = only(log, "view_margin_calls")

    assert ("call-1", "A1", "cross", at(issued), issued, "2019-09-24T01:00:00Z", "USD", "10.5", "1.3", "1.15", "open",
            None, None, None, "Pay 10.50 USD.") == part(
        row, "call_id", "account", "pool", "issued_at", "issued_position", "deadline", "call_asset", "call_amount",
        "cure_level", "margin_ratio", "state", "ended_at", "ended_position", "end_evidence", "message")
    assert "1.15" == json.loads(row["issue_evidence"])["margin_ratio"]


@pytest.mark.parametrize(("kind", "state"), [
    (MarginCallMet, "met"), (MarginCallWithdrawn, "withdrawn"), (MarginCallExpired, "expired"),
    (MarginCallSuperseded, "superseded")])
def test_a_call_ends_in_the_state_that_its_event_says(kind: type[Event], state: str) -> None:
    log = Log()
    log.opened()
    log.called()
    ended = log.pool_event(kind, call_id="call-1")

    row = only(log, "view_margin_calls")

    assert (state, at(ended), ended) == part(row, "state", "ended_at", "ended_position")
    assert row["issue_evidence"] == row["end_evidence"]


def test_a_call_that_ends_twice_is_refused() -> None:
    log = Log()
    log.opened()
    log.called()
    log.pool_event(MarginCallMet, call_id="call-1")
    log.pool_event(MarginCallExpired, call_id="call-1")

    with pytest.raises(BrokenInvariant, match="call call-1 ends but is not open"):
        built(log)


def test_a_call_a_liquidation_an_order_and_a_claim_are_refused_the_second_time() -> None:
    repeated: list[tuple[str, Callable[[Log], int]]] = [
        ("call call-1 is issued twice", lambda log: log.called()),
        ("liquidation liquidation-1 is started twice", lambda log: log.liquidated()),
        ("order order-1 is placed twice", lambda log: log.ordered("order-1", "1")),
        ("shortfall claim-1 is claimed twice", lambda log: log.claimed("1"))]
    for message, step in repeated:
        log = Log()
        log.opened()
        if "started" not in message:
            log.liquidated()
        step(log)
        step(log)

        with pytest.raises(BrokenInvariant, match=message):
            built(log)


def test_a_liquidation_counts_its_orders_fills_and_notional() -> None:
    log = Log()
    log.listed(contract_size="10")
    log.opened()
    started = log.liquidated()
    log.ordered("order-1", "3")
    log.filled("sell", "1", "100", "2", order="order-1", trade="T1")
    log.filled("sell", "2", "99", "0", order="order-1", trade="T2")
    log.claimed("5")
    completed = log.completed("shortfall")

    assert {"liquidation_id": "liquidation-1", "account": "A1", "pool": "cross", "reason": "below-liquidation-line",
            "started_at": at(started), "started_position": started, "state": "shortfall",
            "completed_at": at(completed), "orders": 1, "fills": 2, "notional_filled": "2980",
            "notional_asset": "USD", "shortfall_amount": "5", "shortfall_asset": "USD",
            } == only(log, "view_liquidations")


def test_a_liquidation_in_several_assets_has_its_totals_by_asset_and_no_sum_of_unlike_things() -> None:
    log = Log()
    log.listed()
    log.listed("ETH-BTC", contract_type="inverse")
    log.opened()
    log.liquidated()
    log.ordered("order-1", "1")
    log.ordered("order-2", "1", instrument="ETH-BTC")
    log.filled("sell", "1", "100", "0", order="order-1", trade="T1")
    log.filled("sell", "1", "8", "0", instrument="ETH-BTC", asset="ETH", order="order-2", trade="T2")
    log.claimed("5")
    log.claimed("2", "ETH", "claim-2")

    assert (None, None, None, None) == part(
        only(log, "view_liquidations"), "notional_filled", "notional_asset", "shortfall_amount", "shortfall_asset")
    assert [("ETH", "0.125", "2"), ("USD", "100", "5")] == [
        part(row, "asset", "notional_filled", "shortfall") for row in table(log, "view_liquidation_totals")]


def test_a_running_liquidation_without_fills_has_filled_nothing() -> None:
    log = Log()
    log.opened()
    log.liquidated()

    assert ("running", None, 0, 0, "0", None, "0", None) == part(
        only(log, "view_liquidations"), "state", "completed_at", "orders", "fills", "notional_filled",
        "notional_asset", "shortfall_amount", "shortfall_asset")


def test_an_order_goes_from_open_to_part_filled_to_filled() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.liquidated()
    placed = log.ordered("order-1", "3")

    assert {"order_id": "order-1", "liquidation_id": "liquidation-1", "account": "A1", "pool": "cross",
            "instrument": "BTC-USD", "position_side": "net", "side": "sell", "size": "3", "filled": "0",
            "limit_price": "9000", "state": "open", "reason": None, "placed_at": at(placed),
            "expires_at": "2019-09-24T02:00:00Z", "closed_at": None, "result": None, "result_at": None,
            } == only(log, "view_liquidation_orders")

    log.filled("sell", "1", "100", "2", order="order-1")

    assert ("part-filled", "1", None) == part(only(log, "view_liquidation_orders"), "state", "filled", "closed_at")

    filled = log.filled("sell", "2.5", "100", "-0.5", order="order-1", flags=["order-exceeded"])

    assert ("filled", "3.5", at(filled)) == part(
        only(log, "view_liquidation_orders"), "state", "filled", "closed_at")


@pytest.mark.parametrize(("reason", "state"), [
    ("expired", "expired"), ("recovered", "cancelled"), ("repriced", "cancelled"), ("position-changed", "cancelled")])
def test_an_order_is_cancelled_with_its_reason(reason: str, state: str) -> None:
    log = Log()
    log.listed()
    log.opened()
    log.liquidated()
    log.ordered("order-1", "3")
    log.filled("sell", "1", "100", "2", order="order-1")
    cancelled = log.account(LiquidationOrderCancelled, pool="cross", liquidation_id="liquidation-1",
                            order_id="order-1", reason=reason, filled=D(1))

    assert (state, reason, "1", at(cancelled)) == part(
        only(log, "view_liquidation_orders"), "state", "reason", "filled", "closed_at")


def test_a_fill_that_names_a_closed_or_unknown_order_changes_none() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.liquidated()
    log.ordered("order-1", "1")
    log.filled("sell", "1", "100", "0", order="order-1")
    log.filled("sell", "1", "100", "-1", order="order-1", flags=["order-closed"], trade="T2")
    log.filled("sell", "1", "100", "-2", order="no-such-order", flags=["order-closed"], trade="T3")

    assert ("filled", "1") == part(only(log, "view_liquidation_orders"), "state", "filled")
    assert 1 == only(log, "view_liquidations")["fills"]


def test_a_fill_of_an_order_that_is_not_open_is_refused_unless_flagged() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.filled("sell", "1", "100", "-1", order="order-1")

    with pytest.raises(BrokenInvariant, match="expected order order-1 to be open, it was never placed"):
        built(log)


# --- markets -----------------------------------------------------------------------------------------------------


def test_a_market_shows_its_terms_and_its_last_mark() -> None:
    log = Log()
    log.listed()
    log.price("9990", source="other")
    mark = log.price("10000.50", sequence=7)
    log.price("5", kind="index")

    assert {"instrument": "BTC-USD", "base": "BTC", "quote": "USD", "contract_type": "linear", "contract_size": "1",
            "tick_size": "0.1", "lot_size": "0.001", "underlying": None, "expiry": None, "mark_price": "10000.5",
            "mark_time": at(mark), "mark_position": mark, "mark_source": "oracle", "is_median": 0,
            "provisional": 0, "funding_index": "0", "funding_rate": None, "funding_time": None, "prices_accepted": 3,
            "rejected_late": 0, "rejected_step": 0, "rejected_settled": 0, "fills": 0, "volume": "0",
            "open_interest": "0", "settlement_asset": "USD", "settlement_price": None, "settlement_kind": None,
            "settlement_time": None, "settled": 0} == only(log, "view_markets")


def test_the_time_of_a_mark_is_that_of_its_record_not_of_the_log() -> None:
    log = Log()
    log.listed()
    log.add("market:BTC-USD", PriceRecorded, instrument="BTC-USD", price=D(1), source="oracle", kind="mark",
            cause=Cause(source="file", type="price", time=MIDNIGHT + 1))

    assert "2019-09-24T00:00:00.000000001Z" == only(log, "view_markets")["mark_time"]


def test_a_provisional_mark_holds_until_a_mark_comes() -> None:
    log = Log()
    log.listed()
    log.add("market:BTC-USD", ProvisionalMarkSet, instrument="BTC-USD", price=D("99"))

    assert ("99", 1, None) == part(only(log, "view_markets"), "mark_price", "provisional", "mark_source")

    log.price("100")

    assert ("100", 0, "oracle") == part(only(log, "view_markets"), "mark_price", "provisional", "mark_source")


def test_rejected_prices_are_counted_by_reason_and_spend_their_sequence() -> None:
    log = Log()
    log.listed()
    log.price("1", sequence=4, rejected="step")
    log.price("10", sequence=5)
    log.price("9", sequence=6, rejected="late")
    log.price("2", sequence=7, rejected="step")

    assert (1, 1, 2) == part(only(log, "view_markets"), "prices_accepted", "rejected_late", "rejected_step")
    assert ("oracle", at(3), "10", 7) == part(
        only(log, "view_market_sources"), "source", "last_time", "last_price", "sequence")


def test_a_source_that_was_only_ever_rejected_has_no_last_price() -> None:
    log = Log()
    log.listed()
    log.price("1", rejected="step")

    assert (None, None, None) == part(only(log, "view_market_sources"), "last_time", "last_price", "sequence")


def test_a_market_listed_again_keeps_what_has_happened_on_it() -> None:
    log = Log()
    log.listed()
    log.price("100")
    log.add("market:BTC-USD", FundingIndexMoved, instrument="BTC-USD", rate=D("0.01"), mark_price=D(100),
            index_before=D(0), index_after=D(1))
    log.add("market:BTC-USD", InstrumentListed, instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
            contract_size=D(1), tick_size=D("0.5"), lot_size=D("0.001"), expiry=MIDNIGHT)

    assert ("0.5", "2019-09-24T00:00:00Z", "100", "1") == part(
        only(log, "view_markets"), "tick_size", "expiry", "mark_price", "funding_index")


def test_open_interest_is_the_size_of_all_longs_and_volume_that_of_all_fills() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.opened("A2")
    seen = []
    for account, side, size, after in (
            ("A1", "buy", "3", "3"), ("A2", "sell", "3", "-3"), ("A1", "sell", "1", "2"), ("A2", "buy", "1", "-2"),
            ("A1", "sell", "5", "-3"), ("A2", "buy", "5", "3")):
        log.filled(side, size, "100", after, account=account)
        seen.append(part(only(log, "view_markets"), "open_interest", "volume", "fills"))

    assert [("3", "3", 1), ("3", "6", 2), ("2", "7", 3), ("2", "8", 4), ("0", "13", 5), ("3", "18", 6)] == seen


def test_an_event_of_a_market_that_was_never_listed_is_refused() -> None:
    log = Log()
    log.price("100")

    with pytest.raises(BrokenInvariant, match="instrument BTC-USD was never listed"):
        built(log)


def test_assets_show_what_they_were_last_listed_as() -> None:
    log = Log()
    log.add("asset:BTC", AssetListed, asset="BTC", quantum=D("0.00000001"))
    log.add("asset:BTC", AssetListed, asset="BTC", quantum=D("0.00000001"), pricing_instrument="BTC-USD")

    assert {"asset": "BTC", "quantum": "0.00000001", "pricing_instrument": "BTC-USD", "borrow_rate": None,
            "lend_rate": None, "borrow_index": "0", "lend_index": "0", "rates_since": None} == only(log, "view_assets")


def test_every_publication_of_a_rulebook_has_a_row() -> None:
    log = Log()
    for effective in (MIDNIGHT, MIDNIGHT + SECOND):
        log.add("rulebook", RulebookPublished, name="house", version=2, effective=effective, rulebook="house",
                content={})

    assert [("house", 2, "2019-09-24T00:00:00Z", 1), ("house", 2, "2019-09-24T00:00:01Z", 2)] == [
        part(row, "name", "version", "effective", "log_position") for row in table(log, "view_rulebooks")]


# --- funds -------------------------------------------------------------------------------------------------------


def test_a_fund_shows_its_balance_and_how_it_came_to_it() -> None:
    log = Log()
    log.fund_moved("contribution", "100", "0", "100")
    log.fund_moved("withdrawal", "20", "100", "80")
    log.drawn("30", "80", "50")
    log.fund_moved("recovery", "5.50", "50", "55.5")

    assert {"fund": "insurance", "asset": "USD", "balance": "55.5", "contributed": "100", "withdrawn": "20",
            "drawn": "30", "recovered": "5.5"} == only(log, "view_funds")
    assert [
        (1, at(1), "contribution", "100", "0", "100", None, None, "M1"),
        (2, at(2), "withdrawal", "-20", "100", "80", None, None, "M1"),
        (3, at(3), "draw", "-30", "80", "50", "A1", "claim-1", None),
        (4, at(4), "recovery", "5.5", "50", "55.5", None, None, "M1"),
    ] == [part(row, "position", "time", "kind", "amount", "before", "after", "account", "claim_id", "contributor")
          for row in table(log, "view_fund_movements")]


def test_a_fund_event_that_does_not_follow_from_the_balance_is_refused() -> None:
    log = Log()
    log.fund_moved("contribution", "100", "0", "100")
    log.fund_moved("contribution", "100", "90", "190")

    with pytest.raises(BrokenInvariant, match="fund insurance held 100 USD, its event says 90"):
        built(log)


def test_a_shortfall_is_covered_step_by_step() -> None:
    log = Log()
    log.opened()
    log.liquidated()
    claimed = log.claimed("30")

    assert {"claim_id": "claim-1", "account": "A1", "pool": "cross", "asset": "USD", "amount": "30", "covered": "0",
            "uncovered": "30", "time": at(claimed), "position": claimed, "recourse": "limited",
            } == only(log, "view_shortfalls")

    log.covered("10", "20")
    log.covered("15", "5")

    assert ("25", "5") == part(only(log, "view_shortfalls"), "covered", "uncovered")


def test_cover_for_a_shortfall_that_was_never_claimed_is_refused() -> None:
    log = Log()
    log.opened()
    log.covered("10", "20")

    with pytest.raises(BrokenInvariant, match="shortfall claim-1 was never claimed"):
        built(log)


# --- journal -----------------------------------------------------------------------------------------------------


def test_the_journal_has_a_line_for_every_posting() -> None:
    log = Log()
    log.listed()
    log.opened()
    position = log.filled("sell", "1", "90", "0", pnl="-10.01", rounding="0.01", fee="0.5")

    lines = table(log, "view_journal")

    assert [
        (1, "account", "A1", "cross", "USD", "-10.01"),
        (2, "house", "", "", "USD", "10"),
        (3, "house:rounding", "", "", "USD", "0.01"),
        (4, "account", "A1", "cross", "USD", "-0.5"),
        (5, "fees", "", "", "USD", "0.5"),
    ] == [part(line, "line", "owner", "account", "pool", "asset", "amount") for line in lines]
    assert {(position, at(position), "clearing.fill-posted:1", "account:A1")} == {
        part(line, "position", "time", "topic", "stream") for line in lines}


def test_the_trial_balance_puts_all_accounts_together_and_sums_to_zero() -> None:
    log = Log()
    log.opened()
    log.opened("A2")
    log.deposited("100")
    log.deposited("50", "A2")
    log.fund_moved("contribution", "7", "0", "7")

    models = built(log)

    assert [("account", "USD", "150"), ("custody", "USD", "-157"), ("fund:insurance", "USD", "7")] == models.rows(
        "view_trial_balance")
    assert [] == imbalances(models._connection)


def test_an_imbalance_is_found_by_asset_and_amount() -> None:
    log = Log()
    log.opened()
    log.deposited("100.5")
    log.deposited("2", asset="BTC")
    connection = built(log)._connection
    connection.cursor().execute(
        "UPDATE view_trial_balance SET amount = '-100.25' WHERE owner = 'custody' AND asset = 'USD'")

    assert [("USD", D("0.25"))] == imbalances(connection)


def test_an_event_whose_own_postings_do_not_sum_to_zero_is_refused() -> None:
    log = Log()
    log.opened()
    log.deposited("1")
    # The postings of an event balance by how they are made; a journal of half of them does not.
    journal = Journal(connect(), lambda event: postings(event)[:1])

    with pytest.raises(BrokenInvariant, match=r"log position 2: the postings of .* sum to 1 USD, expected zero"):
        for recorded in log.events:
            journal.apply(recorded)


# --- records -----------------------------------------------------------------------------------------------------


def test_each_record_has_one_row_with_its_outcome() -> None:
    log = Log()
    log.opened()
    log.account(WithdrawalRefused, asset="USD", amount=D("11"), withdrawable=D("10"), reason="call-open",
                message="a margin call is open", evidence=evidence())
    log.add("fund:insurance:USD", FundMovementRefused, fund="insurance", asset="USD", amount=D(1), kind="withdrawal",
            available=D(0), message="the fund holds 0 USD")
    log.rejected(Cause(source="orders", type="?", partition=3, offset=17))
    log.warned()

    columns = ("source", "type", "record_id", "line", "partition", "offset", "position", "topic", "outcome", "reason",
               "message", "time", "record_time")
    assert [
        ("file", "account", "r1", 1, None, None, 1, "clearing.account-opened:1", "applied", None, None, at(1), at(1)),
        ("file", "withdrawal", "r2", 2, None, None, 2, "clearing.withdrawal-refused:1", "refused", "call-open",
         "a margin call is open", at(2), at(2)),
        ("file", "fund-movement", "r3", 3, None, None, 3, "clearing.fund-movement-refused:1", "refused",
         "beyond-fund", "the fund holds 0 USD", at(3), at(3)),
        ("orders", "?", None, None, 3, 17, 4, "clearing.record-rejected:1", "rejected", "malformed", "no JSON", at(4),
         None),
    ] == [part(row, *columns) for row in table(log, "view_records")]


def test_of_prices_only_the_rejected_have_a_row() -> None:
    log = Log()
    log.listed()
    log.price("100")
    log.price("99", rejected="late")

    assert [("instrument", "applied", None), ("price", "rejected", "late")] == [
        part(row, "type", "outcome", "reason") for row in table(log, "view_records")]


# --- trades ------------------------------------------------------------------------------------------------------


def test_a_trade_is_open_until_as_much_is_sold_as_bought() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.opened("A2")
    log.filled("buy", "3", "100", "3")
    log.filled("sell", "1", "100", "-1", account="A2")

    assert {"trade_id": "T1", "instrument": "BTC-USD", "bought": "3", "sold": "1"} == only(log, "view_open_trades")

    log.filled("sell", "2", "100", "-3", account="A2")

    assert [] == table(log, "view_open_trades")


def test_a_trade_that_meets_and_is_named_again_is_open_again() -> None:
    log = Log()
    log.listed()
    log.opened()
    log.filled("buy", "1", "100", "1")
    log.filled("sell", "1", "100", "0")
    log.filled("sell", "2", "100", "-2")

    assert ("0", "2") == part(only(log, "view_open_trades"), "bought", "sold")


# --- following the log -------------------------------------------------------------------------------------------


def contents(models: ReadModels) -> dict[str, list[tuple[Any, ...]]]:
    return {name: models.rows(name) for model in ALL for name in model.TABLES}


@pytest.mark.parametrize("page", [1, 2, 7])
def test_pages_with_new_read_models_between_them_give_the_rows_of_one_go(page: int) -> None:
    log = busy_log()

    assert contents(built(log)) == contents(built(log, page=page))


def test_the_busy_log_has_rows_for_every_table() -> None:
    empty = {name for name, rows in contents(built(busy_log())).items() if not rows}

    assert set() == empty


def test_sqlite_finds_no_damage_in_any_table() -> None:
    """A file in which it found some would not be opened."""
    connection = built(busy_log())._connection

    for check in ("quick_check", "integrity_check"):
        assert [("ok",)] == connection.cursor().execute(f"PRAGMA {check}").fetchall()


def test_tables_of_an_older_make_are_built_anew() -> None:
    log = busy_log()
    models = built(log)
    before = contents(models)
    cursor = models._connection.cursor()
    cursor.execute("DROP TABLE view_funds")
    cursor.execute('CREATE TABLE view_funds ("fund" TEXT)')
    cursor.execute("UPDATE view_shape SET shape = 'older' WHERE view = 'funds'")
    cursor.execute("COMMIT")
    anew = ReadModels(models._connection)
    anew.create()

    assert 0 == anew.position()
    anew.catch_up(log.select)
    assert before == contents(anew)


def test_dropped_models_are_rebuilt_to_the_same_rows() -> None:
    log = busy_log()
    models = built(log)
    before = contents(models)
    models.drop()

    assert 0 == models.position()
    assert not any(contents(models).values())

    models.catch_up(log.select)

    assert before == contents(models)


def test_models_follow_a_log_that_grows() -> None:
    log = busy_log()
    models = built(log)
    assert log.position == models.position()

    log.deposited("3", "A2")

    assert log.position == models.catch_up(log.select)
    assert contents(built(log)) == contents(models)


def test_models_stop_at_the_position_asked_for() -> None:
    log = busy_log()
    models = ReadModels(connect())
    models.create()

    assert 9 == models.catch_up(log.select, until=9)
    assert 9 == models.catch_up(log.select, until=5)
    assert [("A1", 8), ("A2", 9)] == [(row[0], row[-1]) for row in models.rows("view_accounts")]


def test_a_log_longer_than_a_page_is_folded_page_by_page_with_progress() -> None:
    log = Log()
    log.listed()
    log.opened()
    for number in range(PAGE_EVENTS_MAX):
        log.events.append(Recorded(log.position + 1, "account:A1", number + 2, Deposited(
            time=MIDNIGHT, cause=Cause(source="file", type="deposit"), account="A1", asset="USD", amount=D(1),
            balance=D(number + 1))))
    models = ReadModels(connect())
    models.create()
    seen: list[int] = []

    models.catch_up(log.select, progress=seen.append)

    assert [PAGE_EVENTS_MAX, PAGE_EVENTS_MAX + 2] == seen
    assert [("A1", "cross", "USD", str(PAGE_EVENTS_MAX))] == models.rows("view_balances")


def test_a_gap_in_the_positions_is_refused_and_nothing_of_its_page_is_kept() -> None:
    log = busy_log()
    models = ReadModels(connect())
    models.create()
    models.catch_up(log.select, until=8)
    before = contents(models)

    for missing in (9, 11):
        with pytest.raises(BrokenInvariant, match=f"expected log position {missing}, came {missing + 1}"):
            models.catch_up(lambda after, limit, gap=missing: [  # type: ignore[misc]
                row for row in log.select(after, limit) if row.position != gap])
        assert (8, before) == (models.position(), contents(models))

    models.catch_up(log.select)

    assert contents(built(log)) == contents(models)


def test_more_events_than_were_asked_for_are_refused() -> None:
    log = busy_log()
    models = ReadModels(connect())
    models.create()

    with pytest.raises(BrokenInvariant, match="expected at most 3 events after log position 0"):
        models.catch_up(lambda after, limit: log.events, until=3)


def test_a_page_that_cannot_be_folded_leaves_rows_and_positions_as_they_were() -> None:
    log = Log()
    log.opened()
    log.deposited("1")
    models = built(log)
    before = contents(models)
    log.deposited("1")
    log.deposited("1", "A2")

    with pytest.raises(BrokenInvariant, match="account A2 was never opened"):
        models.catch_up(log.select)
    assert (2, before) == (models.position(), contents(models))

    log.events[3] = Recorded(4, "account:A1", 4, log.events[2].event)
    models.catch_up(log.select)

    assert "3" == models.rows("view_balances")[0][3]


def test_a_page_that_cannot_be_written_leaves_rows_and_positions_as_they_were() -> None:
    log = busy_log()
    connection = connect()
    models = ReadModels(connection)
    models.create()
    models.catch_up(log.select, until=10)
    before = contents(models)
    connection.execute("ALTER TABLE view_records RENAME TO hidden")

    with pytest.raises(sqlite3.OperationalError, match="view_records"):
        models.catch_up(log.select)
    connection.execute("ALTER TABLE hidden RENAME TO view_records")

    assert (10, before) == (models.position(), contents(models))

    models.catch_up(log.select)

    assert contents(built(log)) == contents(models)


def test_a_model_that_is_new_catches_up_while_the_others_skip_what_they_have_seen() -> None:
    log = busy_log()
    connection = connect()
    some = ReadModels(connection, (Journal, Accounts))
    some.create()
    some.catch_up(log.select, until=20)
    models = ReadModels(connection)
    models.create()

    assert 0 == models.position()

    models.catch_up(log.select, until=10)

    assert {"journal": 20, "accounts": 20, "records": 10} == {
        view: position for view, position in connection.execute("SELECT view, log_position FROM view_position")
        if view in ("journal", "accounts", "records")}

    models.catch_up(log.select)

    assert contents(built(log)) == contents(models)


def test_two_projectors_on_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    log = busy_log()
    one = ReadModels(connect(tmp_path / "views.db"))
    other = ReadModels(connect(tmp_path / "views.db"))
    one.create()
    other.create()
    for until in range(3, log.position + 3, 3):
        one.catch_up(log.select, until=until)
        other.catch_up(log.select, until=until + 1)

    def select(after: int, limit: int) -> Sequence[Recorded]:
        # The other is quicker, once the one has looked where it stands.
        other.catch_up(log.select)
        return log.select(after, limit)

    # The one finds the call of its page issued already, and looks again instead of crying foul.
    log.called("call-2")
    log.deposited("3", "A2")
    one.catch_up(select)

    assert log.position == one.position()
    assert contents(built(log)) == contents(one)


def test_read_models_work_on_connections_with_and_without_implicit_transactions() -> None:
    log = busy_log()
    for isolation in ("DEFERRED", None):
        models = ReadModels(connect(isolation_level=isolation))
        models.create()
        models.catch_up(log.select)

        assert contents(built(log)) == contents(models)
        assert not models._connection.in_transaction


def test_records_are_found_by_source_and_id_through_an_index() -> None:
    models = built(busy_log())
    plan = models._connection.cursor().execute(
        "EXPLAIN QUERY PLAN SELECT * FROM view_records WHERE source = 'file' AND record_id = 'r8'").fetchall()

    assert "view_records_by_source_record_id" in plan[0][3]


def test_amounts_are_stored_as_plain_decimals_and_times_as_rfc_3339() -> None:
    log = Log()
    log.opened()
    log.deposited("1E+3")
    log.deposited("0.50", asset="BTC")

    assert [("BTC", "0.5"), ("USD", "1000")] == [part(row, "asset", "amount") for row in table(log, "view_balances")]
    assert "2019-09-24T00:00:01Z" == only(log, "view_accounts")["opened_at"]


# --- tables ------------------------------------------------------------------------------------------------------


def test_every_table_of_a_read_model_is_named_as_one() -> None:
    names = [name for model in ALL for name in model.TABLES]

    assert len(set(names)) == len(names)
    assert all(name.startswith("view_") for name in names)
    assert all(sql.startswith(f"CREATE TABLE IF NOT EXISTS {name} ") for model in ALL
               for name, sql in model.TABLES.items())


def test_a_table_that_is_not_named_as_a_view_is_refused() -> None:
    with pytest.raises(BrokenInvariant, match="starts with view_, came accounts"):
        Table("accounts", Recorded, key=("position",))
