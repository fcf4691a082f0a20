"""Initial margin that grows with a market's open interest, so that a crowded market takes no more risk.

Variant `open-interest:1`. Only initial margin grows: a rise of open interest may block new risk, it can never
liquidate anyone. This file knows no accounts and no positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import (
    FINEST,
    ONE,
    ZERO,
    Factor,
    Fraction,
    WirePositive,
    divide_down,
    divide_up,
    round_down,
    round_up,
)
from ledger.risk.holding import Holding, notional_of
from ledger.risk.schedule import Required

# Fractions of margin are held to parts per million.
PPM = Decimal("0.000001")


class FractionMargins(NamedTuple):
    """Initial and maintenance margin of one position, in the quote asset."""

    initial: Decimal
    maintenance: Decimal


class OpenInterestFraction(BaseModel):
    """Margins as fractions of notional, the initial one scaled by open interest.

    Formula:  initial = |notional| x max(effective fraction, chosen fraction);
              effective = base + (1 - base) x (open notional - lower) / (upper - lower) between the caps, base at
              and below the lower, 1 at and above the upper; an upper cap of 0 turns the scaling off;
              maintenance = (|notional| x base) x maintenance fraction: never scaled, never chosen.
    Units:    notional, caps and margins in the quote asset; fractions of notional.
    Rounding: the effective fraction down to parts per million; each product up to the quote quantum, so that
              maintenance margin is rounded up twice.
    Source:   dYdX v4, perpetuals module, liquidity tiers and `GetMarginRequirementsInQuoteQuantums`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["open-interest:1"]
    initial: Fraction
    maintenance_fraction: Fraction
    lower_cap: Factor = ZERO
    upper_cap: Factor = ZERO
    quantum: WirePositive = PPM

    @model_validator(mode="after")
    def _whole(self) -> OpenInterestFraction:
        if self.lower_cap > self.upper_cap:
            raise PydanticCustomError("caps", "expected a lower cap not above the upper, came {low} above {high}",
                                      {"low": str(self.lower_cap), "high": str(self.upper_cap)})
        return self

    @property
    def maintenance(self) -> Decimal:
        """The maintenance fraction of notional, down to parts per million; for display and funding bounds."""
        return round_down(self.initial * self.maintenance_fraction, PPM)

    def effective(self, open_notional: Decimal) -> Decimal:
        """The initial fraction at an open interest worth `open_notional` (>= 0)."""
        if self.upper_cap and open_notional >= self.upper_cap:
            return ONE
        if not self.upper_cap or open_notional <= self.lower_cap:
            return self.initial
        span = self.upper_cap - self.lower_cap
        numerator = self.initial * span + (ONE - self.initial) * (open_notional - self.lower_cap)
        return divide_down(numerator, span, PPM)

    def margins(self, notional: Decimal, open_notional: Decimal = ZERO, chosen: Decimal = ZERO) -> FractionMargins:
        """(initial, maintenance) margin of a notional >= 0; `chosen` is the fraction the account asked for."""
        initial = round_up(notional * max(self.effective(open_notional), chosen), self.quantum)
        unscaled = round_up(notional * self.initial, self.quantum)
        return FractionMargins(initial, round_up(unscaled * self.maintenance_fraction, self.quantum))

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires as a block of a rulebook; its `open_interest` is worth contracts x mark.

        A chosen leverage raises initial margin. Where the open interest is not known it is taken as 0: who asks must
        have made sure of it (`Rulebook.beyond_one_account`).
        """
        open_notional = notional_of(size=holding.open_interest or ZERO, contract_size=holding.contract_size,
                                    price=holding.mark, contract_type=holding.contract_type)
        initial, maintenance = self.margins(notional, open_notional)
        if holding.leverage is not None:
            initial = max(initial, divide_up(notional, holding.leverage, FINEST))
        return Required(initial, maintenance)

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """None: maintenance margin has one rate."""
        return ()

    def funding_bound(self, clamp_factor: Decimal) -> Decimal:
        """The greatest absolute funding rate: clamp factor x (initial - maintenance fraction), down to ppm."""
        return round_down(clamp_factor * (self.initial - self.maintenance), PPM)
