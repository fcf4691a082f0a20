"""Several ledgers held against each other: trades, conservation, funds, and the same decisions on the same prices.

Each account shard is a ledger that balances by itself; what only shows over all of them is here. A ledger that has
seen less of the prices than another is behind, which is no difference; one that has decided otherwise, or has left
out what it went past, is one. This file never writes, and never opens a ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Final, NamedTuple

from ledger.amounts import ZERO, exact, plain
from ledger.between_shards import Part
from ledger.encoding import decode
from ledger.events import MarketSettled, PriceRecorded, PriceRejected
from ledger.postings import IN_TRANSIT, fund_owner
from projections.database import Connection
from projections.funds import DRAW, FUND_MOVEMENTS, FUNDS, SHORTFALLS
from projections.journal import TRIAL_BALANCE
from projections.markets import MARKETS
from projections.queries import select
from projections.trades import OPEN_TRADES

ACCEPTED: Final = "accepted"
_PRICES: Final = (PriceRecorded.TOPIC, PriceRejected.TOPIC, MarketSettled.TOPIC)

# (version, topic, state) of a stream's events in order.
Stream = Callable[[str], Iterable[tuple[int, str, bytes]]]


class Ledger(NamedTuple):
    """One of the ledgers: its name in the report, its read models, how its streams are read, and what it keeps."""

    name: str
    models: Connection
    stream: Stream
    keeps: Part = "whole"


class Difference(NamedTuple):
    """One thing in which the ledgers do not agree: what kind, of what, what was expected and what came."""

    kind: str
    subject: str
    expected: str
    came: str


class OwnerTotal(NamedTuple):
    """What an owner has of an asset over all ledgers."""

    asset: str
    owner: str
    total: Decimal


class AssetSum(NamedTuple):
    """What all owners of all ledgers together have of an asset: zero, or something is lost or made up."""

    asset: str
    total: Decimal


class FundTotal(NamedTuple):
    """What a fund holds over all ledgers: by its own events, and by the journals."""

    fund: str
    asset: str
    balance: Decimal
    by_journal: Decimal


class OpenTrade(NamedTuple):
    """A trade of which, over all ledgers, more was bought than sold or the other way round."""

    trade_id: str
    instrument: str
    bought: Decimal
    sold: Decimal
    ledgers: str


class MarketLine(NamedTuple):
    """Whether all ledgers decided alike on an instrument's prices, and how many prices the last of them is behind."""

    instrument: str
    prices: int
    accepted: int
    rejected: int
    behind: int
    differing: int


class PriceDecision(NamedTuple):
    """What became of one price: `key` says which it was (delivery, source, sequence or id)."""

    key: tuple[str, str, str]
    price: Decimal
    kind: str
    outcome: str
    # What the mark became, where that is not the price itself.
    mark: Decimal | None = None

    def __str__(self) -> str:
        to = "" if self.mark is None else f" to the mark {plain(self.mark)}"
        return f"{self.outcome} {self.kind} {plain(self.price)}{to}"


class Reconciliation(NamedTuple):
    """What was found; no differences means that the ledgers are one."""

    trades: list[OpenTrade]
    owners: list[OwnerTotal]
    sums: list[AssetSum]
    funds: list[FundTotal]
    markets: list[MarketLine]
    differences: list[Difference]


def reconcile(ledgers: Sequence[Ledger]) -> Reconciliation:
    """Hold the ledgers against each other; each is taken as it stands in its read models."""
    differences: list[Difference] = []
    with exact():
        trades = _trades(ledgers, differences)
        owners, sums = _balances(ledgers, differences)
        funds = _funds(ledgers, owners, differences)
        _claims(ledgers, differences)
        # The house is told of no market.
        markets = _markets([ledger for ledger in ledgers if ledger.keeps != "house"], differences)
    return Reconciliation(trades, owners, sums, funds, markets, differences)


# --- trades and money --------------------------------------------------------------------------------------------


