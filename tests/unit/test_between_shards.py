"""Shards of one service without a broker: what each tells the others, however often and late it comes."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.embedded import in_memory
from infra.shard import Outcome, Shard
from infra.streams.messages import messages
from infra.streams.parts import HOUSE, ShardId, between, duty_of, noted_duty, read_between, shards_of
from infra.streams.records import Delivered, Place, read
from infra.streams.topics import ACCOUNTS, ANSWERS, BETWEEN_SHARDS, CLAIMS, CONTROL, OUTCOMES, PRICES, TRANSFERS
from ledger.amounts import exact, nanoseconds
from ledger.between_shards import BETWEEN
from ledger.errors import LedgerUnreadable
from ledger.events import (
    EVENTS,
    FundDrawn,
    FundMoved,
    MarginCallMet,
    Recorded,
    ShortfallAnswered,
    ShortfallClaimed,
    ShortfallClaimReceived,
    ShortfallCovered,
    TransferArrived,
    TransferReceived,
    TransferReturned,
    TransferSent,
    TransferTurnedAway,
)
from ledger.postings import IN_TRANSIT, SHORTFALL, fund_owner
from projections.audit import replay
from tests.property.records_strategy import MemoryRows
from tests.unit.read_model_law import hold_to_states

TIME = "2026-01-05T10:00:00Z"
# A's accounts are shard 0's, B's and C's shard 1's; of Z no shard knows.
SHARD_OF = {"A": 0, "B": 1, "C": 1, "Z": 0}
_CONTROL = ("asset", "instrument", "fund-movement")


class Service:
    """Two shards of accounts and the house, and the messages between them, which come when they are let."""

    def __init__(self, make: Callable[[ShardId], Shard] = lambda _: in_memory()) -> None:
        self.shards = {shard: make(shard) for shard in shards_of(2)}
        self.logs: dict[ShardId, list[Recorded]] = defaultdict(list)
        self.told: list[Any] = []
        self.under_way: deque[tuple[ShardId, Place, bytes]] = deque()
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        for shard, writer in self.shards.items():
            writer.keep(duty_of(shard, 2).part, duty_of(shard, 2).settings())
            writer.listeners.append(lambda events, shard=shard: self._relay(shard, events))  # type: ignore[misc]

    def _relay(self, shard: ShardId, events: list[Recorded]) -> None:
        accounts = self.shards[shard].house.accounts
        duty = noted_duty(dict(self.shards[shard].store.settings()))
        with exact():
            for recorded in events:
                self.logs[shard].append(recorded)
                if duty.tells(recorded, ""):
                    self.told += messages(recorded, f"shard-{shard}", None)
                for message in between(recorded, duty, f"shard-{shard}", accounts.__contains__):
                    number = SHARD_OF[message.key] if message.partition is None else message.partition
                    to: ShardId = HOUSE if message.topic == CLAIMS else number
                    self.under_way.append((to, self._place(message.topic, number), message.value))

    def _place(self, topic: str, partition: int) -> Place:
        self._offsets[topic, partition] += 1
        return Place(topic, partition, self._offsets[topic, partition] - 1)

    def send(self, kind: str, name: str, /, **fields: Any) -> list[Outcome]:
        """A client's record: to the shard of its account, or to all that read its topic."""
        raw = json.dumps({"type": kind, "id": name, "time": TIME, **fields}).encode()
        topic = CONTROL if kind in _CONTROL else PRICES if kind == "price" else ACCOUNTS
        everybody: dict[str, list[ShardId]] = {CONTROL: [0, 1, HOUSE], PRICES: [0, 1]}
        to = everybody.get(topic) or [SHARD_OF[fields["account"]]]
        place = self._place(topic, 0 if topic != ACCOUNTS else int(to[0]))
        return [outcome for shard in to for outcome in self._apply(shard, read(place, raw))]

    def _apply(self, shard: ShardId, delivered: Delivered) -> list[Outcome]:
        if not duty_of(shard, 2).concerns(delivered):
            return self.shards[shard].apply([], passed=[delivered.place])
        return self.shards[shard].apply([delivered])

    def deliver(self, at: int = 0, *, again: bool = False) -> list[Outcome]:
        """One of the messages under way comes; `again`: and will come once more, as after a crash."""
        shard, place, raw = self.under_way[at]
        if not again:
            del self.under_way[at]
        return self._apply(shard, read_between(place, raw))

    def settle(self) -> None:
        """All that is under way comes, in order."""
        while self.under_way:
            self.deliver()

    def total(self, owner: str, asset: str = "USD") -> Decimal:
        return sum((writer.house.house.balance(owner, asset) for writer in self.shards.values()), Decimal(0))

    def found(self, shard: ShardId, *kinds: Any) -> list[Any]:
        return [recorded.event for recorded in self.logs[shard] if isinstance(recorded.event, kinds)]

    def require_whole(self) -> None:
        """Every ledger balances and follows from its facts; nothing is on its way; funds are what their draws left."""
        with exact():
            assert all(writer.is_balanced() for writer in self.shards.values())
            assert 0 == self.total(IN_TRANSIT)
            funds = self.shards[HOUSE].house.funds
            held = funds[("insurance", "USD")].balance if ("insurance", "USD") in funds else 0
            assert held == self.total(fund_owner("insurance"))
            claimed = sum(claim.amount for shard in (0, 1) for claim in self.found(shard, ShortfallClaimed))
            covered = sum(cover.covered for shard in (0, 1) for cover in self.found(shard, ShortfallCovered))
            assert covered - claimed == self.total(SHORTFALL)
        for shard, writer in self.shards.items():
            assert [] == replay(MemoryRows(writer), part=duty_of(shard, 2).part).differences


