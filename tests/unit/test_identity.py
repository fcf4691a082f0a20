"""Semantics section 1, rule by rule: which records are the same, what spends an id, and what a bad record leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from infra.shard import Outcome
from infra.streams.records import RECORD_BYTES_MAX, Place
from ledger.events import (
    AccountOpened,
    AccountSettingsChanged,
    AssetListed,
    ClockMoved,
    Deposited,
    Event,
    FillPosted,
    FundingIndexMoved,
    FundMoved,
    FundMovementRefused,
    InstrumentListed,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallIssued,
    PriceRecorded,
    PriceRejected,
    RecordRejected,
    RulebookPublished,
    WithdrawalRefused,
    Withdrawn,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, moment, rules, time_of


def funded() -> Scenario:
    """The desk, and an account with 1,000 USD that was paid in as record `in-1`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1000", id="in-1")
    return s


# --- sources and ids ---------------------------------------------------------------------------------------------


def test_an_id_is_unique_per_source() -> None:
    """Semantics 1: Source belongs to the delivery, not to the record. Ids are unique per source."""
    s = funded()
    deposit = s.record("deposit", id="in-1", account="A", asset="USD", amount="5")

    elsewhere = s.tell(deposit, place=Place("other-file", None, None, 1))

    assert ("applied", [Deposited], Decimal(1005)) == (elsewhere.kind, s.kinds, s.balance("A"))


def test_a_price_names_its_own_source_and_is_known_by_the_source_of_its_delivery() -> None:
    """Semantics 1: Source belongs to the delivery, not to the record."""
    s = desk()
    first = s.price("BTC-USD", "10001", source="feed", id="p")

    same_delivery = s.price("BTC-USD", "10002", source="another-feed", id="p")
    other_delivery = s.tell(s.record("price", id="p", instrument="BTC-USD", price="10003", source="feed"),
                            place=Place("other-file", None, None, 1))

    assert ["applied", "rejected", "applied"] == [first.kind, same_delivery.kind, other_delivery.kind]
    assert "conflict" == same_delivery.reason


def test_a_repeat_is_a_duplicate_that_leaves_no_event() -> None:
    """Semantics 1: equal = duplicate, a no-op that leaves no event."""
    s = funded()
    first = s.deposit("A", "USD", "5", id="again")

    repeat = s.deposit("A", "USD", "5", id="again")

    assert Outcome("duplicate", first.position) == repeat
    assert [] == s.happened
    assert Decimal(1005) == s.balance("A")


def test_a_repeat_within_one_batch_is_a_duplicate() -> None:
    """Semantics 1: an id is spent by its first outcome, also where that is not committed yet."""
    s = funded()
    deposit = s.record("deposit", id="twice", account="A", asset="USD", amount="5")

    outcomes = s.tell_batch([deposit, deposit, {**deposit, "amount": "6"}, {**deposit, "amount": "6"}])

    assert ["applied", "duplicate", "rejected", "duplicate"] == [outcome.kind for outcome in outcomes]
    assert [Deposited, RecordRejected] == s.kinds


@pytest.mark.parametrize("repeat", [
    pytest.param({"amount": "5.00"}, id="1.0 equals 1.00"),
    pytest.param({"amount": "5"}, id="the same text"),
    pytest.param({"time": moment("10:00:00.000000000")}, id="the same time with nanoseconds"),
    pytest.param({"unknown": {"deep": [1, None]}}, id="an unknown field is ignored"),
    pytest.param({"reverses": None}, id="an optional field given as null"),
])
def test_a_repeat_is_compared_as_values(repeat: dict[str, Any]) -> None:
    """Semantics 1: known fields, as values: `1.0` equals `1.00`; unknown fields ignored."""
    s = funded()
    deposit = s.record("deposit", id="again", account="A", asset="USD", amount="5.0")
    s.tell(deposit)

    outcome = s.tell({**dict(reversed(deposit.items())), **repeat})

    assert ("duplicate", []) == (outcome.kind, s.happened)


def test_a_repeat_that_states_a_default_is_a_duplicate() -> None:
    """Semantics 1: a repeat is compared with the facts recorded: known fields, as values."""
    s = desk()
    s.account("A", id="open")
    outcome = s.account("A", id="open", position_mode="net", kind="client")

    assert ("duplicate", []) == (outcome.kind, s.happened)


