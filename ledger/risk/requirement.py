"""What a position requires: initial margin to add risk, maintenance margin to keep it.

A block is data with a versioned variant (`brackets:1`). This file knows no accounts and no marks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, Fraction, divide_up
from ledger.risk.holding import ContractType, Holding, notional_of
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.scenario import Scenarios
from ledger.risk.schedule import Required, Schedule, edges_of
from ledger.risk.skew import SkewMargins


class Bracket(BaseModel):
    """From `floor` of notional (settlement asset) on, further notional requires these rates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: Factor
    initial: Fraction
    maintenance: Fraction


class Brackets(BaseModel):
    """Notional brackets with deductions, continuous at every edge.

    Formula:  requirement = notional x rate - deduction, both of the bracket that holds the notional;
              deduction(n) = deduction(n-1) + floor(n) x (rate(n) - rate(n-1)). The floor belongs to its bracket.
    Units:    notional and requirement in the settlement asset. Rounding: none but that of a chosen leverage, up.
    Source:   Binance USD-M leverage brackets (docs/margin.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["brackets:1"]
    brackets: list[Bracket]

    @model_validator(mode="after")
    def _whole(self) -> Brackets:
        if not self.brackets or self.brackets[0].floor != 0:
            raise PydanticCustomError("brackets", "expected a first bracket with floor 0", {})
        previous = self.brackets[0]
        for index, row in enumerate(self.brackets):
            if not 0 < row.maintenance <= row.initial:
                raise PydanticCustomError("brackets", "expected 0 < maintenance <= initial in bracket {index}",
                                          {"index": index})
            if index and not (row.floor > previous.floor and row.initial >= previous.initial
                              and row.maintenance >= previous.maintenance):
                raise PydanticCustomError("brackets", "expected floors to rise and rates not to fall, bracket {index} "
                                          "does not fit", {"index": index})
            previous = row
        return self

    @cached_property
    def floors(self) -> list[Decimal]:
        """The floors, ascending; where the slope of the requirement changes."""
        return [row.floor for row in self.brackets]

    @cached_property
    def steps(self) -> list[tuple[Decimal, Decimal, Decimal, Decimal]]:
        """(initial rate, its deduction, maintenance rate, its deduction) of each bracket."""
        initial = maintenance = ZERO
        steps, previous = [], self.brackets[0]
        for row in self.brackets:
            initial += row.floor * (row.initial - previous.initial)
            maintenance += row.floor * (row.maintenance - previous.maintenance)
            steps.append((row.initial, initial, row.maintenance, maintenance))
            previous = row
        return steps

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """The prices at which a bracket of a position begins, rounded down to 18 places."""
        return edges_of(holding, self.floors)

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) margin of a notional >= 0 at the brackets' own rates; exact."""
        initial, initial_deduction, maintenance, maintenance_deduction = (
            self.steps[bisect_right(self.floors, notional) - 1])
        return notional * initial - initial_deduction, notional * maintenance - maintenance_deduction


RequirementBlock = Brackets | Schedule | Scenarios | SkewMargins | OpenInterestFraction


def required(block: RequirementBlock, holding: Holding, notional: Decimal) -> Required:
    """What a position requires under any block, its leverage counted; `notional` is its value at the mark."""
    if isinstance(block, Brackets):
        initial, maintenance = block.margins(notional)
        return Required(with_leverage(initial, notional, holding.leverage, holding.quantum), maintenance)
    return block.required(holding, notional)


def rate_margin(*, size: Decimal, price: Decimal, rate: Decimal, leverage: Decimal, contract_size: Decimal = ONE,
                contract_type: ContractType = "linear") -> Decimal:
    """A margin that falls with the chosen leverage: value / leverage x rate; up to 18 places.

    Source: nautilus_trader's leveraged margin model.
    """
    value = notional_of(size=size, contract_size=contract_size, price=price, contract_type=contract_type)
    return divide_up(value * rate, leverage, FINEST)


def with_leverage(initial: Decimal, notional: Decimal, leverage: Decimal | None, quantum: Decimal) -> Decimal:
    """Initial margin where the account chose a leverage: the greater of the rulebook's and notional / leverage.

    Rounding: the quotient up to the settlement asset's quantum.
    """
    if leverage is None:
        return initial
    return max(initial, divide_up(notional, leverage, quantum))
