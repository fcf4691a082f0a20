"""Open orders as the calculator is asked about them, and as margin sees them.

This file never computes a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, StrictBool

from ledger.amounts import WirePositive, WirePrice
from ledger.commands import Id
from ledger.risk.holding import ContractType
from ledger.risk.open_orders import OpenOrder


class OrderInput(BaseModel):
    """An open order: what remains of it, in contracts, at its price; the leverage is the position's unless given."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    instrument: Id
    side: Literal["buy", "sell"]
    remaining: WirePositive
    price: WirePrice
    reduce_only: StrictBool = False
    leverage: WirePositive | None = None


class Terms(Protocol):
    """What an instrument is, as far as an order's margin cares."""

    @property
    def settled_in(self) -> str: ...
    @property
    def contract_size(self) -> Decimal: ...
    @property
    def contract_type(self) -> ContractType: ...


def open_orders(orders: Sequence[OrderInput], terms_of: Callable[[str], Terms | None], marks: Mapping[str, Decimal],
                leverages: Mapping[str, Decimal | None], quantum: Decimal) -> Iterator[OpenOrder | tuple[str, str]]:
    """Each order as margin sees it, or (path, what was expected) where its instrument or mark is not known."""
    for index, row in enumerate(orders):
        terms, mark = terms_of(row.instrument), marks.get(row.instrument)
        if terms is None:
            yield f"account.orders[{index}].instrument", ("expected an instrument of `instruments`, or a linear "
                                                          f"BASE-QUOTE, came {row.instrument!r}")
        elif mark is None:
            yield f"marks.{row.instrument}", f"expected the mark of {row.instrument}, which is ordered, came nothing"
        else:
            size = row.remaining if row.side == "buy" else -row.remaining
            yield OpenOrder(row.instrument, size, row.price, mark, terms.contract_size, terms.settled_in, quantum,
                            row.leverage or leverages.get(row.instrument), terms.contract_type, row.reduce_only)
