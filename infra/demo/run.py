"""The demo: the whole job of the ledger, in one process, on the real fall of 24 September 2019.

Every candle becomes marks, an invented book of accounts trades through them, and an embedded ledger with the
simulated venue does the rest: calls, liquidations, losses, proofs. Run again on the same file, it goes on where it
stopped, and a whole one stays as it is. This file never decides anything and changes no figure that it shows.

Neighbours: `infra.demo.book` (the accounts), `infra.embedded` (the ledger), `projections.read_model` (what the
commands that it ends with read).
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infra.demo.book import MINUTE, SOURCE, VENUE, book, signature
from infra.embedded import LedgerReader, open_ledger
from infra.shard import Outcome, Shard
from infra.streams.candles import read_candles
from infra.streams.records import Delivered, open_input, source_name
from infra.venue import FUND_ACCOUNT
from ledger.amounts import ZERO, exact, nanoseconds, plain, rfc3339
from ledger.errors import LedgerUnreadable
from ledger.events import (
    CollateralConverted,
    Event,
    FillPosted,
    FundMoved,
    LiquidationCompleted,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    PriceRecorded,
    Recorded,
    ShortfallCovered,
)
from ledger.postings import ACCOUNT

CANDLES: Final = Path(__file__).with_name("bitfinex-1m-2019-09-23_25.csv.gz")
START: Final = nanoseconds("2019-09-23T00:00:00Z")
END: Final = nanoseconds("2019-09-26T00:00:00Z")
BATCH: Final = 1_000
REFRESH_SECONDS: Final = 0.25
# Where nobody watches: a line each six hours of log time.
LINE_EVERY: Final = 360 * MINUTE
BTC: Final = "BTC-USD"
FUND: Final = ("insurance", "USD")
CALL_ENDINGS: Final[dict[type[Event], str]] = {
    MarginCallMet: "met", MarginCallWithdrawn: "withdrawn", MarginCallExpired: "expired",
    MarginCallSuperseded: "superseded"}
# Owners of the journal, in a heading's words.
OWNERS: Final = {ACCOUNT: "accounts", "house:rounding": "rounding", "fund:insurance": "insurance fund"}


def records(seed: int, accounts: int) -> Iterator[Delivered]:
    """All records of the demo, in order."""
    with open_input(str(CANDLES)) as stream:
        yield from book(seed, accounts, read_candles(source_name(str(CANDLES)), stream))


def run_demo(ledger: Path, *, accounts: int = 2_000, seed: int = 20190924, console: Console) -> None:
    """Run it into a ledger file, show how it goes, and print what a risk desk would ask first.

    LedgerUnreadable where the file holds another ledger, LedgerLocked where somebody writes it.
    """
    tally = Tally()
    with open_ledger(ledger, venue=VENUE) as shard:
        if shard.house.position:
            _take_up(ledger, shard, signature(seed, accounts), tally)
            console.print(f"{ledger} holds {shard.house.position:,} events of this demo: it goes on from there",
                          soft_wrap=True)
        else:
            console.print(f"{accounts:,} accounts, seven markets, 23 to 25 September 2019, into {ledger}",
                          soft_wrap=True)
        shard.listeners.append(tally.follow)
        started = time.perf_counter()
        _ingest(shard, records(seed, accounts), tally, console)
        seconds = time.perf_counter() - started
        with exact():
            console.print(_summary(shard, tally, seconds))
        console.print(_next_steps(ledger, _worth_a_look(shard, tally)))


def _take_up(ledger: Path, shard: Shard, name: str, tally: Tally) -> None:
    """Count what an earlier run has recorded."""
    if not shard.store.known([(SOURCE, "id", name)]):
        raise LedgerUnreadable(f"expected a new file, or one of this demo with the same seed and accounts, {ledger} "
                               "holds another ledger")
    with LedgerReader(ledger) as reader:
        tally.follow(reader.log())
    tally.earlier = tally.events


def _ingest(shard: Shard, source: Iterator[Delivered], tally: Tally, console: Console) -> None:
    board = _Board(shard, tally, console)
    with board:
        while batch := list(islice(source, BATCH)):
            tally.count(shard.apply(batch))
            board.show()


# --- counting ----------------------------------------------------------------------------------------------------


class Tally:
    """What became of the records, and what was committed, counted as a risk desk asks for it."""

    def __init__(self) -> None:
        self.records = self.events = self.earlier = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.kinds: Counter[type[Event]] = Counter()
        self.endings: Counter[str] = Counter()
        self.called: set[str] = set()
        # liquidation id -> account and log time; order id -> liquidation id; liquidation id -> notional
        self.liquidations: dict[str, tuple[str, int]] = {}
        self.orders: dict[str, str] = {}
        self.notionals: dict[str, Decimal] = {}
        # By minute: liquidations started, notional liquidated, the last mark of BTC.
        self.started: Counter[int] = Counter()
        self.minutes: dict[int, Decimal] = {}
        self.marks: dict[int, Decimal] = {}
        self.converted = self.claimed = self.covered = self.contributed = ZERO

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """The outcomes of one batch."""
        for outcome in outcomes:
            self.records += 1
            self.outcomes[outcome.kind] += 1
            if outcome.reason is not None:
                self.reasons[outcome.reason] += 1

    def follow(self, committed: Iterable[Recorded]) -> None:
        """The events of one commit."""
        with exact():
            for recorded in committed:
                self.events += 1
                self.kinds[type(recorded.event)] += 1
                self._fold(recorded.event)

    def _fold(self, event: Event) -> None:
        minute = event.time // MINUTE
        match event:
            case PriceRecorded(instrument="BTC-USD"):
                self.marks[(event.cause.time or event.time) // MINUTE] = event.price
            case FillPosted(liquidation_order_id=str(order)):
                notional, liquidation = event.size * event.price, self.orders[order]
                self.notionals[liquidation] = self.notionals.get(liquidation, ZERO) + notional
                self.minutes[minute] = self.minutes.get(minute, ZERO) + notional
            case MarginCallIssued():
                self.called.add(event.account)
            case LiquidationStarted():
                self.liquidations[event.liquidation_id] = (event.account, event.time)
                self.started[minute] += 1
            case LiquidationOrderPlaced():
                self.orders[event.order_id] = event.liquidation_id
            case LiquidationCompleted():
                self.endings[event.outcome] += 1
            case CollateralConverted():
                self.converted += event.bought_amount
            case ShortfallCovered():
                self.claimed += event.claimed
                self.covered += event.covered
            case FundMoved():
                self.contributed += event.after - event.before

    @property
    def open_calls(self) -> int:
        """Calls that have not ended."""
        return self.kinds[MarginCallIssued] - sum(self.kinds[kind] for kind in CALL_ENDINGS)


# --- while it runs -----------------------------------------------------------------------------------------------


class _Board:
    """How far it is: a live bar where somebody watches, else a line every six hours of log time."""

    def __init__(self, shard: Shard, tally: Tally, console: Console) -> None:
        self._shard, self._tally, self._console = shard, tally, console
        self._started = time.perf_counter()
        self._shown = self._started
        self._line_due = max(START, shard.house.log_time) + LINE_EVERY
        self._bar = Progress(BarColumn(bar_width=None), TaskProgressColumn(), TimeElapsedColumn(), console=console)
        self._task = self._bar.add_task("", total=END - START)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> _Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self) -> None:
        """Another batch is committed."""
        log_time = self._shard.house.log_time
        if self._live is not None:
            if time.perf_counter() - self._shown >= REFRESH_SECONDS:
                self._shown = time.perf_counter()
                self._bar.update(self._task, completed=log_time - START)
                lines = (Text(line, no_wrap=True) for line in self._figures())
                self._live.update(Group(self._bar, *lines), refresh=True)
        elif log_time >= self._line_due:
            self._line_due += LINE_EVERY
            self._console.print("  ".join(self._figures()), highlight=False, soft_wrap=True)

    def _figures(self) -> tuple[str, str]:
        tally, house = self._tally, self._shard.house
        rate = (tally.events - tally.earlier) / (time.perf_counter() - self._started)
        mark, fund = house.markets[BTC].mark, house.funds.get(FUND)
        return (f"{_shown_time(house.log_time)}  BTC {_money(mark) if mark is not None else '-'}  "
                f"{tally.events:,} events, {rate:,.0f}/s",
                f"{tally.open_calls:,} calls open, {tally.kinds[MarginCallIssued]:,} issued  "
                f"{tally.kinds[LiquidationStarted]:,} liquidations  fund {_money(fund.balance if fund else ZERO)} USD")


def _shown_time(nanoseconds_: int) -> str:
    return rfc3339(nanoseconds_ - nanoseconds_ % MINUTE)[:16].replace("T", " ")


def _money(amount: Decimal) -> str:
    return f"{amount:,.0f}"


# --- when it is done ---------------------------------------------------------------------------------------------


def _summary(shard: Shard, tally: Tally, seconds: float) -> Group:
    parts: list[RenderableType] = []
    for title, rows in (("Records", _record_rows(shard, tally)), ("Margin calls", _call_rows(tally)),
                        ("Liquidations", _liquidation_rows(tally)), ("Losses", _loss_rows(shard, tally)),
                        ("Run", _run_rows(shard, tally, seconds))):
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", width=22)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(name, text)
        if title == "Run":
            parts += [Text("\nTrial balance", style="bold"), _trial_balance(shard)]
        parts += [Text(f"\n{title}", style="bold"), table]
    return Group(*parts)


Rows = list[tuple[str, str]]


def _record_rows(shard: Shard, tally: Tally) -> Rows:
    house = shard.house
    reasons = ", ".join(f"{count} {reason}" for reason, count in tally.reasons.most_common())
    clients = [state for state in house.accounts.values() if state.kind == "client"]
    liquidated = {account for account, _ in tally.liquidations.values()}
    return [
        ("records", f"{tally.records:,}: " + ", ".join(
            f"{tally.outcomes[kind]:,} {kind}" for kind in ("applied", "duplicate", "refused", "rejected"))),
        ("not applied because", reasons or "-"),
        ("events", f"{tally.events:,}"),
        ("marks", f"{tally.kinds[PriceRecorded]:,} of {len(house.markets)} markets"),
        ("accounts", f"{len(clients):,} clients, {sum(bool(state.positions) for state in clients):,} with positions at "
                     f"the end; {len(tally.called):,} were called, {len(liquidated):,} liquidated")]


def _call_rows(tally: Tally) -> Rows:
    kinds = tally.kinds
    return [
        ("issued", f"{kinds[MarginCallIssued]:,}"),
        ("ended", ", ".join(f"{kinds[kind]:,} {name}" for kind, name in CALL_ENDINGS.items())
         + f"; {tally.open_calls:,} open"),
        ("warnings", f"{kinds[MarginWarned]:,}")]


def _liquidation_rows(tally: Tally) -> Rows:
    started, superseded, expired = (
        tally.kinds[kind] for kind in (LiquidationStarted, MarginCallSuperseded, MarginCallExpired))
    endings = ", ".join(f"{count:,} {ending}" for ending, count in sorted(tally.endings.items()))
    rows = [
        ("started", f"{started:,}: {superseded:,} after a call that was superseded, {expired:,} after one that "
                    f"expired, {started - superseded - expired:,} without a call"),
        ("completed", f"{tally.kinds[LiquidationCompleted]:,}: {endings}" if endings else "0"),
        ("notional liquidated", f"{_money(sum(tally.notionals.values(), ZERO))} USD"),
        ("collateral converted", f"into {_money(tally.converted)} USD")]
    if tally.started:
        worst = max(tally.started, key=lambda minute: (tally.started[minute], -minute))
        rows.append(("the worst minute", f"{_shown_time(worst * MINUTE)}: {tally.started[worst]} liquidations, "
                                         f"{_money(tally.minutes.get(worst, ZERO))} USD, BTC {_move(tally, worst)}"))
    if tally.notionals:
        largest = max(tally.notionals, key=lambda name: tally.notionals[name])
        account, log_time = tally.liquidations[largest]
        rows.append(("the largest", f"{account} at {_shown_time(log_time)}: {_money(tally.notionals[largest])} USD"))
    return rows


def _move(tally: Tally, minute: int) -> str:
    """How far BTC went in a minute, from the last mark before it to its own last."""
    before = tally.marks.get(max((known for known in tally.marks if known < minute), default=minute))
    after = tally.marks.get(minute, before)
    return "-" if before is None or after is None else f"{float(after) / float(before) - 1:+.2%}"


def _loss_rows(shard: Shard, tally: Tally) -> Rows:
    house = shard.house
    fund = house.funds.get(FUND)
    rows = [
        ("shortfall", f"{_money(tally.claimed)} USD claimed in {tally.kinds[ShortfallCovered]:,} claims, "
                      f"{_money(tally.covered)} covered, {_money(tally.claimed - tally.covered)} left open"),
        ("insurance fund", f"{_money(tally.contributed)} USD before, {_money(fund.balance if fund else ZERO)} after")]
    taken = house.accounts.get(FUND_ACCOUNT)
    if taken is not None:
        margin = house.margin(taken)
        notional = sum((row.notional for row in margin.positions), ZERO)
        rows.append(("taken over by it", f"{len(margin.positions)} positions of {_money(notional)} USD, which stand at "
                                         f"{_money(margin.account_equity)} USD at the last marks"))
        rows.append(("fund with these", f"{_money((fund.balance if fund else ZERO) + margin.account_equity)} USD"))
    return rows


def _trial_balance(shard: Shard) -> Table:
    """Per owner and asset: who has what, and that the whole is zero."""
    house, balances, imbalances = shard.house, shard.house.house.balances, shard.house.house.imbalances()
    owners = dict.fromkeys([ACCOUNT, *sorted(owner for owner, _ in balances)])
    assets = sorted({asset for _, asset in balances}, key=lambda asset: (asset != "USD", asset))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("", "sum", width=20)
    for asset in assets:
        table.add_column(asset, plain(imbalances.get(asset, ZERO)), justify="right")
    places = {asset: -int(house.assets[asset].quantum.normalize().as_tuple().exponent) for asset in assets}
    for owner in owners:
        table.add_row(OWNERS.get(owner, owner), *(
            f"{balances.get((owner, asset), ZERO):,.{max(0, places[asset])}f}" for asset in assets))
    return table


def _run_rows(shard: Shard, tally: Tally, seconds: float) -> Rows:
    unmatched = [name for name, size in shard.house.house.sizes.items() if size]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)
    return [
        ("house sizes", f"not zero: {', '.join(unmatched)}" if unmatched else "zero in every market"),
        ("balanced", "yes" if shard.is_balanced() and not shard.house.house.imbalances() else "NO"),
        ("root of the log", shard.root.hex()),
        ("wall time", f"{seconds:.1f} s: {tally.records / seconds:,.0f} records/s, "
                      f"{(tally.events - tally.earlier) / seconds:,.0f} events/s"),
        ("peak memory", f"{peak / 2**20:,.0f} MiB")]


def _worth_a_look(shard: Shard, tally: Tally) -> tuple[str, str]:
    """A state of calls that there are, and the account of the largest liquidation that left something behind."""
    state = "expired" if tally.kinds[MarginCallExpired] else "superseded"
    largest = sorted(tally.notionals, key=lambda name: -tally.notionals[name])
    accounts = [tally.liquidations[name][0] for name in largest]
    held = (account for account in accounts if shard.house.accounts[account].positions)
    return state, next(held, accounts[0] if accounts else "LP-1")


def _next_steps(ledger: Path, worth: tuple[str, str]) -> Group:
    """Commands that work as printed."""
    (state, account), place = worth, shlex.quote(str(ledger))
    beside = Path(sys.executable).with_name("clearing")
    command = ("clearing" if shutil.which("clearing")
               else shlex.quote(os.path.relpath(beside)) if beside.exists() else ".venv/bin/clearing")
    lines = [f"{command} calls --ledger {place} --state {state}", f"{command} account {account} --ledger {place}",
             f"{command} replay --ledger {place}"]
    return Group(Text("\nTry next", style="bold"), *(Text(line, no_wrap=True, overflow="ignore") for line in lines))