@pytest.fixture
def service() -> Service:
    return opened()


def opened(make: Callable[[ShardId], Shard] = lambda _: in_memory()) -> Service:
    """USD and BTC-USD at 10,000; accounts A, B and C with 11,000 each."""
    made = Service(make)
    made.send("asset", "usd", asset="USD", quantum="0.01")
    made.send("instrument", "btc", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
              tick_size="0.01", lot_size="0.001")
    made.send("price", "p0", instrument="BTC-USD", price="10000", source="feed")
    for name in "ABC":
        made.send("account", f"o-{name}", account=name, margin_mode="cross")
        made.send("deposit", f"d-{name}", account=name, asset="USD", amount="11000")
    return made


def ruin(service: Service, *names: str) -> None:
    """Accounts long 10 at 10,000 that close at 8,800: each is 1,000 short."""
    for name in names:
        service.send("fill", f"f-{name}", account=name, trade_id=f"t-{name}", instrument="BTC-USD", side="buy",
                     size="10", price="10000")
    service.send("price", "p1", instrument="BTC-USD", price="8800", source="feed")
    for name in names:
        service.send("fill", f"g-{name}", account=name, trade_id=f"u-{name}", instrument="BTC-USD", side="sell",
                     size="10", price="8800")


# --- the funds ---------------------------------------------------------------------------------------------------


def test_the_house_keeps_the_funds_and_answers_in_the_order_of_claims(service: Service) -> None:
    service.send("fund-movement", "m", fund="insurance", asset="USD", amount="1500", kind="contribution")
    ruin(service, "A", "B")
    assert [Decimal(1000)] * 2 == [claim.amount for shard in (0, 1) for claim in service.found(shard, ShortfallClaimed)]
    assert not service.found(0, ShortfallCovered)
    service.settle()

    assert [] == [event for shard in (0, 1) for event in service.found(shard, FundMoved, FundDrawn)]
    assert [ShortfallClaimReceived, FundDrawn] * 2 == [
        type(event) for event in service.found(HOUSE, ShortfallClaimReceived, FundDrawn)]
    assert [(Decimal(1000), Decimal(0))] == [(row.covered, row.uncovered) for row in service.found(0, ShortfallCovered)]
    assert [(Decimal(500), Decimal(500))] == [(row.covered, row.uncovered)
                                              for row in service.found(1, ShortfallCovered)]
    assert -500 == service.total(SHORTFALL)
    service.require_whole()


def test_what_comes_twice_is_applied_once(service: Service) -> None:
    service.send("fund-movement", "m", fund="insurance", asset="USD", amount="5000", kind="contribution")
    ruin(service, "A")
    kinds = []
    while service.under_way:
        kinds.append([service.deliver(again=True)[0].kind, service.deliver()[0].kind])

    assert [["applied", "duplicate"]] * 2 == kinds
    assert [1, 1] == [len(service.found(0, kind)) for kind in (ShortfallAnswered, ShortfallCovered)]
    service.require_whole()


