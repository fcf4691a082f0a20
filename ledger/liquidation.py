"""Decisions on a pool in liquidation: start, orders, conversion of collateral, shortfall, completion.

An order a position, at limits that together end the pool at zero; recomputed after each record of the account.
When no position is left and something is owed, collateral is converted; only what is then still owed is claimed.
This file is pure: it returns events, one step at a time, and knows nothing of who fills the orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from ledger.account import OpenLiquidation, OpenOrder
from ledger.amounts import NANOSECONDS, ZERO
from ledger.errors import BrokenInvariant
from ledger.events import (
    CollateralConverted,
    Event,
    FundDrawn,
    LiquidationCompleted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    ShortfallClaimed,
    ShortfallCovered,
)
from ledger.margin_call import Standing, supersede
from ledger.postings import CROSS
from ledger.risk.liquidation import OrderTerms, order_terms
from ledger.risk.margin import at_least, liquidatable
from ledger.risk.waterfall import conversion, largest_debt

Reason = Literal["below-liquidation-line", "call-expired", "negative-equity"]


def reason_to_start(standing: Standing) -> Reason | None:
    """Why a pool is to be liquidated, None where it is not. Stale marks are the caller's to check."""
    margin = standing.margin
    if liquidatable(margin, standing.rules.thresholds):
        return "below-liquidation-line" if margin.maintenance_margin else "negative-equity"
    return "call-expired" if standing.pool in standing.account.due else None


def decide_start(standing: Standing, reason: Reason) -> list[Event]:
    """Start: end the open call, if any. Orders follow in the next step, on the same figures."""
    events: list[Event] = []
    call = standing.account.calls.get(standing.pool)
    if call is not None:
        events.append(supersede(standing, call))
    position = standing.next_position + len(events)
    events.append(LiquidationStarted(
        time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account, pool=standing.pool,
        liquidation_id=f"liquidation-{position}", reason=reason, stop_level=standing.rules.thresholds.stop,
        evidence=standing.evidence))
    return events


def decide_liquidation(standing: Standing, liquidation: OpenLiquidation, quantum_of: Mapping[str, Decimal], *,
                       own: bool) -> list[Event]:
    """The next step of a liquidation under way; empty when it waits for fills, marks or deadlines."""
    if not standing.margin.positions:
        cancelled = _cancel_all(standing, liquidation, "position-changed")
        return [*cancelled, *_resolve(standing, liquidation, quantum_of, standing.next_position + len(cancelled))]
    if at_least(standing.margin, liquidation.stop_level):
        return [*_cancel_all(standing, liquidation, "recovered"), _complete(standing, liquidation, "recovered")]
    return _requote(standing, liquidation, own=own)


def _cancel(standing: Standing, liquidation: OpenLiquidation, order: OpenOrder,
            reason: Literal["expired", "recovered", "repriced", "position-changed"]) -> LiquidationOrderCancelled:
    return LiquidationOrderCancelled(
        time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account, pool=standing.pool,
        liquidation_id=liquidation.liquidation_id, order_id=order.order_id, reason=reason, filled=order.filled)


def decide_order_expiry(standing: Standing, liquidation: OpenLiquidation, order: OpenOrder) -> Event:
    """An order's time is up; still below the stop line, another follows in the next step."""
    return _cancel(standing, liquidation, order, "expired")


def _cancel_all(standing: Standing, liquidation: OpenLiquidation,
                reason: Literal["recovered", "position-changed"]) -> list[Event]:
    return [_cancel(standing, liquidation, order, reason) for order in liquidation.orders.values()]


def _requote(standing: Standing, liquidation: OpenLiquidation, *, own: bool) -> list[Event]:
    """Orders for positions that have none; after a record of the account also for those that changed or moved."""
    wanted = {(terms.holding.instrument, terms.holding.position_side): terms
              for terms in order_terms(standing.margin, standing.price_of)}
    events: list[Event] = []
    kept = set()
    for order in liquidation.orders.values():
        place = (order.instrument, order.position_side)
        terms = wanted.get(place)
        if terms is None or order.side != terms.side or order.remaining != terms.size:
            events.append(_cancel(standing, liquidation, order, "position-changed"))
        elif own and order.limit_price != terms.limit_price:
            events.append(_cancel(standing, liquidation, order, "repriced"))
        else:
            kept.add(place)
    for place, terms in wanted.items():
        if place not in kept:
            events.append(_place(standing, liquidation, terms, standing.next_position + len(events)))
    return events


def _place(standing: Standing, liquidation: OpenLiquidation, terms: OrderTerms, position: int) -> Event:
    expiry = standing.rules.liquidation.order_expiry_seconds * NANOSECONDS
    return LiquidationOrderPlaced(
        time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account, pool=standing.pool,
        liquidation_id=liquidation.liquidation_id, order_id=f"order-{position}", instrument=terms.holding.instrument,
        position_side=terms.holding.position_side, side=terms.side, size=terms.size,  # type: ignore[arg-type]
        limit_price=terms.limit_price, expires_at=standing.stamp.time + expiry, evidence=standing.evidence)


def _resolve(standing: Standing, liquidation: OpenLiquidation, quantum_of: Mapping[str, Decimal],
             position: int) -> list[Event]:
    """No position is left: convert, claim, or complete, in an event at `position`."""
    balances = standing.account.balances.get(standing.pool, {})
    debt = largest_debt(balances, standing.price_of)
    if debt is None:
        return [_complete(standing, liquidation, "shortfall" if liquidation.claimed else "closed")]
    if standing.pool == CROSS:
        sale = conversion(balances, debt, standing.price_of, quantum_of, standing.rules.liquidation.conversion_fee)
        if sale is not None:
            return [CollateralConverted(
                time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account,
                pool=standing.pool, liquidation_id=liquidation.liquidation_id, sold_asset=sale.sold_asset,
                sold_amount=sale.sold_amount, bought_asset=debt, bought_amount=sale.bought_amount, price=sale.price,
                fee_rate=standing.rules.liquidation.conversion_fee, evidence=standing.evidence)]
    return [ShortfallClaimed(
        time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account, pool=standing.pool,
        liquidation_id=liquidation.liquidation_id, claim_id=f"claim-{position}", asset=debt,
        amount=-balances[debt], recourse=standing.rules.liquidation.recourse, evidence=standing.evidence)]


def _complete(standing: Standing, liquidation: OpenLiquidation,
              outcome: Literal["recovered", "closed", "shortfall"]) -> LiquidationCompleted:
    return LiquidationCompleted(
        time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account, pool=standing.pool,
        liquidation_id=liquidation.liquidation_id, outcome=outcome, evidence=standing.evidence)


def cover(claim: ShortfallClaimed, drawn: FundDrawn) -> ShortfallCovered:
    """The account's side of what the fund answered; the two must agree."""
    if not ZERO <= drawn.amount <= claim.amount or drawn.before - drawn.after != drawn.amount:
        raise BrokenInvariant(f"claim {claim.claim_id} of {claim.amount} answered by {drawn.amount}")
    return ShortfallCovered(time=drawn.time, cause=drawn.cause, account=claim.account, claim_id=claim.claim_id,
                            asset=claim.asset, claimed=claim.amount, fund=drawn.fund, covered=drawn.amount,
                            uncovered=claim.amount - drawn.amount)
