"""The demo's book: some thousands of accounts that trade through the fall of 24 September 2019.

Records made of a seed and the candles alone: the same seed gives the same records on every machine (no wall clock,
no order of hashes, no function that a C library rounds as it likes). A trader knows what traders know: the public
marks, the rulebook and their own records; from these they reckon where they stand, add, reduce, stop out, answer a
call or sleep through it. This file never asks the ledger, so it cannot know who was called or liquidated.

Neighbours: `infra.streams.candles` (the marks that it trades at), `infra.demo.run` (which feeds both to a ledger).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import partial
from heapq import heappop, heappush
from itertools import chain
from math import fsum, sqrt
from random import Random
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from ledger.amounts import NANOSECONDS, exact, rfc3339, round_down, round_up
from ledger.commands import (
    Command,
    Deposit,
    ListAsset,
    ListInstrument,
    MoveClock,
    MoveFund,
    MoveFunding,
    OpenAccount,
    PostFill,
    RecordPrice,
    Side,
    Withdraw,
)
from ledger.errors import BrokenInvariant
from ledger.risk.collateral import ValueTiers
from ledger.risk.requirement import Brackets
from ledger.rulebook import DEFAULT_NAME, DEFAULT_VERSION, Rulebook, shipped

SOURCE: Final = "demo:book"
# Orders of the first trades of an account: sound when they are filled, or the book is wrong.
OPENING: Final = "opening"
FUND_USD: Final = Decimal(5_000_000)

SECOND: Final = NANOSECONDS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
FUNDING_EVERY: Final = 8 * HOUR

CENT: Final = Decimal("0.01")
MAKER_REBATE: Final = Decimal("0.0001")
# Correctly rounded, so equal on every machine.
_EXP: Final = Context(prec=17, rounding=ROUND_HALF_EVEN).exp


class Market(NamedTuple):
    """One of the seven: its asset's quantum, tick, lot, impact of a contract sold at once, and its share of choices."""

    asset: str
    quantum: Decimal
    tick: Decimal
    lot: Decimal
    impact: Decimal
    share: float

    @property
    def instrument(self) -> str:
        """BASE-USD."""
        return f"{self.asset}-USD"


def _market(asset: str, quantum: str, tick: str, lot: str, impact: str, share: float) -> Market:
    return Market(asset, Decimal(quantum), Decimal(tick), Decimal(lot), Decimal(impact), share)


MARKETS: Final = (
    _market("BTC", "0.00000001", "0.01", "0.0001", "0.0001", 0.46),
    _market("ETH", "0.00000001", "0.01", "0.001", "0.000003", 0.20),
    _market("XRP", "0.000001", "0.00001", "1", "0.000000008", 0.11),
    _market("LTC", "0.00000001", "0.001", "0.01", "0.000002", 0.08),
    _market("EOS", "0.0001", "0.0001", "0.1", "0.0000001", 0.09),
    _market("NEO", "0.00000001", "0.0001", "0.1", "0.000001", 0.03),
    _market("IOT", "0.000001", "0.00001", "1", "0.00000003", 0.03),
)
# The venue that liquidates: a million dollars sold at once moves BTC by 1 %, the smallest markets by 12 %.
VENUE: Final = SimulatedVenue(impacts={market.instrument: market.impact for market in MARKETS})
BTC, ETH = 0, 1
_INDEX: Final = {market.instrument: index for index, market in enumerate(MARKETS)}

LIQUIDITY_PROVIDERS: Final = 4
_PROVIDER_DEPOSITS: Final = (("USD", Decimal(25_000_000)), ("BTC", Decimal(400)), ("ETH", Decimal(6_000)))

# How a trader goes about it: the hedged hold BTC against ETH, the concentrated one large position in a small market.
Style = Literal["plain", "isolated", "hedged", "concentrated"]
_STYLES: Final[tuple[Style, ...]] = ("plain", "isolated", "hedged", "concentrated")
_STYLE_SHARES: Final = (0.77, 0.10, 0.11, 0.02)
# How soon a trader answers a call, in seconds; those who are absent never do.
Temper = Literal["prompt", "attentive", "slow", "absent"]
_TEMPERS: Final[tuple[Temper, ...]] = ("prompt", "attentive", "slow", "absent")
_WATCHING: Final = (0.42, 0.32, 0.11, 0.15)
_NOT_WATCHING: Final = (0.15, 0.15, 0.25, 0.45)
_ANSWERS: Final[dict[Temper, tuple[int, int]]] = {
    "prompt": (1, 14), "attentive": (10, 120), "slow": (1_200, 7_200), "absent": (0, 0)}