def test_an_answer_to_no_open_claim_moves_nothing(service: Service) -> None:
    service.send("fund-movement", "m", fund="insurance", asset="USD", amount="5000", kind="contribution")
    ruin(service, "A")
    service.settle()
    claim = service.found(0, ShortfallClaimed)[0].claim_id
    answer = {"type": "shortfall-answer", "time": TIME, "account": "A", "asset": "USD", "claimed": "1000",
              "fund": "insurance", "covered": "1000"}
    rows = [{**answer, "id": "answered", "claim_id": claim}, {**answer, "id": "never", "claim_id": "claim-1"}]
    before = service.total(SHORTFALL)
    outcomes = [service.shards[0].apply([read_between(Place(ANSWERS, 0, 90 + n), json.dumps(row).encode())])[0]
                for n, row in enumerate(rows)]

    assert [("rejected", "unknown-claim")] * 2 == [(outcome.kind, outcome.reason) for outcome in outcomes]
    assert before == service.total(SHORTFALL)
    service.require_whole()


def test_no_client_sends_what_only_shards_send(service: Service) -> None:
    row = json.dumps({"type": "shortfall-claim", "id": "x", "time": TIME, "account": "A", "claim_id": "claim-1",
                      "asset": "USD", "amount": "1"}).encode()
    assert "unknown-type" == service.shards[0].apply([read(Place(ACCOUNTS, 0, 99), row)])[0].reason
    # Nor does a shard take what is another part's, or a client's record by their topics.
    assert "not-supported" == service.shards[1].apply([read_between(Place(CLAIMS, 1, 99), row)])[0].reason
    deposit = json.dumps({"type": "deposit", "id": "y", "time": TIME, "account": "A", "asset": "USD",
                          "amount": "1"}).encode()
    for number, topic in enumerate(BETWEEN_SHARDS):
        (outcome,) = service.shards[0].apply([read_between(Place(topic, 0, 99 + number), deposit)])
        assert ("rejected", "unknown-type") == (outcome.kind, outcome.reason)
    wrong = row.replace(b'"amount": "1"', b'"amount": 1')
    assert read_between(Place(CLAIMS, 0, 1), wrong).fault == (
        "malformed", "amount: expected a JSON string with an exact decimal, came int 1", "amount", "shortfall-claim",
        "x", nanoseconds(TIME))


def test_a_ledger_keeps_what_it_has_kept() -> None:
    shard = in_memory()
    shard.apply([read(Place(CONTROL, 0, 0), json.dumps({
        "type": "asset", "id": "usd", "time": TIME, "asset": "USD", "quantum": "0.01"}).encode())])

    with pytest.raises(LedgerUnreadable, match=r"keeps 'whole'.*another number of shards"):
        shard.keep("accounts", duty_of(0, 2).settings())


# --- transfers ---------------------------------------------------------------------------------------------------


def test_a_transfer_to_another_shard_goes_through_the_in_transit_account(service: Service) -> None:
    (sent,) = service.send("transfer", "t1", account="A", to_account="B", asset="USD", amount="300")
    assert ("applied", Decimal(300)) == (sent.kind, service.total(IN_TRANSIT))
    service.settle()

    assert [Decimal(10700)] == [event.balance for event in service.found(0, TransferSent)]
    assert [(0, "t1"), Decimal(11300)] == [(service.found(1, TransferArrived)[0].from_shard,
                                            service.found(1, TransferReceived)[0].transfer_id),
                                           service.found(1, TransferReceived)[0].balance]
    service.require_whole()


def test_a_transfer_within_a_shard_needs_no_message(service: Service) -> None:
    service.send("transfer", "t1", account="B", to_account="C", asset="USD", amount="300")

    assert not service.under_way
    kinds = [type(event).__name__ for event in service.found(1, TransferSent, TransferReceived)]
    assert ["TransferSent", "TransferReceived"] == kinds


def test_a_transfer_to_nobody_comes_back_and_is_told(service: Service) -> None:
    service.send("transfer", "t1", account="B", to_account="Z", asset="USD", amount="300")
    service.settle()

    assert ["unknown-account"] == [event.reason for event in service.found(0, TransferTurnedAway)]
    assert [Decimal(11000)] == [event.balance for event in service.found(1, TransferReturned)]
    told = [json.loads(message.value) for message in service.told if message.topic == OUTCOMES]
    assert [("transfer-sent", "applied"), ("transfer-returned", "refused")] == [
        (row["event"], row["outcome"]) for row in told]
    service.require_whole()


