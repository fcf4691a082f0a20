"""What open orders reserve: initial margin of the risk that they would add, where the rulebook says so.

Per instrument the costlier side counts, less what that side would only close. This file knows no accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ledger.amounts import ZERO
from ledger.risk.holding import ContractType, notional_of
from ledger.risk.requirement import RequirementBlock, with_leverage


class OrderMargin(BaseModel):
    """Variant `initial-margin:1`: an open order reserves the initial margin that its fill would add."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["initial-margin:1"]


class OrderTerms(NamedTuple):
    """An open order as margin sees it: what remains of it, in contracts, at its own price."""

    side: Literal["buy", "sell"]
    remaining: Decimal
    price: Decimal
    reduce_only: bool


def reserved_margin(orders: Iterable[OrderTerms], *, size: Decimal, mark: Decimal, contract_size: Decimal,
                    contract_type: ContractType, quantum: Decimal, brackets: RequirementBlock,
                    leverage: Decimal | None) -> Decimal:
    """Initial margin reserved by the orders on one instrument beside a position of `size` contracts (signed, net).

    Formula:  initial margin(position + orders) - initial margin(position), of the side that needs more; of each
              side as much is left out, in the order given, as would close the position; reduce-only orders need none.
    Units:    settlement asset. Rounding: that of `with_leverage` and of an inverse notional, up.
    """
    held = _initial(notional_of(size=size, contract_size=contract_size, price=mark, contract_type=contract_type),
                    brackets, leverage, quantum)
    rows = [row for row in orders if not row.reduce_only and row.remaining]
    needed = ZERO
    for side in ("buy", "sell"):
        closing = max(ZERO, -size if side == "buy" else size)
        notional = notional_of(size=max(ZERO, abs(size) - closing), contract_size=contract_size, price=mark,
                               contract_type=contract_type)
        opens = False
        for row in rows:
            if row.side == side:
                opening = max(ZERO, row.remaining - closing)
                closing = max(ZERO, closing - row.remaining)
                if opening:
                    opens = True
                    notional += notional_of(size=opening, contract_size=contract_size, price=row.price,
                                            contract_type=contract_type)
        if opens:
            needed = max(needed, _initial(notional, brackets, leverage, quantum) - held)
    return needed


def _initial(notional: Decimal, brackets: RequirementBlock, leverage: Decimal | None, quantum: Decimal) -> Decimal:
    return with_leverage(brackets.margins(notional)[0], notional, leverage, quantum)
