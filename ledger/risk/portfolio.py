"""The portfolio: what positions under `scenarios:1` require together, and what opposite underlyings take off.

Each underlying is charged for its worst scenario (`ledger.risk.scenario`); two that usually move alike, one held for
a rise and one for a fall, offset each other by the credit of their pair. The whole charge is shared out over the
positions. This file holds no state and knows no balances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ZERO, Fraction, divide_down
from ledger.risk.holding import Holding
from ledger.risk.scenario import ScanRisk, Scenarios


class Offsets(BaseModel):
    """Credits between underlyings, as a matrix of which each pair stands once: `{"BTC": {"ETH": "0.5"}}`.

    Formula:  directional part of an underlying = |scan risk falling - scan risk rising|, what a hedge can take away;
              pairs by falling credit, then by name: where one loses by a fall and the other by a rise, each one's
              risk is lowered by credit x the lesser of what is left of both directional parts, and that much of
              either is used up.
    Rounding: none.   Source: CME SPAN's inter-commodity credits; design of our own where SPAN goes by delta.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["offsets:1"]
    credits: dict[str, dict[str, Fraction]]

    @model_validator(mode="after")
    def _once(self) -> Offsets:
        seen: set[frozenset[str]] = set()
        for first, row in self.credits.items():
            for second in row:
                pair = frozenset((first, second))
                if first == second or pair in seen:
                    raise PydanticCustomError("credits", "expected each pair of two underlyings once, came "
                                              "{first} and {second}", {"first": first, "second": second})
                seen.add(pair)
        return self

    @cached_property
    def pairs(self) -> tuple[tuple[Decimal, str, str], ...]:
        """(credit, first, second), the greatest credit first."""
        rows = [(credit, min(first, second), max(first, second)) for first, row in self.credits.items()
                for second, credit in row.items()]
        return tuple(sorted(rows, key=lambda row: (-row[0], row[1], row[2])))

    @property
    def named(self) -> set[str]:
        """All underlyings that the matrix names."""
        return {name for _, *pair in self.pairs for name in pair}

    def taken_off(self, directional: Mapping[str, Decimal]) -> dict[str, Decimal]:
        """By how much each underlying's risk is lowered; `directional`: falling less rising scan risk, signed."""
        left, lowered = dict(directional), dict.fromkeys(directional, ZERO)
        for credit, first, second in self.pairs:
            one, other = left.get(first, ZERO), left.get(second, ZERO)
            if one * other >= 0:
                continue
            used = min(abs(one), abs(other))
            lowered[first] += credit * used
            lowered[second] += credit * used
            left[first] -= used if one > 0 else -used
            left[second] -= used if other > 0 else -used
        return lowered


class PortfolioRule(BaseModel):
    """That positions under `scenarios:1` are margined together, and the offsets between their underlyings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["portfolio:1"]
    offsets: Offsets | None = None


class Scanned(NamedTuple):
    """A position under `scenarios:1`: its value at the mark, never negative, and the price of its settlement asset."""

    holding: Holding
    notional: Decimal
    price: Decimal
    block: Scenarios

    @property
    def underlying(self) -> str:
        """What it is revalued with; an instrument that names none stands alone."""
        return self.block.underlying or f"={self.holding.instrument}"


class UnderlyingCharge(NamedTuple):
    """What one underlying is charged, in the valuation asset; `offset` is what others took off its scan risk."""

    underlying: str
    fall: Decimal
    rise: Decimal
    offset: Decimal
    initial: Decimal
    maintenance: Decimal


class Charged(NamedTuple):
    """The charges by underlying, and each position's (initial, maintenance) share in the order given; exact sums."""

    charges: tuple[UnderlyingCharge, ...]
    shares: tuple[tuple[Decimal, Decimal], ...]


def charged(rows: Sequence[Scanned], rule: PortfolioRule) -> Charged:
    """What positions under `scenarios:1` require, in the valuation asset.

    The shares of an underlying's positions are in proportion to their scan risks alone, down to 18 places;
    the first by instrument and side has what is left over, so that they add up to the charge.
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.underlying, []).append(index)
    risks = {name: _scan([rows[index] for index in members]) for name, members in groups.items()}
    directional = {name: risk.fall - risk.rise for name, risk in risks.items()}
    lowered = {} if rule.offsets is None else rule.offsets.taken_off(directional)
    charges = []
    shares = [(ZERO, ZERO)] * len(rows)
    for name, members in sorted(groups.items()):
        risk, offset, block = risks[name], lowered.get(name, ZERO), rows[members[0]].block
        gross = sum((rows[index].notional * rows[index].price for index in members), ZERO)
        maintenance = block.charge(risk.worst - offset, gross)
        charge = UnderlyingCharge(name, risk.fall, risk.rise, offset, maintenance * block.initial_multiple, maintenance)
        charges.append(charge)
        for index, share in zip(members, _shared(maintenance, [rows[index] for index in members]), strict=True):
            shares[index] = share * block.initial_multiple, share
    return Charged(tuple(charges), tuple(shares))


def _scan(rows: Iterable[Scanned]) -> ScanRisk:
    net = ZERO
    own = []
    block: Scenarios | None = None
    for row in rows:
        block = row.block
        if block.losses is not None:
            own.append((row.holding.size * row.price, block.losses))
        else:
            net += row.notional * row.price if row.holding.size > 0 else -row.notional * row.price
    if block is None:
        raise ValueError("expected a position")
    return block.scan(net, own)


def _shared(charge: Decimal, rows: Sequence[Scanned]) -> list[Decimal]:
    """A charge shared out by what each position's worst scenario loses, alone; by value where none loses anything."""
    if len(rows) == 1:
        return [charge]
    parts = [_alone(row) for row in rows]
    whole = sum(parts, ZERO)
    if not whole:
        parts = [row.notional * row.price for row in rows]
        whole = sum(parts, ZERO)
    if not whole:
        return [charge, *[ZERO] * (len(rows) - 1)]
    shares = [divide_down(charge * part, whole, FINEST) for part in parts]
    first = min(range(len(rows)), key=lambda index: rows[index].holding[:3])
    shares[first] += charge - sum(shares, ZERO)
    return shares


def _alone(row: Scanned) -> Decimal:
    block, holding = row.block, row.holding
    if block.losses is not None:
        return block.scan(ZERO, [(holding.size * row.price, block.losses)]).worst
    return row.notional * row.price * (block.reach.fall if holding.size > 0 else block.reach.rise)
