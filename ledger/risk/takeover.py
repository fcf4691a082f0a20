"""Liquidation by takeover: a liquidator takes part of a position at the oracle price less a fee.

Variant `takeover:1`. Orders are cancelled first; the account is let go as soon as it meets its requirement with the
buffer. This file places no orders and keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ledger.amounts import ZERO, Fraction, WirePositive, divide_down, round_down, round_up
from ledger.risk.shortage import closing_size_for, perp_fund_fee, share_to_liquidate
from ledger.risk.weighted_account import (
    VALUE_QUANTUM,
    AssetMarket,
    Conditions,
    PerpMarket,
    WeightedAccount,
    WeightedMargin,
    account_margin,
    exposure,
)
from ledger.risk.weights import SIZE_QUANTUM

# A position worth no more than this is taken over whole.
SMALL_POSITION: Final = Decimal(50)


class TakeoverTerms(NamedTuple):
    """Fees, step and pace of a liquidation, and the most the liquidator wants."""

    most: Decimal
    liquidator_fee: Decimal
    highest_fund_fee: Decimal
    step: Decimal
    first_share: Decimal
    duration_slots: int
    elapsed_slots: int
    freed: Decimal = ZERO


class TakeoverRule(BaseModel):
    """How positions are taken over: buffer that ends it, fees, step, share allowed at once and time to all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["takeover:1"]
    buffer: Fraction
    liquidator_fee: Fraction
    highest_fund_fee: Fraction
    step: WirePositive
    first_share: Fraction
    duration_slots: int = Field(strict=True, ge=0)

    def terms(self, most: Decimal, elapsed_slots: int, freed: Decimal = ZERO) -> TakeoverTerms:
        """The terms of one liquidation, `elapsed_slots` after the account was last active."""
        return TakeoverTerms(most, self.liquidator_fee, self.highest_fund_fee, self.step, self.first_share,
                             self.duration_slots, elapsed_slots, freed)


class Takeover(NamedTuple):
    """The account afterwards, what the liquidator got (signed size and quote), and the fund's fee."""

    account: WeightedAccount
    size: Decimal
    quote: Decimal
    fund_fee: Decimal


def without_orders(account: WeightedAccount) -> WeightedAccount:
    """The account with every order cancelled."""
    return account._replace(
        balances={name: row._replace(bids=ZERO, asks=ZERO, orders=0) for name, row in account.balances.items()},
        positions={name: row._replace(bids=ZERO, asks=ZERO, orders=0) for name, row in account.positions.items()})


def _pool(account: WeightedAccount, assets: Mapping[str, AssetMarket], perps: Mapping[str, PerpMarket], market: str,
          buffer: Decimal) -> tuple[WeightedMargin, Decimal]:
    figures = account_margin(account, assets, perps, Conditions("maintenance", buffer=buffer))
    required = figures.required.get(market, ZERO)
    return figures.isolated.get(market, figures.cross), required


def take_over(account: WeightedAccount, assets: Mapping[str, AssetMarket], perps: Mapping[str, PerpMarket],
              market: str, *, buffer: Decimal, terms: TakeoverTerms) -> Takeover:
    """One liquidation of a position in `market`.

    Steps:    1. nothing, where the maintenance requirement is met; 2. all orders are cancelled, and nothing more,
              where the requirement with the buffer is then met; 3. the size that covers the shortage, up to the
              step, times the share allowed by now, or all of a small position, never above the position or what the
              liquidator wants; 4. the liquidator takes it at the oracle price, the account pays both fees.
    Rounding: fees and values towards zero, to a millionth.
    Source:   Drift v2, `liquidate_perp`.
    """
    if _pool(account, assets, perps, market, buffer)[0].meets:
        return Takeover(account, ZERO, ZERO, ZERO)
    account = without_orders(account)
    pool, required = _pool(account, assets, perps, market, buffer)
    position = account.positions[market]
    if pool.recovered or not position.size:
        return Takeover(account, ZERO, ZERO, ZERO)
    held, row = abs(position.size), perps[market]
    quote_price = assets[account.quote_asset].price
    ratio = row.ratios.ratio("maintenance", held) + buffer
    shortage = pool.shortage
    own = divide_down(shortage * required, pool.requirement, VALUE_QUANTUM) if pool.requirement else ZERO
    fee = perp_fund_fee(own, size=held, ratio=ratio, liquidator_fee=terms.liquidator_fee, price=row.price,
                        quote_price=quote_price, highest=terms.highest_fund_fee)
    covering = closing_size_for(shortage, ratio=ratio, liquidator_fee=terms.liquidator_fee, fund_fee=fee,
                                price=row.price, quote_price=quote_price)
    share = share_to_liquidate(shortage, freed=terms.freed, elapsed=terms.elapsed_slots,
                               duration=terms.duration_slots, first=terms.first_share)
    allowed = held if covering is None else round_down(round_up(covering, terms.step) * share, SIZE_QUANTUM)
    if not allowed:
        return Takeover(account, ZERO, ZERO, ZERO)
    if exposure(held, row._replace(contract="perpetual")) <= SMALL_POSITION:
        allowed = max(allowed, held)
    taken = round_up(min(held, round_down(terms.most, terms.step), allowed), terms.step)
    value = round_down(taken * row.price, VALUE_QUANTUM)
    to_liquidator = round_down(value * terms.liquidator_fee, VALUE_QUANTUM)
    to_fund = round_down(value * fee, VALUE_QUANTUM)
    size, quote = (taken, -value) if position.size > 0 else (-taken, value)
    left = position._replace(size=position.size - size, quote=position.quote - quote - to_liquidator - to_fund)
    return Takeover(account._replace(positions={**account.positions, market: left}), size, quote + to_liquidator,
                    to_fund)
