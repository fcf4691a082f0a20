"""What a fill does: the position that takes it, what it closes and opens, isolated margin, and its flags.

A fill is a fact and is never refused for margin, lateness or expiry; only one that fits no position of the account
is rejected, before anything changes. This file is pure, and never evaluates margin.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.account import AccountState, Position, PositionKey, Stamp
from ledger.amounts import ZERO, is_multiple, plain, round_up
from ledger.commands import PostFill
from ledger.errors import Rejected
from ledger.events import FillFlag, FillPosted
from ledger.market import MarketState
from ledger.postings import CROSS, pool_name
from ledger.risk.holding import cost_of, notional_of, value_of
from ledger.risk.pnl import close
from ledger.risk.requirement import RequirementBlock, with_leverage


def position_key(state: AccountState, command: PostFill) -> PositionKey:
    """Which position takes a fill.

    That of the liquidation order it names, if open; else by its own mode, else that of the only position there is
    on the instrument and side, else by the account's mode. Rejected where the side does not fit the position mode.
    """
    side = command.position_side or "net"
    if state.position_mode == "hedge" and command.position_side is None and command.liquidation_order_id is not None:
        # Its order may have ended meanwhile; such orders close, so a sale was of the long side. Still a fact.
        side = "long" if command.side == "sell" else "short"
    if (state.position_mode == "net") != (side == "net"):
        raise Rejected("wrong-side", f"position_side of a fill for an account in {state.position_mode} mode: expected "
                       f"{'net' if state.position_mode == 'net' else 'long or short'}, came {side}",
                       field="position_side")
    # Only now: what is rejected must not hang on an order that this very record's time may end.
    order = state.order(command.liquidation_order_id)
    if order is not None and order.instrument == command.instrument:
        return command.instrument, CROSS if order.pool == CROSS else "isolated", order.position_side
    if command.margin_mode is not None:
        return command.instrument, command.margin_mode, side
    cross, isolated = (command.instrument, CROSS, side), (command.instrument, "isolated", side)
    if (cross in state.positions) != (isolated in state.positions):
        return cross if cross in state.positions else isolated
    return command.instrument, state.mode_of(command.instrument), side


def admit(state: AccountState, command: PostFill, market: MarketState) -> None:
    """Rejected where the size is off-lot, or the side does not fit the account's position mode."""
    if not is_multiple(command.size, market.lot_size):
        raise Rejected("off-lot", f"size: expected a multiple of the lot size {plain(market.lot_size)} of "
                       f"{command.instrument}, came {plain(command.size)}", field="size")
    position_key(state, command)


class FillTerms(NamedTuple):
    """What a fill does to its position, before any flag of margin."""

    key: PositionKey
    position: Position
    closed: Decimal
    realised_pnl: Decimal
    rounding: Decimal
    increases: bool


def terms_of(state: AccountState, command: PostFill, market: MarketState, quantum: Decimal) -> FillTerms:
    """Close what the fill closes, then open what it opens (a flip is both); see `ledger.risk.pnl`."""
    key = position_key(state, command)
    held = state.positions.get(key) or Position(ZERO, ZERO, market.funding_index)
    signed = command.size if command.side == "buy" else -command.size
    closed = ZERO
    if held.size and (held.size > 0) != (signed > 0):
        closed = -signed if abs(signed) <= abs(held.size) else held.size
    size, cost, realised, rounding = held.size, held.cost, ZERO, ZERO
    if closed:
        value = value_of(size=closed, contract_size=market.contract_size, price=command.price,
                         contract_type=market.contract_type, quantum=quantum)
        part = close(size=size, cost=cost, closed=closed, value=value, quantum=quantum)
        size, cost, realised, rounding = size - closed, part.cost, part.realised_pnl, part.rounding
    opened = signed + closed
    # A flip is a close and an open, so the new position does not inherit what was chosen for the old.
    leverage = command.leverage
    if leverage is None and opened:
        leverage = held.leverage if held.size and not closed else state.leverage_of(command.instrument)
    elif leverage is None:
        leverage = held.leverage
    if opened:
        cost += cost_of(size=opened, contract_size=market.contract_size, price=command.price,
                        contract_type=market.contract_type, quantum=quantum)
    position = Position(size + opened, cost, market.funding_index, leverage if size + opened else None)
    return FillTerms(key, position, abs(closed), realised, rounding, bool(opened))


