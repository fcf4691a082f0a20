"""What the figures of a portfolio mean, in sentences that a trader understands.

Sentences round for the eye; the figures beside them are exact. This file never computes a figure that is not
already there, and never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from ledger.amounts import FINEST, divide_down, plain
from ledger.risk.holding import Holding
from ledger.risk.margin import PoolMargin, PositionMargin, liquidatable
from ledger.rulebook import Rulebook
from projections.figures import PoolFigures, PositionFigures, Valuation, brief, brief_ratio


class Cure(NamedTuple):
    """How much of a position would have to be closed at its mark to cure its pool; None: not even all of it would."""

    holding: Holding
    size: Decimal | None


def explain(pools: Sequence[PoolFigures], collateral: Mapping[str, Decimal], valuation: Valuation,
            rules: Rulebook, cures: Mapping[str, Cure]) -> list[str]:
    """Equity, haircuts, then each pool that holds something.

    What it needs, what moved its ratio and which position costs most, how it stands and what would cure it, where it
    would fall. `cures`: by pool, of those that need one.
    """
    asset = rules.valuation_asset
    sentences = [f"All figures are in {asset}, under rulebook {rules.name} {rules.version}.", *_collateral(
        collateral, valuation, rules)]
    for pool in pools:
        sentences += _pool(pool, rules, cures.get(pool.pool))
    return sentences


def _collateral(collateral: Mapping[str, Decimal], valuation: Valuation, rules: Rulebook) -> Iterator[str]:
    for asset, amount in collateral.items():
        price = valuation.price_of(asset)
        if price is None:
            wanted = f"marks.{asset} or marks.{asset}-{rules.valuation_asset} would"
            if amount > 0:
                yield f"{plain(amount)} {asset} count for nothing, since no mark values {asset}; {wanted}."
            continue
        gross = amount * price
        counted = rules.collateral(asset).worth(amount, price)
        if counted != gross:
            yield (f"{plain(amount)} {asset} are worth {brief(gross)} and count {brief(counted)} as collateral, after "
                   f"a haircut of {_percent(gross - counted, gross)}.")


def _pool(pool: PoolFigures, rules: Rulebook, cure: Cure | None) -> Iterator[str]:
    margin, name, unit = pool.margin, _name(pool.pool), rules.valuation_asset
    yield (f"{name}: account equity is {brief(margin.account_equity)} {unit} (unrealised PnL "
           f"{brief(margin.unrealised_pnl)}), margin equity {brief(margin.margin_equity)} {unit}.")
    if margin.ratio is not None:
        yield (f"{name}: {brief(margin.initial_margin)} {unit} are needed to add risk and "
               f"{brief(margin.maintenance_margin)} {unit} to keep it, so the margin ratio is "
               f"{brief_ratio(margin.ratio)}.")
    if pool.status != "unpriced":
        yield from _moved(name, margin, rules)
        yield from _costs_most(name, margin, unit)
    yield f"{name}: {_standing(pool, rules)}"
    if cure is not None:
        yield f"{name}: {_cure(cure)}"
    for row in pool.positions:
        yield _position(row, rules, is_past=liquidatable(margin, rules.thresholds))


def _moved(name: str, margin: PoolMargin, rules: Rulebook) -> Iterator[str]:
    """Whose profit or loss moved the ratio most."""
    row = max(margin.positions, key=lambda row: abs(row.unrealised_pnl), default=None)
    if row is None or not row.unrealised_pnl:
        return
    unit, pnl = rules.valuation_asset, row.unrealised_pnl
    what = f"a {'profit' if pnl > 0 else 'loss'} of {brief(abs(pnl))} {unit} on {_held(row.holding, small=True)}"
    more = ""
    # Where profit counts in part, or is cut with a balance, what there would be without it is not a difference.
    if margin.maintenance_margin and (rules.pool is None or rules.pool.profit is None):
        before = divide_down(margin.margin_equity - pnl, margin.maintenance_margin, FINEST)
        more = f"; without it the margin ratio would be {brief_ratio(before)} at these margins"
    yield f"{name}: what moved it most since entry is {what}{more}."


def _costs_most(name: str, margin: PoolMargin, unit: str) -> Iterator[str]:
    """Which of several positions needs most of the maintenance margin."""
    def need(row: PositionMargin) -> Decimal:
        return row.maintenance_margin

    if len(margin.positions) > 1 and (row := max(margin.positions, key=need)).maintenance_margin:
        yield (f"{name}: {_held(row.holding, small=True)} costs most, {brief(row.maintenance_margin)} of the "
               f"{brief(margin.maintenance_margin)} {unit} that are needed to keep all, "
               f"{_percent(row.maintenance_margin, margin.maintenance_margin)}.")


def _cure(cure: Cure) -> str:
    held = _held(cure.holding, small=True)
    if cure.size is None:
        return f"closing even all of {held} at its mark, which costs most, would not cure it."
    if cure.size == abs(cure.holding.size):
        return f"closing all of {held} at its mark would cure it."
    return f"closing {brief(cure.size, rounding=ROUND_CEILING)} of {held} at its mark would cure it too."


def _held(holding: Holding, *, small: bool = False) -> str:
    side = "long" if holding.size > 0 else "short"
    return f"{side if small else side.capitalize()} {plain(abs(holding.size))} {holding.instrument}"


def _name(pool: str) -> str:
    if pool == "cross":
        return "Cross pool"
    _, instrument, side = pool.split(":", 1)[0], *pool.split(":", 1)[1].rsplit(":", 1)
    return f"Isolated {instrument}" + ("" if side == "net" else f" {side}")


def _standing(pool: PoolFigures, rules: Rulebook) -> str:
    """The status, and how far it is to the next line."""
    margin, lines, unit = pool.margin, rules.thresholds, rules.valuation_asset
    match pool.status:
        case "unpriced":
            missing = " and ".join(f"marks.{asset} (or marks.{asset}-{unit})"
                                   for asset in dict.fromkeys(margin.unpriced))
            return f"unpriced, since what is owed or settled cannot be valued without {missing}."
        case "bankrupt":
            return f"bankrupt: closed at these marks it would leave a loss of {brief(-margin.account_equity)} {unit}."
        case "liquidation":
            return (f"it would be liquidated, since its margin ratio is past {plain(lines.liquidation)}, until it "
                    f"stands at {plain(lines.stop)}; {brief(_missing(margin, lines.stop))} {unit} of margin equity "
                    "more would bring it there.")
        case "margin-call":
            return (f"it would be called, since its margin ratio is below {plain(lines.call)}; "
                    f"{brief(_missing(margin, lines.cure))} {unit} of margin equity more would cure it.")
        case "warning":
            return (f"it is warned, since its margin ratio is below {plain(lines.warning)}; a further loss of "
                    f"{brief(-_missing(margin, lines.call))} {unit} at these margins would bring a margin call.")
        case "healthy" if margin.maintenance_margin:
            return (f"healthy; a loss of {brief(-_missing(margin, lines.warning))} {unit} at these margins would "
                    f"bring it to the warning line {plain(lines.warning)}.")
        case _:
            return "healthy; it holds no positions."


def _missing(margin: PoolMargin, line: Decimal) -> Decimal:
    """Margin equity that is missing to a line, at the margins as they are; negative when there is more."""
    return line * margin.maintenance_margin - margin.margin_equity


def _position(row: PositionFigures, rules: Rulebook, *, is_past: bool) -> str:
    holding = row.holding
    held = _held(holding)
    if row.margin is None:
        return f"{held}: not valued, since no mark values {holding.settlement_asset}."
    way = "fall" if holding.size > 0 else "rise"
    bankrupt = "" if row.bankruptcy_price is None else f", and bankrupt at {brief(row.bankruptcy_price)}"
    if row.liquidation_price is None:
        line = plain(rules.thresholds.liquidation)
        if is_past:
            # The pool's own sentences say what would cure it.
            return f"{held}: its pool is past the liquidation line {line} at the marks as they are{bankrupt}."
        return f"{held}: no {way} of this mark alone leads to the liquidation line {line}."
    distance = _percent(abs(holding.mark - row.liquidation_price), holding.mark)
    return (f"{held}: liquidated at a mark of {brief(row.liquidation_price)}, a {way} of {distance}{bankrupt}, all "
            "other marks as they are.")


def _percent(part: Decimal, whole: Decimal) -> str:
    share = divide_down(part * 100, whole, FINEST)
    return f"{plain(share.quantize(Decimal('0.01'), ROUND_HALF_EVEN, Context(prec=60)))} %"