@pytest.mark.parametrize("change", [
    pytest.param({"amount": "6"}, id="another amount"),
    pytest.param({"asset": "BTC"}, id="another asset"),
    pytest.param({"account": "B"}, id="another account"),
    pytest.param({"time": moment("10:00:01")}, id="another time"),
    pytest.param({"type": "withdrawal"}, id="another type"),
])
def test_a_repeat_with_another_known_field_is_a_conflict(change: dict[str, Any]) -> None:
    """Semantics 1: different = rejected `conflict`."""
    s = funded()
    s.asset("BTC")
    s.account("B")
    deposit = s.record("deposit", id="again", account="A", asset="USD", amount="5")
    s.tell(deposit)
    before = s.stands()

    outcome = s.tell({**deposit, **change})

    assert ("rejected", "conflict") == (outcome.kind, outcome.reason)
    assert [RecordRejected] == s.kinds
    assert ("conflict", "id", "again") == (s.told(RecordRejected).reason, s.told(RecordRejected).field,
                                          s.told(RecordRejected).cause.id)
    assert before == s.stands()


def test_a_repeated_conflict_leaves_no_second_event() -> None:
    """Semantics 1: every record that is not a duplicate leaves an event, and a conflict's repeat is a duplicate."""
    s = funded()
    conflict = s.record("deposit", id="in-1", account="A", asset="USD", amount="7")
    first = s.tell(conflict)

    repeat, original = s.tell(conflict), s.tell({**conflict, "amount": "1000"})

    assert Outcome("duplicate", first.position) == repeat
    assert "duplicate" == original.kind
    assert 1 == len(s.events(RecordRejected))


def test_two_different_conflicts_of_one_id_are_both_recorded() -> None:
    """Semantics 1: every record that is not a duplicate leaves at least one event."""
    s = funded()

    outcomes = [s.deposit("A", "USD", amount, id="in-1") for amount in ("7", "8", "7", "8")]

    assert ["rejected", "rejected", "duplicate", "duplicate"] == [outcome.kind for outcome in outcomes]


def test_an_id_is_spent_by_a_refusal() -> None:
    """Semantics 1: an id is spent by its first outcome: applied, refused or rejected."""
    s = funded()
    refused = s.withdraw("A", "USD", "2000", id="out")
    assert ("refused", [WithdrawalRefused]) == (refused.kind, s.kinds)
    s.deposit("A", "USD", "5000")

    repeat = s.withdraw("A", "USD", "2000.00", id="out")
    other = s.withdraw("A", "USD", "100", id="out")

    assert Outcome("duplicate", refused.position) == repeat
    assert ("rejected", "conflict") == (other.kind, other.reason)
    assert Decimal(6000) == s.balance("A")


def test_an_id_is_spent_by_a_rejection() -> None:
    """Semantics 1: an id is spent by its first outcome: applied, refused or rejected."""
    s = desk()
    rejected = s.deposit("A", "USD", "5.0", id="early")
    assert ("rejected", "unknown-account") == (rejected.kind, rejected.reason)
    s.account("A")

    repeat = s.deposit("A", "USD", "5.00", id="early")
    other = s.deposit("A", "USD", "6", id="early")

    assert Outcome("duplicate", rejected.position) == repeat
    assert ("rejected", "conflict") == (other.kind, other.reason)
    assert Decimal(0) == s.balance("A")


def test_an_id_is_spent_by_a_malformed_record_whose_id_can_be_read() -> None:
    """Semantics 1: an id is spent by its first outcome, a rejection of what is malformed included."""
    s = funded()
    malformed = s.record("deposit", id="bare", account="A", asset="USD", amount=5)
    first = s.tell(malformed)

    repeat, corrected = s.tell(malformed), s.tell({**malformed, "amount": "5"})

    assert Outcome("duplicate", first.position) == repeat
    assert ("rejected", "conflict") == (corrected.kind, corrected.reason)
    assert Decimal(1000) == s.balance("A")


def test_the_inbox_maps_source_and_id_to_the_position_of_the_outcome() -> None:
    """Semantics 1: the inbox maps (source, id) to the log position of that outcome."""
    s = funded()
    applied = s.fill("A", "buy", "1", "10000", id="applied", instrument="BTC-USD")
    refused = s.withdraw("A", "USD", "5000", id="refused")
    rejected = s.deposit("nobody", "USD", "1", id="rejected")

    inbox = dict(s.shard.store.inbox())
    expected = {"applied": applied.position, "refused": refused.position, "rejected": rejected.position}
    assert expected == {name: inbox["desk", "id", name] for name in expected}
    assert [FillPosted, WithdrawalRefused, RecordRejected] == [
        type(s.log[position - 1].event) for position in expected.values()]


# --- prices with a sequence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [
    pytest.param({"sequence": 7}, id="the same sequence"),
    pytest.param({"sequence": 7, "price": "11000"}, id="the same sequence with another price"),
    pytest.param({"sequence": 6}, id="a sequence below the last"),
    pytest.param({"sequence": 7, "id": "named"}, id="the same sequence with an id"),
])
def test_a_sequence_not_above_the_last_is_a_duplicate(repeat: dict[str, Any]) -> None:
    """Semantics 1: a price with `sequence` is identified by (source, instrument, sequence): not above the last is a
    duplicate."""
    s = desk()
    s.price("BTC-USD", "10001", sequence=7)

    outcome = s.price("BTC-USD", **{"price": "10001", **repeat})

    assert ("duplicate", []) == (outcome.kind, s.happened)


