"""What an event moves: its postings over (owner, asset), a pure function of the event alone, summing to zero.

Owners are the pools of accounts, and those that stand against them: the house (the other side of every trade),
`fees`, `custody` (the negative of the assets held), `rounding`, `withheld` (withdrawals that have not settled),
`in-transit` (transfers under way), `shortfall` (losses claimed, not yet covered) and the funds. Conservation
(semantics section 5) is the statement that every list returned here sums to zero per asset. This file never looks at
state.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from ledger.events import (
    CollateralConverted,
    Deposited,
    DepositReversed,
    Event,
    FillPosted,
    FundingSettled,
    FundMoved,
    InterestSettled,
    IsolatedMarginMoved,
    PositionSettled,
    ShortfallClaimed,
    ShortfallCovered,
    TransferReceived,
    TransferReturned,
    TransferSent,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalSettled,
    Withdrawn,
)

ACCOUNT: Final = "account"
HOUSE: Final = "house"
FEES: Final = "fees"
CUSTODY: Final = "custody"
ROUNDING: Final = "house:rounding"
SHORTFALL: Final = "shortfall"
WITHHELD: Final = "withheld"
IN_TRANSIT: Final = "in-transit"
CROSS: Final = "cross"


class Posting(NamedTuple):
    """One line: `amount` of `asset` to `owner` (+) or from it (-); `account` and `pool` name a client's pool."""

    owner: str
    asset: str
    amount: Decimal
    account: str = ""
    pool: str = ""


def fund_owner(fund: str) -> str:
    """The owner under which a fund's money stands in the journal."""
    return f"fund:{fund}"


def pool_name(instrument: str, mode: str, side: str) -> str:
    """The pool that margins a position: `cross`, or the isolated position itself."""
    return CROSS if mode == CROSS else f"isolated:{instrument}:{side}"


def postings(event: Event) -> list[Posting]:
    """The lines of one event, without those of amount zero; they sum to zero per asset."""
    if type(event) is FillPosted:
        return _fill(event)
    return [line for line in _lines(event) if line.amount]


def _lines(event: Event) -> list[Posting]:
    match event:
        case FundingSettled():
            return _funding(event)
        case Deposited():
            return [Posting(ACCOUNT, event.asset, event.amount, event.account, CROSS),
                    Posting(CUSTODY, event.asset, -event.amount)]
        case DepositReversed() | Withdrawn():
            return [Posting(ACCOUNT, event.asset, -event.amount, event.account, CROSS),
                    Posting(CUSTODY, event.asset, event.amount)]
        case WithdrawalHeld():
            return [Posting(ACCOUNT, event.asset, -event.amount, event.account, CROSS),
                    Posting(WITHHELD, event.asset, event.amount)]
        case WithdrawalSettled():
            return [Posting(WITHHELD, event.asset, -event.amount), Posting(CUSTODY, event.asset, event.amount)]
        case WithdrawalCancelled():
            return [Posting(ACCOUNT, event.asset, event.amount, event.account, CROSS),
                    Posting(WITHHELD, event.asset, -event.amount)]
        case TransferSent():
            return [Posting(ACCOUNT, event.asset, -event.amount, event.account, CROSS),
                    Posting(IN_TRANSIT, event.asset, event.amount)]
        case TransferReceived() | TransferReturned():
            return [Posting(ACCOUNT, event.asset, event.amount, event.account, CROSS),
                    Posting(IN_TRANSIT, event.asset, -event.amount)]
        case IsolatedMarginMoved():
            return [Posting(ACCOUNT, event.asset, -event.amount, event.account, CROSS),
                    Posting(ACCOUNT, event.asset, event.amount, event.account,
                            pool_name(event.instrument, "isolated", event.position))]
        case InterestSettled():
            return _interest(event)
        case PositionSettled():
            return _settlement(event)
        case CollateralConverted():
            return [Posting(ACCOUNT, event.sold_asset, -event.sold_amount, event.account, event.pool),
                    Posting(HOUSE, event.sold_asset, event.sold_amount),
                    Posting(ACCOUNT, event.bought_asset, event.bought_amount, event.account, event.pool),
                    Posting(HOUSE, event.bought_asset, -event.bought_amount)]
        case ShortfallClaimed():
            return [Posting(ACCOUNT, event.asset, event.amount, event.account, event.pool),
                    Posting(SHORTFALL, event.asset, -event.amount)]
        case ShortfallCovered():
            return [Posting(SHORTFALL, event.asset, event.covered),
                    Posting(fund_owner(event.fund), event.asset, -event.covered)]
        case FundMoved():
            amount = -event.amount if event.kind == "withdrawal" else event.amount
            return [Posting(fund_owner(event.fund), event.asset, amount), Posting(CUSTODY, event.asset, -amount)]
        case _:
            return []


def _fill(event: FillPosted) -> list[Posting]:
    # The most frequent event by far, so lines of amount zero are not made in the first place.
    account, asset = event.account, event.settlement_asset
    pool = pool_name(event.instrument, event.mode, event.position)
    lines: list[Posting] = []
    if moved := event.isolated_margin:
        lines += (Posting(ACCOUNT, asset, -moved, account, CROSS), Posting(ACCOUNT, asset, moved, account, pool))
    realised, rounding = event.realised_pnl, event.rounding
    if realised:
        lines.append(Posting(ACCOUNT, asset, realised, account, pool))
    if realised or rounding:
        if taken := realised + rounding:
            lines.append(Posting(HOUSE, asset, -taken))
        if rounding:
            lines.append(Posting(ROUNDING, asset, rounding))
    if fee := event.fee:
        charged = event.charged_asset
        # A fee in another asset than the settlement asset can only come from the cross pool.
        lines += (Posting(ACCOUNT, charged, -fee, account, pool if charged == asset else CROSS),
                  Posting(FEES, charged, fee))
    return lines


def _funding(event: FundingSettled) -> list[Posting]:
    lines = []
    for item in event.items:
        pool = pool_name(item.instrument, item.margin_mode, item.position_side)
        lines.append(Posting(ACCOUNT, item.asset, item.payment, event.account, pool))
        lines.append(Posting(HOUSE, item.asset, -(item.payment + item.rounding)))
        lines.append(Posting(ROUNDING, item.asset, item.rounding))
    return lines


def _interest(event: InterestSettled) -> list[Posting]:
    lines = []
    for item in event.items:
        lines.append(Posting(ACCOUNT, item.asset, item.payment, event.account, item.pool))
        lines.append(Posting(HOUSE, item.asset, -(item.payment + item.rounding)))
        lines.append(Posting(ROUNDING, item.asset, item.rounding))
    return lines


def _settlement(event: PositionSettled) -> list[Posting]:
    pool, asset = pool_name(event.instrument, event.mode, event.position), event.settlement_asset
    return [Posting(ACCOUNT, asset, event.realised_pnl, event.account, pool),
            Posting(HOUSE, asset, -(event.realised_pnl + event.rounding)),
            Posting(ROUNDING, asset, event.rounding),
            Posting(ACCOUNT, asset, event.isolated_margin, event.account, pool),
            Posting(ACCOUNT, asset, -event.isolated_margin, event.account, CROSS)]