def test_a_transfer_that_arrives_may_meet_a_call(service: Service) -> None:
    service.send("fill", "f", account="B", trade_id="t", instrument="BTC-USD", side="buy", size="10", price="10000")
    service.send("price", "p1", instrument="BTC-USD", price="9000", source="feed")
    service.send("transfer", "t1", account="A", to_account="B", asset="USD", amount="500")
    assert not service.found(1, MarginCallMet)
    service.settle()

    assert 1 == len(service.found(1, MarginCallMet))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_comes_late_or_twice_nothing_is_lost_or_made_up(data: st.DataObject) -> None:
    """The law over the whole service: conservation, funds, claims, and replay of each ledger."""
    service = opened()
    for number in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(("fund", "transfer", "transfer", "ruin", "deliver", "deliver", "again"))):
            case "fund":
                service.send("fund-movement", f"m-{number}", fund="insurance", asset="USD",
                             amount=str(data.draw(st.integers(1, 1500))),
                             kind=data.draw(st.sampled_from(("contribution", "withdrawal"))))
            case "transfer":
                source, target = data.draw(st.sampled_from([tuple(pair) for pair in ("AB", "BA", "BC", "AZ", "CZ")]))
                service.send("transfer", f"t-{number}", account=source, to_account=target, asset="USD",
                             amount=str(data.draw(st.integers(1, 12_000))))
            case "ruin" if not any(service.found(shard, ShortfallClaimed) for shard in (0, 1)):
                ruin(service, *data.draw(st.sampled_from(("A", "AB", "CAB"))))
            case ("deliver" | "again") as how if service.under_way:
                service.deliver(data.draw(st.integers(0, len(service.under_way) - 1)), again=how == "again")
    service.settle()

    service.require_whole()
    assert not any(writer.house.claims for writer in service.shards.values())


def test_read_models_say_what_the_states_of_every_shard_say(service: Service) -> None:
    service.send("fund-movement", "m", fund="insurance", asset="USD", amount="1500", kind="contribution")
    ruin(service, "A", "B")
    for number, (source, target) in enumerate((("C", "A"), ("C", "Z"), ("C", "B"))):
        service.send("transfer", f"t-{number}", account=source, to_account=target, asset="USD", amount="10")
    service.settle()
    assert {kind for kind in EVENTS if kind.ANSWERS in BETWEEN} == {
        type(recorded.event) for log in service.logs.values() for recorded in log if recorded.event.ANSWERS in BETWEEN}

    for log in service.logs.values():
        hold_to_states(log, cuts=(5, len(log) // 2))


ROOTS = {
    0: "671d1a85ff09db629c147eef7620db7671bf9a770b69d415e34a21ac7361c0b5",
    1: "d46cebba7ea5c4b0ac92694a8459842f739851a358722f97fb88e9f71b5a8ddb",
    HOUSE: "f73cda56dd8f830924c17eb965eb707d767932b292d7415b7789a73f52d0fe28"}


def test_the_logs_of_a_service_keep_their_bytes(service: Service) -> None:
    """The roots that this scene had when it was written: a log that is as old must replay for ever."""
    service.send("fund-movement", "m", fund="insurance", asset="USD", amount="1500", kind="contribution")
    for number, (source, target) in enumerate((("C", "A"), ("C", "Z"), ("C", "B"))):
        service.send("transfer", f"t-{number}", account=source, to_account=target, asset="USD", amount="10")
    ruin(service, "A", "B")
    service.settle()

    assert ROOTS == {shard: writer.root.hex() for shard, writer in service.shards.items()}


# --- who tells what ----------------------------------------------------------------------------------------------


def test_what_all_shards_reject_is_told_once(service: Service) -> None:
    service.send("price", "p-x", instrument="ETH-USD", price="1", source="feed")
    service.send("asset", "usd2", asset="USD", quantum="0.001")
    service.send("fund-movement", "m", fund="insurance", asset="EUR", amount="1", kind="contribution")
    service.send("fund-movement", "m2", fund="insurance", asset="USD", amount="1e3", kind="contribution")
    service.send("fund-movement", "m3", fund="insurance", asset="USD", amount="7", kind="withdrawal")
    service.send("deposit", "d-x", account="B", asset="EUR", amount="1")

    assert [("p-x", "shard-0"), ("usd2", "shard-0"), ("m", "shard-house"), ("m2", "shard-house"),
            ("m3", "shard-house"), ("d-x", "shard-1")] == [
        (json.loads(message.value)["record"]["id"], dict(message.headers)["ce_source"].decode().rpartition("/")[2])
        for message in service.told if json.loads(message.value).get("outcome") in ("rejected", "refused")]
    assert TRANSFERS not in {message.topic for message in service.told}