def test_sequences_are_counted_per_source_and_instrument() -> None:
    """Semantics 1: a price with `sequence` is identified by (source, instrument, sequence)."""
    s = desk()
    s.instrument("ETH-USD")

    outcomes = [s.price("BTC-USD", "10001", sequence=7), s.price("ETH-USD", "200", sequence=7),
                s.price("BTC-USD", "10001", sequence=7, source="second"),
                s.tell(s.record("price", instrument="BTC-USD", price="10001", source="feed", sequence=7),
                       place=Place("other-file", None, None, 1))]

    assert ["applied"] * 4 == [outcome.kind for outcome in outcomes]


def test_a_sequenced_price_has_no_inbox_row() -> None:
    """Semantics 1: a price with `sequence` has no inbox row, even where it carries an id."""
    s = desk()
    before = dict(s.shard.store.inbox())

    s.price("BTC-USD", "10001", sequence=1)
    s.price("BTC-USD", "10002", sequence=2, id="named")

    assert before == dict(s.shard.store.inbox())


def test_the_first_price_after_a_gap_notes_it() -> None:
    """Semantics 1: the first after a gap is noted on its event."""
    s = desk()

    for sequence in (3, 4, 7, 8):
        s.price("BTC-USD", "10001", sequence=sequence)

    # 3 is the first ever, 4 and 8 follow on; before 7 the sequences from 5 on never came.
    assert [None, None, 5, None] == [event.gap_from for event in s.events(PriceRecorded)[1:]]


@pytest.mark.parametrize(("fault", "reason"), [
    pytest.param({"at": "09:59:59"}, "late", id="a late price"),
    pytest.param({"price": "20000"}, "step", id="a price too far from the mark"),
])
def test_a_rejected_price_spends_its_sequence(fault: dict[str, Any], reason: str) -> None:
    """Semantics 1: an id is spent by its first outcome, so a rejected price spends its sequence."""
    s = desk()
    s.price("BTC-USD", "10000", sequence=1)
    rejected = s.price("BTC-USD", **{"price": "10001", "sequence": 3, **fault})
    assert ("rejected", reason) == (rejected.kind, rejected.reason)
    assert 2 == s.told(PriceRejected).gap_from

    repeat = s.price("BTC-USD", "10002", at="10:00:00", sequence=3)
    following = s.price("BTC-USD", "10002", sequence=4)

    assert ["duplicate", "applied"] == [repeat.kind, following.kind]
    assert s.told(PriceRecorded).gap_from is None


def test_a_rejected_price_without_a_sequence_spends_its_id() -> None:
    """Semantics 1: without `sequence` it is identified by id like the rest."""
    s = desk()
    late = s.price("BTC-USD", "10001", at="09:59:59", id="p")

    repeat = s.price("BTC-USD", "10001", id="p")
    other = s.price("BTC-USD", "10001", at="10:00:01", id="p")

    assert Outcome("duplicate", late.position) == repeat
    assert ("rejected", "conflict") == (other.kind, other.reason)


def test_a_sequenced_price_of_an_unlisted_instrument_stays_spent_after_the_listing() -> None:
    """Semantics 1: an id is spent by its first outcome: applied, refused or rejected."""
    s = desk()
    rejected = s.price("ETH-USD", "200", sequence=1)
    assert ("rejected", "unknown-instrument") == (rejected.kind, rejected.reason)
    s.instrument("ETH-USD")

    repeat, following = s.price("ETH-USD", "200.0", sequence=1), s.price("ETH-USD", "201", sequence=2)

    assert Outcome("duplicate", rejected.position) == repeat
    assert "applied" == following.kind


# --- records without a readable id -------------------------------------------------------------------------------


def test_a_record_without_a_readable_id_is_known_by_its_line() -> None:
    """Semantics 1: a record without a readable id is known by (source, partition, offset or line)."""
    s = desk()
    third = Place("file", None, None, 3)
    first = s.tell(b"{broken", place=third)

    again = s.tell(b"{broken", place=third)
    elsewhere = s.tell(b"{broken", place=Place("file", None, None, 4))
    other = s.tell(b"broken}", place=third)

    assert Outcome("duplicate", first.position) == again
    assert ["rejected", "rejected", "rejected"] == [first.kind, elsewhere.kind, other.kind]
    assert ["malformed", "malformed", "conflict"] == [event.reason for event in s.events(RecordRejected)]