def _trades(ledgers: Sequence[Ledger], differences: list[Difference]) -> list[OpenTrade]:
    """Trades that no ledger completes, alone or together."""
    found: dict[tuple[str, str], OpenTrade] = {}
    for ledger in ledgers:
        for row in select(ledger.models, OPEN_TRADES):
            key = (row.trade_id, row.instrument)
            seen = found.get(key, OpenTrade(*key, ZERO, ZERO, ""))
            names = ", ".join(filter(None, (seen.ledgers, ledger.name)))
            found[key] = OpenTrade(*key, seen.bought + row.bought, seen.sold + row.sold, names)
    trades = [trade for _, trade in sorted(found.items()) if trade.bought != trade.sold]
    differences += [Difference("trade", f"{trade.trade_id} of {trade.instrument}", "as much bought as sold",
                               f"{plain(trade.bought)} bought and {plain(trade.sold)} sold, in {trade.ledgers}")
                    for trade in trades]
    return trades


def _balances(ledgers: Sequence[Ledger], differences: list[Difference]) -> tuple[list[OwnerTotal], list[AssetSum]]:
    totals: dict[tuple[str, str], Decimal] = {}
    whole: dict[str, Decimal] = {}
    for ledger in ledgers:
        sums: dict[str, Decimal] = {}
        for row in select(ledger.models, TRIAL_BALANCE):
            totals[row.asset, row.owner] = totals.get((row.asset, row.owner), ZERO) + row.amount
            sums[row.asset] = sums.get(row.asset, ZERO) + row.amount
        for asset, total in sums.items():
            whole[asset] = whole.get(asset, ZERO) + total
            if total:
                differences.append(Difference("balance", f"{asset} in {ledger.name}", "0 over all owners",
                                              plain(total)))
    differences += [Difference("balance", f"{asset} over all ledgers", "0 over all owners", plain(total))
                    for asset, total in sorted(whole.items()) if total]
    differences += [Difference("transfer", f"{asset} over all ledgers", "nothing in transit", plain(total))
                    for (asset, owner), total in sorted(totals.items()) if owner == IN_TRANSIT and total]
    return ([OwnerTotal(*key, total) for key, total in sorted(totals.items())],
            [AssetSum(asset, total) for asset, total in sorted(whole.items())])


def _funds(ledgers: Sequence[Ledger], owners: Sequence[OwnerTotal], differences: list[Difference]) -> list[FundTotal]:
    held: dict[tuple[str, str], Decimal] = {}
    for ledger in ledgers:
        for row in select(ledger.models, FUNDS):
            held[row.fund, row.asset] = held.get((row.fund, row.asset), ZERO) + row.balance
    prefix = fund_owner("")
    journal = {(row.owner.removeprefix(prefix), row.asset): row.total for row in owners
               if row.owner.startswith(prefix)}
    funds = [FundTotal(*key, held.get(key, ZERO), journal.get(key, ZERO)) for key in sorted({*held, *journal})]
    differences += [Difference("fund", f"{row.fund} in {row.asset}", f"{plain(row.by_journal)} as in the journals",
                               plain(row.balance)) for row in funds if row.balance != row.by_journal]
    return funds


def _claims(ledgers: Sequence[Ledger], differences: list[Difference]) -> None:
    """Where a house keeps the funds: claims that it has not answered, and answers that have not arrived."""
    houses = [ledger for ledger in ledgers if ledger.keeps == "house"]
    if not houses:
        return
    drawn: dict[tuple[str | None, str | None], Decimal] = {}
    for house in houses:
        for row in select(house.models, FUND_MOVEMENTS):
            if row.kind == DRAW:
                drawn[row.account, row.claim_id] = -Decimal(row.amount)
    for ledger in ledgers:
        for claim in select(ledger.models, SHORTFALLS):
            subject = f"{claim.claim_id} of {claim.account} in {ledger.name}"
            answer = drawn.get((claim.account, claim.claim_id))
            if answer is None:
                differences.append(Difference("claim", subject, "an answer of the house", "none"))
            elif answer != claim.covered:
                differences.append(Difference("claim", subject, f"{plain(answer)} {claim.asset} as the house paid",
                                              plain(claim.covered)))


# --- marks -------------------------------------------------------------------------------------------------------


