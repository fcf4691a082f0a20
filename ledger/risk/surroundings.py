"""What one account's figures do not hold: deposits of all accounts and average prices, and who is judged by them.

Both count only against what is new, the equity that initial margin is held against: a rise of deposits or a spike of
a price may block new risk, they never liquidate anybody. This file keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ledger.amounts import FINEST, ONE, WirePositive, divide_down
from ledger.risk.collateral import CollateralBlock


class PoolScaled(BaseModel):
    """Collateral that counts for less, the more of it all accounts have deposited together.

    Formula:  share = min(1, scale_start / (deposits of all x price)), of the value after haircut.
    Units:    scale_start in the valuation asset. Rounding: the share down to 18 places.
    Source:   Mango v4 deposit weight scaling, Drift's scaled initial asset weight (docs/margin.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["pool-scaled:1"]
    scale_start: WirePositive

    def share(self, deposits: Decimal, price: Decimal) -> Decimal:
        """The share of collateral that counts at deposits of all in units of the asset, and its price."""
        value = deposits * price
        return ONE if value <= self.scale_start else divide_down(self.scale_start, value, FINEST)


class WorsePrice(BaseModel):
    """New risk and withdrawals at the worse of mark and average: what is held at the lower, what is owed at the higher.

    Keeping what there is goes by the mark alone. Source: Drift's strict prices, Mango's stable price (docs/margin.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["worse-of-average:1"]

    def price(self, *, amount: Decimal, mark: Decimal, average: Decimal) -> Decimal:
        """The price of an amount of either sign."""
        return min(mark, average) if amount > 0 else max(mark, average)


class Surroundings(NamedTuple):
    """Deposits of all accounts by asset, in units of it, and average worth by asset, in the valuation asset."""

    deposits: Mapping[str, Decimal]
    averages: Mapping[str, Decimal]


NOTHING_KNOWN = Surroundings({}, {})


def worth_for_initial(amount: Decimal, price: Decimal, block: CollateralBlock, *, average: Decimal | None,
                      prices: WorsePrice | None, deposits: Decimal | None, scaling: PoolScaled | None) -> Decimal:
    """The weighed value of an amount of either sign as new risk is judged by it; rules whose input is None rest."""
    if prices is not None and average is not None:
        price = prices.price(amount=amount, mark=price, average=average)
    worth = block.worth(amount, price)
    if worth > 0 and scaling is not None and deposits is not None:
        worth *= scaling.share(deposits, price)
    return worth