def test_a_record_without_a_readable_id_is_known_by_partition_and_offset() -> None:
    """Semantics 1: a record without a readable id is known by (source, partition, offset or line)."""
    s = desk()
    first = s.tell(b"", place=Place("topic", 1, 17, None))

    again, other_partition = s.tell(b"", place=Place("topic", 1, 17)), s.tell(b"", place=Place("topic", 2, 17))

    assert Outcome("duplicate", first.position) == again
    assert "rejected" == other_partition.kind
    assert [(1, 17), (2, 17)] == [(event.cause.partition, event.cause.offset) for event in s.events(RecordRejected)]


def test_a_replayed_dead_letter_is_a_record_of_its_own_that_names_the_old_one() -> None:
    """Semantics 1: a replayed dead letter gets a new id `<old>#r1` and `replay_of`."""
    s = desk()
    s.deposit("A", "USD", "5", id="early")
    s.account("A")

    outcome = s.deposit("A", "USD", "5", id="early#r1", replay_of="early")

    assert "applied" == outcome.kind
    assert ("early#r1", "early") == (s.told(Deposited).cause.id, s.told(Deposited).cause.replay_of)


# --- what every record leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "kind", "stream"), [
    pytest.param({"type": "rulebook", "rulebook": "house"}, RulebookPublished, "rulebook", id="rulebook"),
    pytest.param({"type": "asset", "asset": "EUR", "quantum": "0.01"}, AssetListed, "asset:EUR", id="asset"),
    pytest.param({"type": "instrument", "instrument": "ETH-USD", "base": "ETH", "quote": "USD",
                  "contract_type": "linear", "tick_size": "0.01", "lot_size": "0.1"},
                 InstrumentListed, "market:ETH-USD", id="instrument"),
    pytest.param({"type": "account", "account": "B", "margin_mode": "cross"}, AccountOpened, "account:B",
                 id="account, new"),
    pytest.param({"type": "account", "account": "A", "margin_mode": "cross"}, AccountSettingsChanged, "account:A",
                 id="account, as it is"),
    pytest.param({"type": "deposit", "account": "A", "asset": "USD", "amount": "1"}, Deposited, "account:A",
                 id="deposit"),
    pytest.param({"type": "withdrawal", "account": "A", "asset": "USD", "amount": "1"}, Withdrawn, "account:A",
                 id="withdrawal, let go"),
    pytest.param({"type": "withdrawal", "account": "A", "asset": "USD", "amount": "1001"}, WithdrawalRefused,
                 "account:A", id="withdrawal, refused"),
    pytest.param({"type": "fill", "account": "A", "trade_id": "t", "instrument": "BTC-USD", "side": "buy",
                  "size": "1", "price": "10000"}, FillPosted, "account:A", id="fill"),
    pytest.param({"type": "price", "instrument": "BTC-USD", "price": "10001", "source": "feed"}, PriceRecorded,
                 "market:BTC-USD", id="price"),
    pytest.param({"type": "price", "instrument": "BTC-USD", "price": "99999", "source": "feed"}, PriceRejected,
                 "market:BTC-USD", id="price, rejected by its market"),
    pytest.param({"type": "funding", "instrument": "BTC-USD", "rate": "0"}, FundingIndexMoved, "market:BTC-USD",
                 id="funding of nothing"),
    pytest.param({"type": "fund-movement", "fund": "insurance", "asset": "USD", "amount": "1",
                  "kind": "contribution"}, FundMoved, "fund:insurance:USD", id="fund-movement"),
    pytest.param({"type": "fund-movement", "fund": "insurance", "asset": "USD", "amount": "1", "kind": "withdrawal"},
                 FundMovementRefused, "fund:insurance:USD", id="fund-movement, refused"),
    pytest.param({"type": "clock"}, ClockMoved, "clock", id="clock that moves nothing"),
    pytest.param({"type": "nonsense"}, RecordRejected, "intake:desk", id="rejected record"),
])
def test_every_record_that_is_not_a_duplicate_leaves_an_event(record: dict[str, Any], kind: type[Event],
                                                             stream: str) -> None:
    """Semantics 1: every record that is not a duplicate leaves at least one event. Rejections live in the stream
    `intake:<source>`, clocks in `clock`."""
    s = funded()

    outcome = s.tell({"id": "it", "time": moment("10:00:00"), **record})

    assert (kind, stream) == (type(s.log[outcome.position - 1].event), s.log[outcome.position - 1].originator_id)
    assert kind is s.kinds[0]