# Worth of the coins that a trader brings: above, haircuts grow, and their screens know the first alone.
COINS_USD_MAX: Final = 400_000.0
# Below this part of their margin equity, traders keep the initial margin of what they open.
SOUND: Final = 0.85
# A move of this size within half an hour makes the disciplined act before they are called.
ALARM_MOVE: Final = 0.03
ALARM_MINUTES: Final = 30
ALARM_PAUSE: Final = 2 * HOUR
# Slips of the outside world: one of eight kinds each time, over the three days.
SLIPS: Final = 24
SLIP_EVERY: Final = 173 * MINUTE

Floats = npt.NDArray[np.float64]
Action = Callable[[], Iterator[Command | bytes]]


def signature(seed: int, accounts: int) -> str:
    """The id of the book's first record: by it a ledger is known to hold this very book."""
    return f"demo:{seed}:{accounts}"


def book(seed: int, accounts: int, candles: Iterator[Delivered]) -> Iterator[Delivered]:
    """The records of `accounts` traders, merged with the candles' by time; of equal times the candles' come first."""
    first = next(candles, None)
    if first is None or first.command is None:
        raise ValueError("expected candles, came none")
    desk = _Desk(seed, accounts, first.command.time)
    yield from desk.set_up()
    for delivered in chain([first], candles):
        command = delivered.command
        if command is not None:
            if command.time > desk.now:
                yield from desk.until(command.time)
            desk.see(command)
        yield delivered


# --- drawing -----------------------------------------------------------------------------------------------------


def _normal(draws: Random) -> float:
    """About normal: twelve uniform draws, which need no function that machines round differently."""
    return fsum(draws.random() for _ in range(12)) - 6.0


def _log_normal(draws: Random, *, median: float, sigma: float) -> float:
    return median * float(_EXP(Decimal(sigma * _normal(draws))))


def _pick(draws: Random, shares: Sequence[float]) -> int:
    """An index, drawn in proportion to the shares."""
    left = draws.random() * fsum(shares)
    for index, share in enumerate(shares):
        left -= share
        if left < 0:
            return index
    return len(shares) - 1


# --- what traders see --------------------------------------------------------------------------------------------


