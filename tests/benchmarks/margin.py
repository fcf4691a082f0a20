"""Margin: evaluations and liquidation prices a second, beside a plain implementation in decimals of the same run.

The plain one does what a page of documentation says, bracket by bracket and tier by tier, each a sum of parts, and
finds a liquidation price by halving. Both must say the same before either is measured. It never touches a disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from typing import Final

from ledger.amounts import ONE, ZERO, exact
from ledger.risk.holding import Holding
from ledger.risk.liquidation import liquidation_price, repriced_pool, slope_edges
from ledger.risk.margin import evaluate_pool
from ledger.risk.scenario import ChargeTier, Scenarios, scaled_charge
from ledger.rulebook import Rulebook, named, shipped
from tests.benchmarks.figures import Sample
from tests.benchmarks.stage import Stage

SECONDS: Final = 1.0
BALANCES: Final = {"USD": Decimal("60000"), "BTC": Decimal("0.55"), "ETH": Decimal("4.125")}
PRICES: Final = {"USD": ONE, "BTC": Decimal("50000.5"), "ETH": Decimal("2500.25")}
# (instrument, signed size, mark, entry price) in turn, each further round a tenth smaller and under a name of its own
_POSITIONS: Final = (("BTC-USD", "12.5", "50000.5", "48000"), ("ETH-USD", "-310.25", "2500.25", "2610.5"),
                     ("SOL-USD", "4200", "101.75", "99.5"), ("XRP-USD", "-150000", "0.5125", "0.49"),
                     ("DOGE-USD", "900000", "0.1025", "0.11"))
_PLAIN_STEP: Final = Decimal("0.00000001")
# The digits that Python gives unless told.
_PLAIN_DIGITS: Final = Context(prec=28)


def evaluations(stage: Stage, positions: int) -> Sample:
    """Evaluations a second of a cross pool with so many positions and three assets."""
    stage.tell(f"evaluating {positions} positions")
    rules, held, price_of = _house(), portfolio(positions), PRICES.get
    plain = _Plain(rules, held)
    with exact():
        pool = evaluate_pool(BALANCES, held, price_of, rules)
        rate = _per_second(lambda: evaluate_pool(BALANCES, held, price_of, rules))
    with localcontext(_PLAIN_DIGITS):
        came = plain.evaluate(held)
        _require((pool.margin_equity, pool.initial_margin, pool.maintenance_margin), came)
        beside = _per_second(lambda: plain.evaluate(held))
    return Sample(rate, {"plain decimals": beside}, {"positions": positions, "assets": len(BALANCES)})


def liquidation_prices(stage: Stage) -> Sample:
    """Liquidation prices a second, of each position in turn of a pool of five; ours exact, to 18 places."""
    stage.tell("searching liquidation prices")
    rules, held, price_of = _house(), portfolio(5), PRICES.get
    plain = _Plain(rules, held)

    def ours(row: Holding) -> Decimal | None:
        repriced = repriced_pool(BALANCES, held, row.instrument, lambda price: price_of, rules)
        edges = slope_edges(BALANCES, held, row.instrument, lambda asset: ZERO, rules)
        return liquidation_price(repriced, mark=row.mark, line=rules.thresholds.liquidation, rising=row.size < 0,
                                 edges=edges)

    with exact():
        found = [ours(row) for row in held]
        rate = _per_second(lambda: [ours(row) for row in held]) * len(held)
    with localcontext(_PLAIN_DIGITS):
        for row, price in zip(held, found, strict=True):
            beside = plain.liquidation_price(row, held)
            if (price is None) != (beside is None) or (
                    price is not None and beside is not None and abs(price - beside) > _PLAIN_STEP):
                raise AssertionError(f"expected the same price of {row.instrument}, came {price} and {beside}")
        peer = _per_second(lambda: [plain.liquidation_price(row, held) for row in held]) * len(held)
    return Sample(rate, {"plain decimals, halving": peer}, {
        "positions": len(held), "reached": sum(price is not None for price in found)})


def portfolio_evaluations(stage: Stage, positions: int) -> Sample:
    """Evaluations a second under `house-portfolio`, beside revaluing every position in every scenario."""
    stage.tell(f"evaluating a portfolio of {positions} positions")
    rules = named("house-portfolio")
    if rules is None:
        raise LookupError("expected the house's portfolio rulebook")
    # Of each underlying some instruments, so that there is something to net.
    names = ("BTC-USD", "BTC-USDT", "ETH-USD", "ETH-USDT", "SOL-USD")
    held = [row._replace(instrument=names[number % len(names)], position_side=f"side-{number}", leverage=None)
            for number, row in enumerate(portfolio(positions))]
    price_of = PRICES.get
    with exact():
        pool = evaluate_pool({}, held, price_of, rules)
        _require((pool.initial_margin, pool.maintenance_margin), _plain_portfolio(held, rules))
        rate = _per_second(lambda: evaluate_pool({}, held, price_of, rules))
        beside = _per_second(lambda: _plain_portfolio(held, rules))
    scenarios = len(_scenarios(rules, "BTC-USD").scenarios)
    return Sample(rate, {"plain decimals, each scenario": beside}, {"positions": positions, "scenarios": scenarios})


def _scenarios(rules: Rulebook, instrument: str) -> Scenarios:
    block = rules.requirement(instrument)
    if not isinstance(block, Scenarios):
        raise LookupError(f"expected scenarios for {instrument}")
    return block


def portfolio(positions: int) -> list[Holding]:
    """So many positions, long and short, in different brackets."""
    found = []
    for number in range(positions):
        name, size, mark, entry = _POSITIONS[number % len(_POSITIONS)]
        turn = number // len(_POSITIONS)
        signed = Decimal(size) / 10 * (10 - turn % 10)
        found.append(Holding(name if not turn else f"{name}-{turn}", "cross", "net", signed, signed * Decimal(entry),
                             Decimal(mark), ZERO, ONE, "USD", Decimal("0.01"), Decimal(10) if number % 2 else None))
    return found


def _house() -> Rulebook:
    rules = shipped("house", 1)
    if rules is None:
        raise LookupError("expected the house rulebook")
    return rules


def _require(ours: Sequence[Decimal], plain: Sequence[Decimal]) -> None:
    if list(ours) != list(plain):
        raise AssertionError(f"expected the same figures, came {ours} and {plain}")


def _per_second(work: Callable[[], object]) -> float:
    """How often a second work is done, over about a second, a first round apart."""
    work()
    rounds, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        work()
        rounds += 1
    return rounds / (time.perf_counter() - started)


# --- the plain implementation ------------------------------------------------------------------------------------


class _Plain:
    """The same rulebook as plain lists of tuples, and each figure as its definition says."""

    def __init__(self, rules: Rulebook, held: Sequence[Holding]) -> None:
        self.haircuts = {asset: [(tier["up_to"], tier["haircut"]) for tier in
                                 rules.collateral(asset).model_dump()["tiers"]] for asset in BALANCES}
        self.brackets = {row.instrument: [(bracket["floor"], bracket["initial"], bracket["maintenance"]) for bracket in
                                          rules.requirement(row.instrument).model_dump()["brackets"]] for row in held}

    def evaluate(self, held: Sequence[Holding]) -> tuple[Decimal, Decimal, Decimal]:
        """(margin equity, initial margin, maintenance margin)."""
        equity = initial = maintenance = ZERO
        for asset, amount in BALANCES.items():
            value, floor = amount * PRICES[asset], ZERO
            for up_to, haircut in self.haircuts[asset]:
                end = value if up_to is None else min(value, up_to)
                if end > floor:
                    equity += (end - floor) * (1 - haircut)
                    floor = end
        for row in held:
            value = row.size * row.contract_size * row.mark
            notional, needed = abs(value), ZERO
            equity += value - row.cost
            brackets = self.brackets[row.instrument]
            for place, (floor, first, second) in enumerate(brackets):
                if notional <= floor:
                    break
                end = notional if place == len(brackets) - 1 else min(notional, brackets[place + 1][0])
                needed += (end - floor) * first
                maintenance += (end - floor) * second
            if row.leverage is not None:
                needed = max(needed, (notional / row.leverage).quantize(row.quantum, ROUND_CEILING))
            initial += needed
        return equity, initial, maintenance

    def liquidation_price(self, row: Holding, held: Sequence[Holding]) -> Decimal | None:
        """The price at which equity meets maintenance margin, by halving to eight places."""
        def room(price: Decimal) -> Decimal:
            equity, _, maintenance = self.evaluate(
                [other._replace(mark=price) if other is row else other for other in held])
            return equity - maintenance

        near, far = row.mark, ZERO if row.size > 0 else row.mark * 1000
        if room(near) < 0 or room(far) >= 0:
            return None
        while abs(far - near) > _PLAIN_STEP:
            middle = (near + far) / 2
            near, far = (middle, far) if room(middle) >= 0 else (near, middle)
        return near


def _plain_portfolio(held: Sequence[Holding], rules: Rulebook) -> tuple[Decimal, Decimal]:
    """(initial, maintenance margin): every position in every scenario, then pair after pair of the matrix."""
    groups: dict[str, list[Holding]] = {}
    for row in held:
        groups.setdefault(_scenarios(rules, row.instrument).underlying or row.instrument, []).append(row)
    fall, rise = dict.fromkeys(groups, ZERO), dict.fromkeys(groups, ZERO)
    for name, rows in groups.items():
        for scenario in _scenarios(rules, rows[0].instrument).scenarios:
            lost = ZERO
            for row in rows:
                value = row.size * row.contract_size * row.mark
                lost += value - value * (1 + scenario.price)
            lost *= scenario.counted
            if scenario.price <= 0:
                fall[name] = max(fall[name], lost)
            if scenario.price >= 0:
                rise[name] = max(rise[name], lost)
    risk = {name: max(fall[name], rise[name]) for name in groups}
    left = {name: fall[name] - rise[name] for name in groups}
    offsets = rules.pool and rules.pool.portfolio and rules.pool.portfolio.offsets
    for credit, one, other in offsets.pairs if offsets else ():
        if one in left and other in left and left[one] * left[other] < 0:
            used = min(abs(left[one]), abs(left[other]))
            for name in (one, other):
                risk[name] -= credit * used
                left[name] -= used.copy_sign(left[name])
    initial = maintenance = ZERO
    for name, rows in groups.items():
        block = _scenarios(rules, rows[0].instrument)
        gross = sum((abs(row.size) * row.contract_size * row.mark for row in rows), ZERO)
        charge = max(scaled_charge(risk[name], [ChargeTier(tier.up_to, tier.multiplier) for tier in block.sizes or ()]),
                     block.minimum * gross)
        maintenance += charge
        initial += charge * block.initial_multiple
    return initial, maintenance