def test_each_event_carries_its_cause() -> None:
    """Semantics 1: each event carries `cause`: source, id, record time, and where it stood."""
    s = desk()
    long_account(s, "A", "10999")
    # Equity 10,999 + 10 x (9,000 - 10,000) = 999 on a maintenance margin of 900: below the call line of 1.25.
    s.price("BTC-USD", "9000", at="10:07:00", id="fall")

    for event in s.happened:
        cause = event.cause
        assert ("desk", "price", "fall", time_of("10:07:00"), s.line) == (
            cause.source, cause.type, cause.id, cause.time, cause.line)
        assert (None, None, None) == (cause.partition, cause.offset, cause.replay_of)
    assert [PriceRecorded, MarginCallIssued] == s.kinds


def test_the_cause_of_a_streamed_record_is_its_partition_and_offset() -> None:
    """Semantics 1: each event carries where its record stood (partition and offset, or line)."""
    s = funded()
    s.tell(s.record("deposit", id="x", account="A", asset="USD", amount="1"), place=Place("accounts.v1", 2, 40))

    cause = s.told(Deposited).cause
    assert ("accounts.v1", 2, 40, None) == (cause.source, cause.partition, cause.offset, cause.line)


def test_a_decision_on_a_deadline_is_caused_by_the_record_that_moved_log_time() -> None:
    """Semantics 1: each event carries `cause`; that of a timer is the record whose time made it due."""
    s = desk()
    long_account(s, "A", "10999")
    s.price("BTC-USD", "9000")
    s.price("BTC-USD", "9000", at="11:00:00")

    s.clock("11:00:00", id="tick")

    assert {"tick"} == {event.cause.id for event in s.happened}
    assert {LiquidationStarted, LiquidationOrderPlaced} <= set(s.kinds)


def test_an_unknown_field_of_the_future_is_ignored() -> None:
    """Semantics 1: unknown fields ignored; contracts: add to them freely."""
    s = funded()

    outcome = s.deposit("A", "USD", "1", settlement_network="tomorrow", flags=[1, {"a": None}])

    assert ("applied", [Deposited]) == (outcome.kind, s.kinds)


# --- every refusal and every malformed record --------------------------------------------------------------------


def spelled(**fields: Any) -> bytes:
    """A deposit of A as bytes, with the fields given."""
    deposit = {"type": "deposit", "id": "bad", "time": moment("10:00:00"), "account": "A", "asset": "USD",
               "amount": "1"}
    return json.dumps({**deposit, **fields}, ensure_ascii=False).encode()


def fill(**fields: Any) -> bytes:
    """A fill of A as bytes, with the fields given."""
    return json.dumps({"type": "fill", "id": "bad", "time": moment("10:00:00"), "account": "A", "trade_id": "t",
                       "instrument": "BTC-USD", "side": "buy", "size": "1", "price": "10000", **fields}).encode()


def price(**fields: Any) -> bytes:
    """A price of BTC-USD as bytes, with the fields given."""
    return json.dumps({"type": "price", "id": "bad", "time": moment("10:00:00"), "instrument": "BTC-USD",
                       "price": "10000", "source": "feed", **fields}).encode()


def of_type(kind: str, /, **fields: Any) -> bytes:
    """A record of a type as bytes."""
    return json.dumps({"type": kind, "id": "bad", "time": moment("10:00:00"), **fields}).encode()


