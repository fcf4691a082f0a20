"""The read model of open trades: those whose two sides have not both come, and so leave the house with a position.

Fills come one side at a time; a trade is gone from here once as much was sold as bought. This file never judges
which side is missing by right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ledger.amounts import ZERO
from ledger.events import Event, FillPosted, Recorded
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table


@dataclass(slots=True)
class OpenTradeRow:
    """A trade of which more was bought than sold, or sold than bought."""

    trade_id: str
    instrument: str
    bought: Decimal
    sold: Decimal


OPEN_TRADES: Final = Table("view_open_trades", OpenTradeRow, key=("trade_id", "instrument"))


class Trades(ReadModel):
    """Folds fills into the trades that stand open."""

    NAME = "trades"
    SHAPES = (OPEN_TRADES,)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._trades = self.rows(OPEN_TRADES)

    def steps(self) -> Mapping[type[Event], Step]:
        """Only fills have trades."""
        return {FillPosted: self._filled}

    def _filled(self, recorded: Recorded, event: FillPosted) -> None:
        key = (event.trade_id, event.instrument)
        bought, sold = (event.size, ZERO) if event.side == "buy" else (ZERO, event.size)
        trade = self._trades.find(key)
        if trade is None:
            self._trades.add(key, OpenTradeRow(*key, bought, sold))
            return
        trade.bought += bought
        trade.sold += sold
        if trade.bought == trade.sold:
            self._trades.remove(key)
        else:
            self._trades.change(key, trade)
