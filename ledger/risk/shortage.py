"""Covering a margin shortage: how much to close or to exchange, and what liquidator and insurance fund earn by it.

Closing frees margin and costs fees, so that the size follows from what one unit frees net of them. `None` means
without limit: what one unit frees does not exceed what it costs. This file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from ledger.amounts import ONE, ZERO, divide_down, divide_up, round_down
from ledger.risk.weighted_account import VALUE_QUANTUM
from ledger.risk.weights import FACTOR_QUANTUM, SIZE_QUANTUM, WEIGHT_QUANTUM

# Weights of an exchange carry one place more than a table's.
_COMPONENT_QUANTUM: Final = Decimal("0.00001")
_QUOTIENT_QUANTUM: Final = Decimal("0.000000000001")
# The fund takes at most this share of what is left, so that its fee is never the cause of bankruptcy.
_FUND_SHARE: Final = Decimal("0.95")
GRACE_SLOTS: Final = 1_500
FEE_STEP: Final = Decimal("0.000001")
SMALL_SHORTAGE: Final = Decimal(50)
DUST_VALUE: Final = ONE


class Leg(NamedTuple):
    """One side of an exchange of an asset for a debt: price, decimals of the token, and its factor with fees."""

    price: Decimal
    decimals: int
    multiplier: Decimal

    @property
    def quantum(self) -> Decimal:
        """The least amount of the token."""
        return Decimal(1).scaleb(-self.decimals)


def closing_size_for(shortage: Decimal, *, ratio: Decimal, liquidator_fee: Decimal, fund_fee: Decimal,
                     price: Decimal, quote_price: Decimal) -> Decimal | None:
    """The size of a position whose closing covers a shortage.

    Formula:  shortage / (price x quote price x (ratio - liquidator fee) - price x fund fee).
    Rounding: each product down to a millionth, the size down to a billionth.
    Source:   Drift v2, `calculate_base_asset_amount_to_cover_margin_shortage`.
    """
    if not price or ratio <= liquidator_fee:
        return None
    value = round_down(price * quote_price, VALUE_QUANTUM)
    freed = round_down(value * (ratio - liquidator_fee), VALUE_QUANTUM) - round_down(price * fund_fee, VALUE_QUANTUM)
    return divide_down(shortage, freed, SIZE_QUANTUM) if freed > 0 else None


def debt_to_repay(shortage: Decimal, *, asset_weight: Decimal, asset_multiplier: Decimal, debt_weight: Decimal,
                  debt: Leg, fund_fee: Decimal) -> Decimal | None:
    """How much of a debt to repay out of an asset so that a shortage is covered; at least one quantum.

    Formula:  shortage / (price x (debt weight - asset weight x asset factor / debt factor) - price x fund fee x
              debt weight).
    Rounding: the quotient of factors down to five places, price x fee down to a millionth, the amount down.
    Source:   Drift v2, `calculate_liability_transfer_to_cover_margin_shortage`.
    """
    component = divide_down(asset_weight * asset_multiplier, debt.multiplier, _COMPONENT_QUANTUM)
    if asset_weight >= debt_weight or component >= debt_weight:
        return None
    freed = debt.price * (debt_weight - component) - round_down(debt.price * fund_fee, VALUE_QUANTUM) * debt_weight
    return max(divide_down(shortage, freed, debt.quantum), debt.quantum) if freed > 0 else None


def debt_for_asset(amount: Decimal, *, asset: Leg, debt: Leg) -> Decimal:
    """The debt that an amount of an asset repays at prices with fees, rounded up."""
    return divide_up(amount * asset.price * debt.multiplier, debt.price * asset.multiplier, debt.quantum)


def asset_for_debt(repaid: Decimal, *, held: Decimal, asset: Leg, debt: Leg) -> Decimal:
    """The asset that pays for a repaid debt at prices with fees, rounded down, at least one quantum.

    All that is held, where what would be left (or be missing) is worth less than one unit of the quote asset.
    """
    amount = max(divide_down(repaid * debt.price * asset.multiplier, asset.price * debt.multiplier, asset.quantum),
                 asset.quantum)
    return held if round_down(abs(held - amount) * asset.price, VALUE_QUANTUM) < DUST_VALUE else amount


def perp_fund_fee(shortage: Decimal, *, size: Decimal, ratio: Decimal, liquidator_fee: Decimal, price: Decimal,
                  quote_price: Decimal, highest: Decimal) -> Decimal:
    """The insurance fund's fee on closing a position: 95 % of what ratio, liquidator and shortage leave.

    Formula:  min(highest, 0.95 x (ratio - liquidator fee - shortage / size / (price x quote price))), never below 0;
              0 where price or size is 0 or the ratio does not exceed the liquidator's fee.
    Rounding: down to a millionth at each step. Source: Drift v2, `calculate_perp_if_fee`.
    """
    value = round_down(price * quote_price, VALUE_QUANTUM)
    if not value or not size or ratio <= liquidator_fee:
        return ZERO
    missing = divide_down(divide_down(shortage, size, FACTOR_QUANTUM), value, FACTOR_QUANTUM)
    left = max(max(ratio - liquidator_fee, ZERO) - missing, ZERO)
    return min(highest, round_down(left * _FUND_SHARE, FACTOR_QUANTUM))


def exchange_fund_fee(shortage: Decimal, *, amount: Decimal, asset_weight: Decimal, asset_multiplier: Decimal,
                      debt_weight: Decimal, debt: Leg, highest: Decimal) -> Decimal:
    """The insurance fund's fee on repaying a debt out of an asset.

    Formula:  min(highest, (debt weight - asset weight x asset factor / debt factor - shortage / amount / price) /
              debt weight), never below 0; 0 where the asset weighs no less than the debt or nothing is owed.
    Rounding: down to a millionth. Source: Drift v2, `calculate_spot_if_fee`.
    """
    if asset_weight >= debt_weight or not debt.price or not amount or not debt.multiplier:
        return ZERO
    kept = max(debt_weight - divide_down(asset_weight * asset_multiplier, debt.multiplier, FACTOR_QUANTUM), ZERO)
    missing = divide_down(divide_down(shortage, amount, _QUOTIENT_QUANTUM), debt.price, FACTOR_QUANTUM)
    return min(highest, divide_down(max(kept - missing, ZERO), debt_weight, FACTOR_QUANTUM))


def liquidator_fee_after(idle_slots: int, *, first: Decimal, highest: Decimal) -> Decimal:
    """The liquidator's fee after idle slots: it grows a millionth a slot once the grace of 1,500 is over."""
    return first if idle_slots < GRACE_SLOTS else min(highest, first + FEE_STEP * idle_slots)


def share_to_liquidate(shortage: Decimal, *, freed: Decimal, elapsed: int, duration: int, first: Decimal) -> Decimal:
    """The share of what covers a shortage that may be closed by now.

    Formula:  all of it under 50; else (total x min(1, elapsed / duration + first) - freed) / shortage with total =
              shortage + freed, never below 0; a duration of 0 allows all.
    Rounding: down to four places, the margin in between to a millionth.
    Source:   Drift v2, `calculate_max_pct_to_liquidate`.
    """
    if shortage < SMALL_SHORTAGE:
        return ONE
    passed = divide_down(Decimal(elapsed), Decimal(duration), WEIGHT_QUANTUM) if duration else ONE
    allowed = round_down((shortage + freed) * min(ONE, passed + first), VALUE_QUANTUM)
    return divide_down(max(allowed - freed, ZERO), shortage, WEIGHT_QUANTUM)