FAULTS = [
    # What is not there.
    pytest.param(spelled(account="nobody"), "unknown-account", "account", id="unknown account of a deposit"),
    pytest.param(spelled(type="withdrawal", account="nobody"), "unknown-account", "account",
                 id="unknown account of a withdrawal"),
    pytest.param(fill(account="nobody"), "unknown-account", "account", id="unknown account of a fill"),
    pytest.param(spelled(asset="DOGE"), "unknown-asset", "asset", id="wrong asset of a deposit"),
    pytest.param(spelled(type="withdrawal", asset="DOGE"), "unknown-asset", "asset", id="wrong asset of a withdrawal"),
    pytest.param(fill(fee="1", fee_asset="DOGE"), "unknown-asset", "fee_asset", id="wrong asset of a fee"),
    pytest.param(of_type("fund-movement", fund="insurance", asset="DOGE", amount="1", kind="contribution"),
                 "unknown-asset", "asset", id="wrong asset of a fund"),
    pytest.param(of_type("instrument", instrument="X-DOGE", base="X", quote="DOGE", contract_type="linear",
                         tick_size="1", lot_size="1"), "unknown-asset", "quote", id="wrong quote of an instrument"),
    pytest.param(fill(instrument="ETH-USD"), "unknown-instrument", "instrument", id="unknown instrument of a fill"),
    pytest.param(price(instrument="ETH-USD"), "unknown-instrument", "instrument", id="unknown instrument of a price"),
    pytest.param(of_type("funding", instrument="ETH-USD", rate="0"), "unknown-instrument", "instrument",
                 id="unknown instrument of a funding"),
    pytest.param(of_type("funding", instrument="UNMARKED-USD", rate="0.1"), "no-mark", "price",
                 id="funding of an instrument without mark or price"),
    pytest.param(of_type("rulebook", rulebook="nowhere"), "unknown-rulebook", "rulebook", id="unknown rulebook"),
    pytest.param(of_type("account", account="B", margin_mode="cross", rulebook="nowhere"), "unknown-rulebook",
                 "rulebook", id="unknown rulebook of an account"),
    pytest.param(of_type("nonsense"), "unknown-type", "type", id="unknown type"),
    pytest.param(of_type("transfer", account="A", to_account="Z", asset="USD", amount="1"), "unknown-account",
                 "to_account", id="unknown receiver of a transfer"),
    pytest.param(of_type("transfer", account="A", to_account="A", asset="USD", amount="1"), "malformed", None,
                 id="transfer to oneself"),
    pytest.param(spelled(reverses="never"), "unknown-deposit", "reverses", id="reversal of no deposit"),
    pytest.param(of_type("withdrawal-settled", account="A", withdrawal="never"), "unknown-withdrawal", "withdrawal",
                 id="end of a withdrawal that is not held"),
    pytest.param(of_type("isolated-margin", account="A", instrument="BTC-USD", amount="1"), "no-position",
                 "instrument", id="margin of no isolated position"),
    pytest.param(of_type("isolated-margin", account="A", instrument="BTC-USD", amount="0"), "malformed", None,
                 id="move of no margin"),
    pytest.param(of_type("account-settings", account="A"), "malformed", None, id="settings that choose nothing"),
    pytest.param(of_type("account-settings", account="A", position_mode="hedge"), "immutable", "position_mode",
                 id="position mode chosen with positions open"),
    pytest.param(of_type("order", account="A", order_id="o", instrument="ETH-USD", side="buy", remaining="1",
                         price="1"), "unknown-instrument", "instrument", id="unknown instrument of an order"),
    pytest.param(of_type("interest-rate", asset="DOGE", borrow_rate="0.1", lend_rate="0"), "unknown-asset", "asset",
                 id="wrong asset of a rate"),
    pytest.param(of_type("settlement", instrument="ETH-USD", price="1", kind="daily"), "unknown-instrument",
                 "instrument", id="unknown instrument of a settlement"),
    pytest.param(of_type("halt", scope="nobody", what="liquidations", reason="x", by="y"), "unknown-scope", "scope",
                 id="halt of nobody"),
    pytest.param(of_type("liquidation-result", account="Z", liquidation_order_id="o", result="expired"),
                 "unknown-account", "account", id="unknown account of a result"),
    # What may not be.
    pytest.param(fill(size="0.0005"), "off-lot", "size", id="off-lot size"),
    pytest.param(fill(position_side="long"), "wrong-side", "position_side", id="position side in net mode"),
    pytest.param(of_type("asset", asset="USD", quantum="0.1"), "immutable", "quantum", id="quantum of a used asset"),
    pytest.param(of_type("instrument", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
                         contract_size="2", tick_size="0.01", lot_size="0.001"), "immutable", "contract_size",
                 id="contract size of a used instrument"),
    pytest.param(of_type("account", account="A", margin_mode="cross", position_mode="hedge"), "immutable",
                 "position_mode", id="position mode with positions open"),
    pytest.param(of_type("rulebook", rulebook={"name": "x"}), "rulebook", "rulebook.version", id="half a rulebook"),
    pytest.param(spelled(id="in-1"), "conflict", "id", id="same id with other content"),
    # Numbers.
    pytest.param(spelled(amount="-5"), "malformed", "amount", id="negative amount"),
    pytest.param(spelled(amount="0"), "malformed", "amount", id="amount of zero"),
    pytest.param(spelled(amount="-0"), "malformed", "amount", id="minus zero"),
    pytest.param(spelled(amount="NaN"), "malformed", "amount", id="NaN"),
    pytest.param(spelled(amount="Infinity"), "malformed", "amount", id="infinity"),
    pytest.param(spelled(amount="1e3"), "malformed", "amount", id="1e3"),
    pytest.param(spelled(amount="1" + "0" * 40), "malformed", "amount", id="10^40"),
    pytest.param(spelled(amount="1" + "0" * 18), "malformed", "amount", id="10^18, the first that is too large"),
    pytest.param(spelled(amount="0." + "0" * 18 + "1"), "malformed", "amount", id="a nineteenth place"),
    pytest.param(spelled(amount="01"), "malformed", "amount", id="leading zero"),
    pytest.param(spelled(amount="+1"), "malformed", "amount", id="plus sign"),
    pytest.param(spelled(amount=".5"), "malformed", "amount", id="no digit before the point"),
    pytest.param(spelled(amount="1_000"), "malformed", "amount", id="underscore"),
    pytest.param(spelled(amount=" 1"), "malformed", "amount", id="blank in a number"),
    pytest.param(spelled(amount="١"), "malformed", "amount", id="digit of another script"),
    pytest.param(spelled(amount=5), "malformed", "amount", id="bare JSON number"),
    pytest.param(spelled(amount=5.5), "malformed", "amount", id="bare JSON fraction"),
    pytest.param(spelled().replace(b'"1"', b"NaN"), "malformed", None, id="bare NaN"),
    pytest.param(price(price="0"), "malformed", "price", id="price of zero"),
    pytest.param(price(price="-1"), "malformed", "price", id="negative price"),
    pytest.param(price(price="0.0000000000009"), "malformed", "price", id="price below 10^-12"),
    pytest.param(price(price="1000000000001"), "malformed", "price", id="price above 10^12"),
    pytest.param(price(sequence="1"), "malformed", "sequence", id="sequence in a string"),
    # Times.
    pytest.param(spelled(time=moment("13:00:00")), "time-ahead", "time", id="time far ahead"),
    pytest.param(price(time=moment("13:00:00")), "time-ahead", "time", id="time of a price far ahead"),
    pytest.param(spelled(time="2026-01-05T10:00:00+00:00"), "malformed", "time", id="time that does not end in Z"),
    pytest.param(spelled(time="2026-01-05T23:59:60Z"), "malformed", "time", id="leap second"),
    pytest.param(spelled(time="2026-02-30T10:00:00Z"), "malformed", "time", id="a day that is none"),
    pytest.param(spelled(time="2026-01-05T10:00:00.0000000001Z"), "malformed", "time", id="finer than nanoseconds"),
    pytest.param(spelled(time=1767607200), "malformed", "time", id="time as a number"),
    # Ids.
    pytest.param(spelled(id="a\x00b"), "malformed", "id", id="NUL in an id"),
    pytest.param(spelled(id=""), "malformed", "id", id="empty id"),
    pytest.param(spelled(id="x" * 201), "malformed", "id", id="id of 201 code points"),
    pytest.param(spelled(id=7), "malformed", "id", id="id that is a number"),
    pytest.param(price(id=None), "malformed", None, id="price with neither id nor sequence"),
    # JSON.
    pytest.param(b'{"type": "deposit", "id": "bad"', "malformed", None, id="broken JSON"),
    pytest.param(b"", "malformed", None, id="nothing"),
    pytest.param(b"[]", "malformed", None, id="an array"),
    pytest.param(b"42", "malformed", None, id="a number"),
    pytest.param(spelled()[:-1] + b', "amount": "2"}', "malformed", "amount", id="duplicate key"),
    pytest.param(spelled()[:-1] + b', "x": {"a": 1, "a": 1}}', "malformed", "x.a", id="duplicate key deep down"),
    pytest.param(spelled(account="Ä").decode().encode("latin-1"), "malformed", None, id="wrong encoding"),
    pytest.param(spelled().decode().encode("utf-16"), "malformed", None, id="UTF-16"),
    pytest.param(b"\xef\xbb\xbf" + spelled(), "malformed", None, id="byte order mark"),
    pytest.param(b'{"id": "bad", "time": "2026-01-05T10:00:00Z"}', "malformed", "type", id="no type"),
    pytest.param(spelled(x="y" * RECORD_BYTES_MAX), "too-large", None, id="above 64 KiB"),
]


