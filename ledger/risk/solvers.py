"""How much an account can do: the most it can order or withdraw, the least it must close. Each asks the engine itself.

A size is searched for on its own grid by halving, and what is found is what `evaluate_pool` says, so the answer holds
under any rulebook. Prices at which a line is reached are in `ledger.risk.liquidation`. This file holds no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

from ledger.amounts import AMOUNT_LIMIT, ONE, ZERO, divide_down, divide_up, round_down
from ledger.risk.figures import PriceOf, Rules
from ledger.risk.holding import Holding, cost_of, notional_of, value_of
from ledger.risk.margin import at_least, evaluate_pool
from ledger.risk.open_orders import OpenOrder
from ledger.risk.pnl import close


def largest(allowed: Callable[[Decimal], bool], *, step: Decimal, first: Decimal = ZERO,
            limit: Decimal = AMOUNT_LIMIT) -> Decimal | None:
    """The largest multiple of `step` up to `limit` that is allowed; None where `first`, a multiple too, is not.

    What is allowed from `first` on is allowed without gaps up to the answer.
    """
    if first > limit or not allowed(first):
        return None
    low, high = int(divide_down(first, step, ONE)), int(divide_down(limit, step, ONE))
    reach = 1
    while low + reach <= high and allowed((low + reach) * step):
        low, reach = low + reach, reach * 2
    top = min(low + reach, high + 1)
    while top - low > 1:
        middle = (low + top) // 2
        low, top = (middle, top) if allowed(middle * step) else (low, middle)
    return low * step


def after_trade(balances: Mapping[str, Decimal], holdings: Iterable[Holding], row: Holding, *, size: Decimal,
                price: Decimal, fee_rate: Decimal = ZERO) -> tuple[dict[str, Decimal], list[Holding]]:
    """Balances and positions after a trade of `size` (signed) at a price in the position that `row` names.

    What closes realises its profit into the settlement asset, as a fill does (`ledger.risk.pnl.close`, rounded down
    to the quantum); a flip is a close and an open. The fee is a share of the trade's value, up to the quantum.
    """
    kept = [other for other in holdings if other[:3] != row[:3]]
    held = next((other for other in holdings if other[:3] == row[:3]), None)
    before = row._replace(size=ZERO, cost=ZERO, accrued=ZERO) if held is None else held
    closed = max(-abs(before.size), -abs(size)) if before.size < 0 < size else (
        min(before.size, -size) if size < 0 < before.size else ZERO)
    realised, cost = before.accrued, before.cost
    if closed:
        done = close(size=before.size, cost=before.cost, closed=closed, quantum=before.quantum,
                     value=value_of(size=closed, contract_size=before.contract_size, price=price,
                                    contract_type=before.contract_type, quantum=before.quantum))
        realised, cost = realised + done.realised_pnl, done.cost
    cost += cost_of(size=size + closed, contract_size=before.contract_size, price=price,
                    contract_type=before.contract_type, quantum=before.quantum)
    value = notional_of(size=size, contract_size=before.contract_size, price=price,
                        contract_type=before.contract_type)
    asset = before.settlement_asset
    paid = divide_up(value * fee_rate, ONE, before.quantum)
    left = {**balances, asset: balances.get(asset, ZERO) + realised - paid}
    after = before._replace(size=before.size + size, cost=cost, accrued=ZERO)
    return left, [*kept, after] if after.size else kept


def maximum_order(balances: Mapping[str, Decimal], holdings: Iterable[Holding], order: OpenOrder, price_of: PriceOf,
                  rules: Rules, *, lot_size: Decimal, fee_rate: Decimal = ZERO) -> Decimal:
    """The largest size (contracts, a multiple of the lot) that can be traded at the order's price at once.

    The account must keep free collateral >= 0 afterwards, fee paid at the order's price; what only reduces the
    position is always allowed. `order.size` gives the side alone. Rounding: down to the lot.
    """
    kept = list(holdings)
    side = 1 if order.size > 0 else -1
    row = order.as_holding()._replace(mark=order.mark)
    held = next((other.size for other in kept if other[:3] == row[:3]), ZERO)
    closing = round_down(max(ZERO, -side * held), lot_size) if held else ZERO

    def allowed(size: Decimal) -> bool:
        if size <= closing:
            return True
        pool = evaluate_pool(*after_trade(balances, kept, row, size=side * size, price=order.price,
                                          fee_rate=fee_rate), price_of, rules)
        return not pool.unpriced and pool.free >= 0

    return largest(allowed, step=lot_size, first=closing) or ZERO


def maximum_withdrawal(balances: Mapping[str, Decimal], holdings: Iterable[Holding], asset: str, price_of: PriceOf,
                       rules: Rules, *, quantum: Decimal) -> Decimal:
    """The most of an asset that can leave while free collateral stays >= 0; never above the balance.

    Rounding: down to the quantum. Zero for an account that is already below initial margin.
    """
    kept, balance = list(holdings), balances.get(asset, ZERO)

    def allowed(amount: Decimal) -> bool:
        pool = evaluate_pool({**balances, asset: balance - amount}, kept, price_of, rules)
        return not pool.unpriced and pool.free >= 0

    return (largest(allowed, step=quantum, limit=balance) if balance > 0 else None) or ZERO


def size_to_target(balances: Mapping[str, Decimal], holdings: Iterable[Holding], closed: Holding, price_of: PriceOf,
                   rules: Rules, *, target: Decimal, lot_size: Decimal, fee_rate: Decimal = ZERO) -> Decimal | None:
    """The least size (a multiple of the lot, at most the whole) to close at the mark so that the ratio is at target.

    A fee is paid on what is closed. Zero where the ratio is there already, None where closing the whole position
    does not do it.
    """
    kept = list(holdings)
    whole = abs(closed.size)
    side = 1 if closed.size > 0 else -1

    def short(size: Decimal) -> bool:
        pool = evaluate_pool(*after_trade(balances, kept, closed, size=-side * min(size, whole), price=closed.mark,
                                          fee_rate=fee_rate), price_of, rules)
        return not at_least(pool, target)

    if not short(ZERO):
        return ZERO
    if short(whole):
        return None
    most = largest(short, step=lot_size, limit=whole)
    return None if most is None else min(whole, most + lot_size)