class Screen:
    """Each trader's own margin as they reckon it, in floats: one row a trader, by the rules that all can read.

    An isolated trader's row is the pool of their one position. Marks move equity at once; maintenance margins are
    measured anew each minute and after each trade, which is as well as anybody watches.
    """

    def __init__(self, rows: int, rules: Rulebook) -> None:
        self.marks = [0.0] * len(MARKETS)
        self.sizes: Floats = np.zeros((len(MARKETS), rows))
        # Coins in the account, after haircut.
        self.coins: Floats = np.zeros((len(MARKETS), rows))
        # US dollars, less what the positions cost.
        self.cash: Floats = np.zeros(rows)
        self.equity: Floats = np.zeros(rows)
        self.maintenance: Floats = np.zeros(rows)
        # Equity below which a trader stops out; nan where they never do.
        self.stops: Floats = np.full(rows, np.nan)
        requirements = [row for market in MARKETS if isinstance(row := rules.requirement(market.instrument), Brackets)]
        haircuts = [cut for market in MARKETS if isinstance(cut := rules.collateral(market.asset), ValueTiers)]
        self._floors = [[float(floor) for floor in row.floors] for row in requirements]
        self._steps = [[tuple(float(part) for part in step) for step in row.steps] for row in requirements]
        self._columns = [
            (np.array(floors), np.array([step[2] for step in steps]), np.array([step[3] for step in steps]))
            for floors, steps in zip(self._floors, self._steps, strict=True)]
        self.kept = [1.0 - float(row.tiers[0].haircut) for row in haircuts]

    def see(self, market: int, mark: float) -> None:
        """A mark came."""
        step = mark - self.marks[market]
        if step:
            self.equity += (self.sizes[market] + self.coins[market]) * step
            self.marks[market] = mark

    def measure(self) -> None:
        """All rows anew."""
        self.equity[:] = self.cash
        self.maintenance[:] = 0.0
        for market, mark in enumerate(self.marks):
            self.equity += (self.sizes[market] + self.coins[market]) * mark
            floors, rates, deductions = self._columns[market]
            notional = np.abs(self.sizes[market]) * mark
            step = np.searchsorted(floors, notional, side="right") - 1
            self.maintenance += notional * rates[step] - deductions[step]

    def post(self, row: int, *, cash: float = 0.0, market: int = BTC, size: float = 0.0, coins: float = 0.0) -> None:
        """Money, coins or a trade came into a row or left it; the row is measured anew."""
        self.cash[row] += cash
        self.sizes[market, row] += size
        self.coins[market, row] += coins * self.kept[market]
        equity, maintenance = float(self.cash[row]), 0.0
        for index, mark in enumerate(self.marks):
            held = float(self.sizes[index, row])
            equity += (held + float(self.coins[index, row])) * mark
            maintenance += self.margins(index, abs(held) * mark)[1]
        self.equity[row], self.maintenance[row] = equity, maintenance

    def fund(self, market: int, rate: float) -> None:
        """Longs pay a rate of their notional to shorts."""
        paid = self.sizes[market] * (rate * self.marks[market])
        self.cash -= paid
        self.equity -= paid

    def margins(self, market: int, notional: float) -> tuple[float, float]:
        """(initial, maintenance) margin of a notional."""
        initial, initial_less, rate, less = self._steps[market][bisect_right(self._floors[market], notional) - 1]
        return notional * initial - initial_less, notional * rate - less

    def initial(self, row: int, more: dict[int, float]) -> float:
        """Initial margin of a row's positions, with signed notionals added."""
        return fsum(self.margins(index, abs(float(self.sizes[index, row]) * mark + more.get(index, 0.0)))[0]
                    for index, mark in enumerate(self.marks))

    def clear(self, row: int) -> None:
        """The row's positions are gone, as far as the trader can tell, and the money with them."""
        self.sizes[:, row] = self.coins[:, row] = 0.0
        self.cash[row] = self.equity[row] = self.maintenance[row] = 0.0
        self.stops[row] = np.nan


@dataclass(slots=True, eq=False)
class Trader:
    """Who trades, how, and with what."""

    row: int
    account: str
    draws: Random
    temper: Temper
    equity: float
    leverage: float
    fee_rate: Decimal
    # What they could still bring in, US dollars.
    reserve: float
    # How likely a position is long.
    bullish: float
    style: Style
    is_disciplined: bool
    has_stop: bool
    coin: int | None
    # Isolated traders: what stands beside the position.
    beside: float = 0.0
    # Positions as whole lots, by market.
    lots: list[int] = field(default_factory=lambda: [0] * len(MARKETS))
    called_at: int | None = None
    # Liquidated, as far as they can tell: they trade no more.
    is_out: bool = False

    @property
    def is_isolated(self) -> bool:
        """Whether their position is a pool of its own."""
        return self.style == "isolated"


def _trader(seed: int, row: int) -> Trader:
    draws = Random(f"{seed}:{row}")
    style = _STYLES[_pick(draws, _STYLE_SHARES)]
    equity = min(max(_log_normal(draws, median=5_000, sigma=1.85), 120), 4_000_000)
    leverage = min(max(_log_normal(draws, median=4.1, sigma=0.8), 1.0), 40.0)
    if style == "isolated":
        leverage = float(max(2, round(leverage)))
    elif style == "hedged":
        leverage = min(4.5 * leverage, 36.0)
    elif style == "concentrated":
        equity, leverage = _log_normal(draws, median=150_000, sigma=0.5), 2 * leverage
    elif equity < 20_000 and draws.random() < 0.07:
        leverage = 20 + 28 * draws.random()
    elif equity > 250_000:
        # The largest are more careful.
        leverage = max(1.0, leverage * sqrt(sqrt(250_000 / equity)))
    watches = style in ("plain", "isolated")
    return Trader(
        row, f"A{row + 1:05}", draws, _TEMPERS[_pick(draws, _WATCHING if watches else _NOT_WATCHING)],
        round(equity, -1), leverage, Decimal(draws.choice((50, 60, 75, 100))).scaleb(-5),
        reserve=equity * 1.5 * draws.random(),
        bullish=0.95 if style == "concentrated" else (0.92, 0.5, 0.1)[_pick(draws, (0.55, 0.27, 0.18))], style=style,
        is_disciplined=watches and draws.random() < 0.25,
        has_stop=watches and draws.random() < (0.45 if leverage > 15 else 0.22),
        coin=_pick(draws, (0.7, 0.3)) if style == "plain" and draws.random() < 0.28 else None)