@pytest.mark.parametrize(("raw", "reason", "field"), FAULTS)
def test_a_bad_record_is_a_recorded_rejection_and_the_stream_goes_on(raw: bytes, reason: str,
                                                                    field: str | None) -> None:
    """Semantics 1, issue 2: recorded rejection with reason and line; the stream goes on; state untouched."""
    s = funded()
    s.instrument("UNMARKED-USD")
    s.fill("A", "buy", "0.1", "10000")
    before, position = s.stands(), s.house.position

    outcome = s.tell(raw, latest="12:00:00")

    assert Outcome("rejected", position + 1, reason) == outcome
    assert [RecordRejected] == s.kinds
    rejected = s.told(RecordRejected)
    assert (reason, field) == (rejected.reason, rejected.field)
    assert ("desk", s.line) == (rejected.cause.source, rejected.cause.line)
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (rejected.raw_bytes, rejected.sha256)
    assert "intake:desk" == s.log[-1].originator_id
    assert before == s.stands()

    assert "duplicate" == s.tell(raw, place=Place("desk", None, None, s.line), latest="12:00:00").kind
    assert "applied" == s.deposit("A", "USD", "1").kind
    assert Decimal(1001) == s.balance("A")


@pytest.mark.parametrize(("told", "reason"), [
    pytest.param(lambda s: s.price("BTC-USD", "10001", at="09:59:59"), "late", id="late"),
    pytest.param(lambda s: s.price("BTC-USD", "12500.01"), "step", id="further than 25 % from the mark"),
])
def test_a_price_that_its_market_rejects_moves_no_mark(told: Callable[[Scenario], Outcome], reason: str) -> None:
    """Semantics 1, 2, issue 2: a late price is a recorded rejection with reason and line; the stream goes on."""
    s = funded()
    long_account(s, "B", "11125")
    market, before = s.house.markets["BTC-USD"], s.stands()

    outcome = told(s)

    assert ("rejected", reason) == (outcome.kind, outcome.reason)
    assert [PriceRejected] == s.kinds
    assert (reason, s.line) == (s.told(PriceRejected).reason, s.told(PriceRejected).cause.line)
    assert market == s.house.markets["BTC-USD"]._replace(version=market.version)
    assert (before[:2], before[3:]) == (s.stands()[:2], s.stands()[3:])
    assert "applied" == s.price("BTC-USD", "10001", at="10:00:00").kind