def decisions(ledger: Ledger, instrument: str) -> Iterator[PriceDecision]:
    """What a ledger decided on the prices of an instrument, in the order of its log."""
    for _, topic, state in ledger.stream(f"market:{instrument}"):
        if topic in _PRICES:
            event = decode(topic, state)
            match event:
                case PriceRecorded() | PriceRejected():
                    which = f"id {event.cause.id}" if event.sequence is None else f"sequence {event.sequence}"
                    key = (event.cause.source, event.source, which)
                    if isinstance(event, PriceRecorded):
                        yield PriceDecision(key, event.price, event.kind, ACCEPTED, event.mark)
                    else:
                        yield PriceDecision(key, event.price, event.kind, event.reason)
                case MarketSettled():
                    key = (event.cause.source, "settlement", f"id {event.cause.id}")
                    yield PriceDecision(key, event.price, f"{event.kind} settlement", ACCEPTED)


def _markets(ledgers: Sequence[Ledger], differences: list[Difference]) -> list[MarketLine]:
    seen: dict[str, dict[str, tuple[int, int]]] = {}
    for ledger in ledgers:
        for row in select(ledger.models, MARKETS):
            counts = (row.prices_accepted, row.rejected_late + row.rejected_step)
            seen.setdefault(row.instrument, {})[ledger.name] = counts
    lines = []
    for instrument, counts_by_ledger in sorted(seen.items()):
        differences += [Difference("instrument", instrument, f"listed in {ledger.name} too", "not listed there")
                        for ledger in ledgers if ledger.name not in counts_by_ledger]
        holders = [ledger for ledger in ledgers if ledger.name in counts_by_ledger]
        # Whoever has seen most is what the others are held against.
        first = max(holders, key=lambda ledger: sum(counts_by_ledger[ledger.name]))
        accepted, rejected = counts_by_ledger[first.name]
        behind = differing = 0
        for other in holders:
            if other is not first:
                lag, found = _compare(instrument, first, other)
                behind, differing = max(behind, lag), differing + len(found)
                differences += found
        lines.append(MarketLine(instrument, accepted + rejected, accepted, rejected, behind, differing))
    return lines


def _compare(instrument: str, first: Ledger, other: Ledger) -> tuple[int, list[Difference]]:
    """How many prices the other is behind the first, and where it decided differently."""
    ours, theirs = decisions(first, instrument), decisions(other, instrument)
    found: list[Difference] = []

    def differ(expected: PriceDecision | None, came: PriceDecision | None) -> None:
        delivery, source, which = (expected or came or PriceDecision(("", "", ""), ZERO, "", "")).key
        found.append(Difference(
            "mark", f"{instrument}, {which} of {source} from {delivery}",
            f"{'nothing' if expected is None else expected} as in {first.name}",
            f"{'nothing' if came is None else came} in {other.name}"))

    for expected, came in zip_longest(ours, theirs):
        if expected is None or came is None:
            # One of the two ends here, so the other is ahead by what is left.
            return 1 + sum(1 for _ in chain(ours, theirs)), found
        if expected.key != came.key:
            return _compare_by_key([expected, *ours], [came, *theirs], differ), found
        if expected != came:
            differ(expected, came)
    return 0, found


def _compare_by_key(ours: Sequence[PriceDecision], theirs: Sequence[PriceDecision],
                    differ: Callable[[PriceDecision | None, PriceDecision | None], None]) -> int:
    """From the first price that is not the same on, by what each price is known by; how far one is behind.

    What is missing at the end of one side alone has not come there yet. Anything else that is missing was left out.
    """
    left, right = {row.key: row for row in ours}, {row.key: row for row in theirs}
    tails = [_tail(ours, right), _tail(theirs, left)]
    is_lag = not all(tails)
    late = {row.key for tail in tails for row in tail} if is_lag else set()
    for row in ours:
        if row.key not in right and row.key not in late:
            differ(row, None)
        elif row.key in right and right[row.key] != row:
            differ(row, right[row.key])
    for row in theirs:
        if row.key not in left and row.key not in late:
            differ(None, row)
    common = [row.key for row in ours if row.key in right]
    if common != [row.key for row in theirs if row.key in left]:
        moved = next(row for row, key in zip((row for row in ours if row.key in right), (
            row.key for row in theirs if row.key in left), strict=False) if row.key != key)
        differ(moved, moved._replace(outcome=f"in another order, {moved.outcome}"))
    return len(late)


def _tail(rows: Sequence[PriceDecision], other: dict[tuple[str, str, str], PriceDecision]) -> list[PriceDecision]:
    """The last rows of which the other side knows none."""
    tail = []
    for row in reversed(rows):
        if row.key in other:
            break
        tail.append(row)
    return tail