# --- the desk ----------------------------------------------------------------------------------------------------


class _Desk:
    """Whose turn it is: plans by time, and what each trader does when theirs comes."""

    def __init__(self, seed: int, accounts: int, start: int) -> None:
        rules = shipped(DEFAULT_NAME, DEFAULT_VERSION)
        if rules is None:
            raise BrokenInvariant("the default rulebook is not shipped")
        self.start = self.now = start
        self.screen = Screen(accounts, rules)
        self.traders = [_trader(seed, row) for row in range(accounts)]
        self._signature = signature(seed, accounts)
        lines = rules.thresholds
        self._call, self._cure, self._stop = float(lines.call), float(lines.cure), float(lines.stop)
        self._deadline = rules.calls.deadline_seconds * SECOND
        self._marks = [Decimal(0)] * len(MARKETS)
        self._minutes: list[deque[float]] = [deque(maxlen=ALARM_MINUTES) for _ in MARKETS]
        self._quiet_until = [0] * len(MARKETS)
        self._called: dict[int, None] = {}
        # (time, order of planning, what to do)
        self._plans: list[tuple[int, int, Action]] = []
        self._planned = self._sent = self._trades = self._transfers = 0
        self._last_deposit: Deposit | None = None
        for trader in self.traders:
            after = trader.draws.random()
            self._plan(start + int(60 + after * after * 82_800) * SECOND, partial(self._open, trader))
        self._plan(start + FUNDING_EVERY, self._funding)
        for number in range(SLIPS):
            self._plan(start + 25 * MINUTE + number * SLIP_EVERY, partial(self._slip, number))

    def _plan(self, time: int, action: Action) -> None:
        self._planned += 1
        heappush(self._plans, (max(time, self.now), self._planned, action))

    def _delivered(self, record: Command | bytes) -> Delivered:
        self._sent += 1
        place = Place(SOURCE, line=self._sent)
        return read(place, record) if isinstance(record, bytes) else Delivered(place, record, None, None)

    # --- the course of time --------------------------------------------------------------------------------------

    def set_up(self) -> Iterator[Delivered]:
        """What is there a minute before the first mark: listings, the fund, the liquidity providers."""
        time = self.start - MINUTE
        records: list[Command] = [ListAsset(id=self._signature, time=time, asset="USD", quantum=CENT)]
        for market in MARKETS:
            records.append(ListInstrument(
                id=f"list:{market.instrument}", time=time, instrument=market.instrument, base=market.asset, quote="USD",
                contract_type="linear", tick_size=market.tick, lot_size=market.lot))
            records.append(ListAsset(id=f"list:{market.asset}", time=time, asset=market.asset, quantum=market.quantum,
                                     pricing_instrument=market.instrument))
        records.append(MoveFund(id="fund:1", time=time, fund="insurance", asset="USD", amount=FUND_USD,
                                kind="contribution", contributor="house"))
        for number in range(LIQUIDITY_PROVIDERS):
            account = f"LP-{number + 1}"
            records.append(OpenAccount(id=f"open:{account}", time=time, account=account, margin_mode="cross",
                                       kind="liquidity-provider"))
            records.extend(Deposit(id=f"deposit:{account}:{asset}", time=time, account=account, asset=asset,
                                   amount=amount) for asset, amount in _PROVIDER_DEPOSITS)
        return map(self._delivered, records)

    def until(self, time: int) -> Iterator[Delivered]:
        """What happens after the marks so far and before `time`."""
        self._watch()
        while self._plans and self._plans[0][0] < time:
            self.now, _, action = heappop(self._plans)
            for record in action():
                yield self._delivered(record)
        self.now = time

    def see(self, command: Command) -> None:
        """A mark, or the end of a minute."""
        if isinstance(command, RecordPrice):
            market = _INDEX[command.instrument]
            self._marks[market] = command.price
            self.screen.see(market, float(command.price))
        elif isinstance(command, MoveClock):
            self.screen.measure()
            for market, mark in enumerate(self.screen.marks):
                self._sound_alarm(market, mark)

    def _sound_alarm(self, market: int, mark: float) -> None:
        """After a large move within half an hour, the disciplined who lose by it act within minutes."""
        past = self._minutes[market]
        before = past[0] if past else 0.0
        past.append(mark)
        if not before or abs(mark - before) <= ALARM_MOVE * before or self.now < self._quiet_until[market]:
            return
        self._quiet_until[market] = self.now + ALARM_PAUSE
        for trader in self.traders:
            if trader.is_disciplined and trader.lots[market] * (mark - before) < 0:
                self._plan(self.now + trader.draws.randrange(30, 900) * SECOND, partial(self._take_care, trader))

    def _watch(self) -> None:
        """Who is called, stopped out or liquidated, as far as they can tell themselves."""
        screen = self.screen
        for row in np.flatnonzero(screen.equity < screen.stops).tolist():
            trader = self.traders[row]
            screen.stops[row] = np.nan
            self._plan(self.now + trader.draws.randrange(1, 10) * SECOND, partial(self._reduce, trader, 1.0))
        for row in [row for row in self._called
                    if screen.equity[row] >= self._cure * screen.maintenance[row]]:
            self.traders[row].called_at = None
            del self._called[row]
        for row in np.flatnonzero(screen.equity < self._call * screen.maintenance).tolist():
            self._endangered(self.traders[row])
        for row in list(self._called):
            if self.now - (self.traders[row].called_at or 0) >= self._deadline:
                self._liquidated(self.traders[row])

    def _endangered(self, trader: Trader) -> None:
        screen, row = self.screen, trader.row
        screen.post(row)
        if screen.equity[row] < screen.maintenance[row]:
            self._liquidated(trader)
        elif trader.called_at is None and screen.equity[row] < self._call * screen.maintenance[row]:
            trader.called_at = self.now
            self._called[row] = None
            if trader.temper != "absent":
                delay = trader.draws.randrange(*_ANSWERS[trader.temper])
                self._plan(self.now + delay * SECOND, partial(self._answer, trader, self.now))

    def _liquidated(self, trader: Trader) -> None:
        """The venue closes their largest position, and the next, until the rest is sound or nothing is left."""
        screen, row = self.screen, trader.row
        trader.called_at = None
        self._called.pop(row, None)
        while any(trader.lots):
            notionals = [abs(float(screen.sizes[market, row])) * mark for market, mark in enumerate(screen.marks)]
            market = max(range(len(MARKETS)), key=lambda market: screen.margins(market, notionals[market])[1])
            lots, size = trader.lots[market], abs(float(screen.sizes[market, row]))
            depth = float(VENUE.slippage) + float(MARKETS[market].impact) * size
            paid = screen.marks[market] * (1 - depth if lots > 0 else 1 + depth)
            self._settle(trader, market, -lots, size=size, paid=paid, fee=0.0)
            if any(trader.lots) and screen.equity[row] >= self._stop * screen.maintenance[row]:
                return
        if not trader.is_isolated:
            trader.is_out = True
            if trader.draws.random() < 0.25:
                left = float(screen.cash[row]) * (0.6 + 0.8 * trader.draws.random())
                self._plan(self.now + trader.draws.randrange(2, 15) * HOUR, partial(self._withdrawn, trader, left))
            screen.clear(row)

    # --- what traders do -----------------------------------------------------------------------------------------

    def _open(self, trader: Trader) -> Iterator[Command]:
        draws = trader.draws
        yield OpenAccount(id=f"open:{trader.account}", time=self.now, account=trader.account,
                          margin_mode="isolated" if trader.is_isolated else "cross")
        dollars = trader.equity
        if trader.coin is not None:
            wanted = min(dollars * (0.2 + 0.7 * draws.random()), COINS_USD_MAX)
            coins = Decimal(int(wanted / self.screen.marks[trader.coin] * 10_000)).scaleb(-4)
            if coins:
                dollars -= float(coins) * self.screen.marks[trader.coin]
                self.screen.post(trader.row, market=trader.coin, coins=float(coins))
                yield self._deposited(trader, MARKETS[trader.coin].asset, coins)
        yield from self._deposit(trader, max(dollars, 10.0))
        self._plan(self.now + draws.randrange(20, 900) * SECOND, partial(self._enter, trader, OPENING))
        self._plan_next(trader)

    def _plan_next(self, trader: Trader) -> None:
        self._plan(self.now + trader.draws.randrange(5_400, 79_200) * SECOND, partial(self._act, trader))

    def _act(self, trader: Trader) -> Iterator[Command]:
        """An ordinary turn: add, reduce, close, flip, open another market, take money out."""
        if trader.is_out:
            return iter(())
        self._plan_next(trader)
        held = [market for market, lots in enumerate(trader.lots) if lots]
        if not held:
            return self._enter(trader)
        market = trader.draws.choice(held)
        lots, draws = trader.lots[market], trader.draws
        match _pick(draws, (0.27, 0.28, 0.15, 0.06, 0.17, 0.07)):
            case 0:
                return self._add(trader, market, round(lots * (0.1 + 0.4 * draws.random())))
            case 1:
                return self._trade(trader, market, -round(lots * (0.2 + 0.5 * draws.random())))
            case 2:
                return self._trade(trader, market, -lots)
            case 3:
                return self._trade(trader, market, -lots if trader.is_isolated else -2 * lots)
            case 4:
                return self._enter(trader)
            case _:
                return self._withdraw(trader)

    def _enter(self, trader: Trader, order: str | None = None) -> Iterator[Command]:
        """Open positions, as large as leverage and initial margins allow."""
        if trader.is_out or (trader.is_isolated and any(trader.lots)):
            return
        for market, notional in self._wanted(trader).items():
            lots = int(notional / (self.screen.marks[market] * float(MARKETS[market].lot)))
            yield from self._trade(trader, market, lots, order)
        if trader.has_stop and not trader.is_isolated:
            self.screen.stops[trader.row] = self.screen.equity[trader.row] * (0.35 + 0.45 * trader.draws.random())

    def _wanted(self, trader: Trader) -> dict[int, float]:
        """Signed notionals to trade, by market."""
        screen, row = self.screen, trader.row
        equity = trader.beside if trader.is_isolated else float(screen.equity[row])
        held = fsum(abs(float(screen.sizes[market, row])) * mark for market, mark in enumerate(screen.marks))
        total = trader.leverage * equity * (0.4 + 0.5 * trader.draws.random() if trader.is_isolated else 1.0) - held
        if equity < 60 or total < 0.2 * equity:
            return {}
        parts = self._parts(trader, total)
        for _ in range(12):
            if self._required(trader, parts) <= SOUND * equity:
                return parts
            parts = {market: 0.75 * notional for market, notional in parts.items()}
        return {}

    def _required(self, trader: Trader, parts: dict[int, float]) -> float:
        initial = self.screen.initial(trader.row, parts)
        total = fsum(abs(notional) for notional in parts.values())
        return (max(initial, total / trader.leverage) if trader.is_isolated else initial) + 0.001 * total

    def _parts(self, trader: Trader, total: float) -> dict[int, float]:
        draws = trader.draws
        if trader.style == "hedged":
            half = total / 2 if draws.random() < 0.7 else -total / 2
            return {BTC: half, ETH: -half}
        shares = [market.share if mark else 0.0 for market, mark in zip(MARKETS, self.screen.marks, strict=True)]
        if trader.style == "concentrated":
            shares[BTC] = shares[ETH] = 0.0
        count = 1 + _pick(draws, (0.45, 0.30, 0.17, 0.08)) if trader.style == "plain" else 1
        parts: dict[int, float] = {}
        for _ in range(count):
            market = _pick(draws, shares)
            shares[market] = 0.0
            parts[market] = (0.3 + draws.random()) * (1 if draws.random() < trader.bullish else -1)
        whole = fsum(abs(part) for part in parts.values())
        return {market: total * part / whole for market, part in parts.items()}

    def _add(self, trader: Trader, market: int, lots: int) -> Iterator[Command]:
        """Add to a position, if it stays sound; else lighten it."""
        notional = lots * float(MARKETS[market].lot) * self.screen.marks[market]
        equity = trader.beside if trader.is_isolated else float(self.screen.equity[trader.row])
        required = (2 * abs(notional) / trader.leverage if trader.is_isolated
                    else self._required(trader, {market: notional}))
        return self._trade(trader, market, lots if required < SOUND * equity else -lots)

    def _take_care(self, trader: Trader) -> Iterator[Command]:
        """The disciplined after a large move: more money, or smaller positions."""
        if trader.is_out:
            return iter(())
        draws, equity = trader.draws, float(self.screen.equity[trader.row])
        if draws.random() < 0.5 and not trader.is_isolated and trader.reserve > 0.1 * equity:
            return self._deposit(trader, min(trader.reserve, equity * (0.1 + 0.5 * draws.random())), reserve=True)
        return self._reduce(trader, 0.2 + 0.5 * draws.random())

    def _answer(self, trader: Trader, called_at: int) -> Iterator[Command]:
        """Answer a call: with money, as far as there is some, else with smaller positions."""
        if trader.called_at != called_at or not any(trader.lots):
            return iter(())
        draws = trader.draws
        # Some send just what was asked for, and are soon called again.
        target = self._cure * 1.02 if draws.random() < 0.4 else 1.6 + 2.5 * draws.random()
        equity, maintenance = (float(column[trader.row]) for column in (self.screen.equity, self.screen.maintenance))
        missing = target * maintenance - equity
        if draws.random() < 0.75 and not trader.is_isolated and trader.reserve > missing:
            return self._deposit(trader, missing, reserve=True)
        return self._reduce(trader, min(1.0, 1.05 - equity / (target * maintenance)))

    def _reduce(self, trader: Trader, part: float) -> Iterator[Command]:
        """Close a part of every position."""
        if trader.is_out:
            return
        for market, lots in enumerate(trader.lots):
            if lots:
                yield from self._trade(trader, market, -lots if part >= 1 else -round(lots * part))

    # --- records -------------------------------------------------------------------------------------------------

    def _trade(self, trader: Trader, market: int, lots: int, order: str | None = None) -> Iterator[Command]:
        """Both sides of a trade at the mark: the trader takes, a liquidity provider makes."""
        listed = MARKETS[market]
        if not lots:
            return
        side, other = _SIDES[lots > 0]
        size, trade_price, fee, rebate = _terms(listed, lots, self._marks[market], trader)
        self._trades += 1
        trade, provider = f"T-{self._trades:06}", f"LP-{1 + trader.draws.randrange(LIQUIDITY_PROVIDERS)}"
        isolated = trader.is_isolated
        yield PostFill(
            id=f"{trade}:taker", time=self.now, account=trader.account, trade_id=trade, instrument=listed.instrument,
            side=side, size=size, price=trade_price, fee=fee, liquidity="taker",
            order_id=f"{order}:{trader.account}:{listed.asset}" if order else None,
            margin_mode="isolated" if isolated else None, leverage=Decimal(int(trader.leverage)) if isolated else None)
        yield PostFill(id=f"{trade}:maker", time=self.now, account=provider, trade_id=trade,
                       instrument=listed.instrument, side=other, size=size, price=trade_price, fee=-rebate,
                       liquidity="maker")
        self._settle(trader, market, lots, size=float(size), paid=float(trade_price), fee=float(fee))

    def _settle(self, trader: Trader, market: int, lots: int, *, size: float, paid: float, fee: float) -> None:
        """What a trade did to the trader's own screen."""
        screen, row = self.screen, trader.row
        increases = trader.lots[market] * lots >= 0
        trader.lots[market] += lots
        cash = -fee - (paid * size if lots > 0 else -paid * size)
        if trader.is_isolated and increases:
            moved = fee + max(screen.margins(market, paid * size)[0], paid * size / trader.leverage)
            trader.beside -= moved
            cash += moved
        screen.post(row, cash=cash, market=market, size=size if lots > 0 else -size)
        if trader.is_isolated and not trader.lots[market]:
            trader.beside += max(0.0, float(screen.cash[row]))
            screen.clear(row)

    def _deposit(self, trader: Trader, dollars: float, *, reserve: bool = False) -> Iterator[Command]:
        """US dollars come in; of the trader's reserve, where they did not start with them."""
        amount = Decimal(round(dollars * 100)).scaleb(-2)
        if trader.is_out or amount < 1:
            return
        if reserve:
            trader.reserve -= float(amount)
        if trader.is_isolated:
            trader.beside += float(amount)
        else:
            self.screen.post(trader.row, cash=float(amount))
        yield self._deposited(trader, "USD", amount)

    def _deposited(self, trader: Trader, asset: str, amount: Decimal) -> Deposit:
        self._transfers += 1
        self._last_deposit = Deposit(id=f"D-{self._transfers:06}", time=self.now, account=trader.account, asset=asset,
                                     amount=amount)
        return self._last_deposit

    def _withdraw(self, trader: Trader) -> Iterator[Command]:
        """Take money out: mostly a part of what is free, now and then far too much."""
        screen, row, draws = self.screen, trader.row, trader.draws
        equity = trader.beside if trader.is_isolated else float(screen.equity[row])
        free = 0.6 * equity if trader.is_isolated else equity - 1.5 * screen.initial(row, {})
        if draws.random() < 0.08:
            yield from self._withdrawn(trader, 1.2 * equity)
        elif free > 100:
            taken = free * (0.05 + 0.3 * draws.random())
            if trader.is_isolated:
                trader.beside -= taken
            else:
                screen.post(row, cash=-taken)
            yield from self._withdrawn(trader, taken)

    def _withdrawn(self, trader: Trader, dollars: float) -> Iterator[Command]:
        amount = Decimal(round(dollars * 100)).scaleb(-2)
        if amount > 0:
            self._transfers += 1
            yield Withdraw(id=f"W-{self._transfers:06}", time=self.now, account=trader.account, asset="USD",
                           amount=amount)

    def _funding(self) -> Iterator[Command]:
        """Every eight hours the side that most traders are on pays: 0.01 % where seven tenths of all sizes are."""
        self._plan(self.now + FUNDING_EVERY, self._funding)
        for index, market in enumerate(MARKETS):
            sizes = self.screen.sizes[index].tolist()
            whole = fsum(map(abs, sizes))
            if whole and self._marks[index]:
                rate = Decimal(round(250 * fsum(sizes) / whole)).scaleb(-6)
                self.screen.fund(index, float(rate))
                yield MoveFunding(id=f"funding:{market.instrument}:{rfc3339(self.now)}", time=self.now,
                                  instrument=market.instrument, rate=rate)

    def _slip(self, number: int) -> Iterator[Command | bytes]:
        """What goes wrong on any day; each kind comes round again."""
        name, time, mark, deposit = f"slip:{number + 1}", self.now, self._marks[BTC], self._last_deposit
        stray = f'{{"type":"deposit","id":"{name}","time":"{rfc3339(time)}","account":"A00001","asset":"USD","amount":'
        match number % 8:
            case 0 if deposit is not None:  # sent twice
                yield deposit
            case 1:  # late
                yield RecordPrice(id=name, time=time - 10 * MINUTE, instrument="BTC-USD", price=mark, source="csv")
            case 2 if deposit is not None:  # another amount under an id that is spent
                yield deposit.model_copy(update={"amount": deposit.amount * 10})
            case 3:  # nobody's account
                yield Deposit(id=name, time=time, account="A99999-closed", asset="USD", amount=Decimal(250))
            case 4:  # a decimal point slipped
                yield RecordPrice(id=name, time=time, instrument="BTC-USD", price=mark.scaleb(-1), source="csv")
            case 5:  # a line cut short
                yield stray.encode()
            case 6:  # a number that is no string
                yield (stray + "250.00}").encode()
            case _:  # a type that this version does not apply
                yield (stray.replace('"deposit"', '"novation"') + '"250","to_account":"A00002"}').encode()


_SIDES: Final[tuple[tuple[Side, Side], tuple[Side, Side]]] = (("sell", "buy"), ("buy", "sell"))
# Who is isolated waits for a slightly better price than the mark: their pool takes in no more than the initial margin
# at the fill's price, and would stand below that at the mark otherwise.
_PATIENCE: Final = (Decimal("1.0005"), Decimal("0.9995"))


def _terms(market: Market, lots: int, mark: Decimal, trader: Trader) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """(size, trade price, taker's fee, maker's rebate); the price is the mark, to the tick in the taker's favour."""
    with exact():
        size = abs(lots) * market.lot
        wanted = mark * _PATIENCE[lots > 0] if trader.is_isolated else mark
        trade_price = round_down(wanted, market.tick) if lots > 0 else round_up(wanted, market.tick)
        value = size * trade_price
        return size, trade_price, round_up(value * trader.fee_rate, CENT), round_down(value * MAKER_REBATE, CENT)