def test_a_rejected_record_does_not_move_log_time() -> None:
    """Semantics 1, 2: log time is a fold of the events, and a record that is rejected moves none of it."""
    s = desk()
    s.clock("10:30:00")

    rejected = s.deposit("nobody", "USD", "1", at="11:30:00")

    assert "rejected" == rejected.kind
    assert time_of("10:30:00") == s.house.log_time == s.told(RecordRejected).time
    assert time_of("11:30:00") == s.told(RecordRejected).cause.time


def test_a_rejection_keeps_at_most_4_kib_of_the_record_and_the_hash_of_the_whole() -> None:
    """Semantics 1: a rejection keeps at most 4 KiB of its bytes and their hash."""
    s = desk()
    raw = spelled(x="y" * 10_000)

    s.tell(raw)

    rejected = s.told(RecordRejected)
    assert (raw[:4096].decode(), len(raw)) == (rejected.raw, rejected.raw_bytes)
    assert hashlib.sha256(raw).hexdigest() == rejected.sha256


def test_a_number_is_written_plain() -> None:
    """Semantics 1: written plain: no exponent, no trailing zeros, no -0."""
    s = funded()
    s.asset("TINY", quantum="0.000000000000000001")
    s.deposit("A", "TINY", "0.000000000000000010")
    assert '"amount":"0.00000000000000001"' in s.told(Deposited).model_dump_json()

    s.deposit("A", "USD", "1000.00")
    assert '"amount":"1000"' in s.told(Deposited).model_dump_json()

    s.fill("A", "buy", "1.000", "10000", fee="-0.00")
    written = s.told(FillPosted).model_dump_json()
    assert '"size":"1"' in written
    assert '"fee":"0"' in written


def test_a_time_is_held_to_the_nanosecond() -> None:
    """Semantics 1: times end in `Z`, are held to the nanosecond."""
    s = funded()

    s.deposit("A", "USD", "1", at="10:00:00.123456789")

    assert time_of("10:00:00") + 123_456_789 == s.told(Deposited).time
    assert '"time":"2026-01-05T10:00:00.123456789Z"' in s.told(Deposited).model_dump_json()


def test_ids_are_not_normalised() -> None:
    """Semantics 1: ids: 1-200 code points, no control characters, not normalised."""
    s = funded()

    # One letter, written as one code point and as two; and the longest id there may be.
    outcomes = [s.deposit("A", "USD", "1", id=name) for name in ("\u00e9", "e\u0301", "\U0001f600" * 200)]

    assert ["applied"] * 3 == [outcome.kind for outcome in outcomes]


def test_a_rulebook_that_is_repeated_is_compared_by_its_values() -> None:
    """Semantics 1: known fields as values, `1.0` equals `1.00`: also those within a rulebook."""
    s = desk()
    lines = {"warning": "1.50", "call": "1.20", "cure": "1.30", "liquidation": "1.0", "stop": "1.3"}
    shorter = {**lines, "warning": "1.5", "call": "1.2", "liquidation": "1"}
    first = s.rulebook(rules("desk", 1, thresholds=lines), id="book")

    same, other = (s.rulebook(rules("desk", 1, thresholds=said), id="book")
                   for said in (shorter, {**shorter, "call": "1.25"}))

    assert ("applied", "duplicate") == (first.kind, same.kind)
    assert ("rejected", "conflict") == (other.kind, other.reason)


def test_a_rulebook_version_is_not_taken_by_other_content() -> None:
    """Issue 2: every refusal is a recorded rejection with its reason."""
    s = desk()
    s.rulebook(rules("desk", 1))

    same, other = s.rulebook(rules("desk", 1)), s.rulebook(rules("desk", 1, title="changed"))

    assert "applied" == same.kind
    assert ("rejected", "rulebook") == (other.kind, other.reason)