def isolated_transfer(state: AccountState, command: PostFill, terms: FillTerms, market: MarketState, *,
                      brackets: RequirementBlock, quantum: Decimal, fee: Decimal) -> tuple[Decimal, bool]:
    """Margin that moves from the cross pool (+) or back (-) with a fill of an isolated position, and if it was short.

    Opening takes the initial margin at the fill price plus the fee, as far as the cross balance reaches; closing
    returns what is left. A loss beyond the pool stays in it and never reaches the cross pool.
    """
    if terms.key[1] == CROSS:
        return ZERO, False
    held = state.positions.get(terms.key)
    margin = state.balance(pool_name(*terms.key), market.settlement_asset) + terms.realised_pnl
    if not terms.position.size:
        return -max(ZERO, margin - fee), False
    if not terms.increases:
        return ZERO, False
    if terms.closed and margin < 0:
        # A flip whose close lost more than the pool had: what the cross pool gave would go to that loss.
        return ZERO, True

    def initial(size: Decimal) -> Decimal:
        notional = notional_of(size=size, contract_size=market.contract_size, price=command.price,
                               contract_type=market.contract_type)
        return _initial(brackets, notional, terms.position.leverage, quantum)

    needed = initial(terms.position.size) + fee
    if terms.closed:
        needed -= max(ZERO, margin)
    elif held is not None:
        needed -= initial(held.size)
    moved = needed if needed <= 0 else min(needed, max(ZERO, state.balance(CROSS, market.settlement_asset)))
    return moved, moved < needed


def _initial(brackets: RequirementBlock, notional: Decimal, leverage: Decimal | None, quantum: Decimal) -> Decimal:
    return round_up(with_leverage(brackets.margins(notional)[0], notional, leverage, quantum), quantum)


def flags_of(state: AccountState, command: PostFill, stamp: Stamp, terms: FillTerms, *, is_halted: bool,
             is_settled: bool) -> list[FillFlag]:
    """What is to be said of a fill that is posted all the same: late, during a halt, beyond its order or its leg."""
    flags: list[FillFlag] = []
    if command.time < stamp.time:
        flags.append("late")
    if is_halted and terms.increases:
        flags.append("during-halt")
    if is_settled:
        flags.append("after-settlement")
    if terms.increases and terms.key[2] == ("short" if terms.position.size > 0 else "long"):
        flags.append("leg-exceeded")
    if command.liquidation_order_id is not None:
        order = state.order(command.liquidation_order_id)
        if order is None or order.instrument != command.instrument or order.side != command.side:
            flags.append("order-closed")
        elif command.size > order.remaining:
            flags.append("order-exceeded")
    return flags


def decide_fill(command: PostFill, stamp: Stamp, terms: FillTerms, market: MarketState, *, isolated_margin: Decimal,
                flags: list[FillFlag]) -> FillPosted:
    """The fact of a fill, with all that it did."""
    instrument, mode, side = terms.key
    return FillPosted(
        time=stamp.time, cause=stamp.cause, account=command.account, trade_id=command.trade_id,
        instrument=instrument, side=command.side, size=command.size, price=command.price, fee=command.fee,
        fee_asset=command.fee_asset, liquidity=command.liquidity, order_id=command.order_id,
        liquidation_order_id=command.liquidation_order_id, margin_mode=command.margin_mode,
        position_side=command.position_side, leverage=command.leverage, mode=mode,  # type: ignore[arg-type]
        position=side, settlement_asset=market.settlement_asset,  # type: ignore[arg-type]
        charged_asset=command.fee_asset or market.settlement_asset, closed_size=terms.closed,
        realised_pnl=terms.realised_pnl, rounding=terms.rounding, position_size=terms.position.size,
        position_cost=terms.position.cost,
        position_leverage=terms.position.leverage, funding_index=terms.position.funding_index,
        isolated_margin=isolated_margin, flags=flags)
