"""The read model of markets, assets and rulebooks: marks, their sources, funding indexes, volume and open interest.

Open interest follows from the fills alone: each tells the size after it, and by its own size that before it. This
file never accepts or rejects a price: the events say which were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.amounts import ZERO, Time, rfc3339
from ledger.errors import BrokenInvariant
from ledger.events import (
    AssetListed,
    Event,
    FillPosted,
    FundingIndexMoved,
    InstrumentListed,
    PriceRecorded,
    PriceRejected,
    ProvisionalMarkSet,
    Recorded,
    RulebookPublished,
)
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table


@dataclass(slots=True)
class MarketRow:
    """An instrument, its mark, and what has happened on it.

    `mark_time` is the time of the record that set the mark; a provisional mark is the price of a fill and has no
    source. `volume` is the size of all fills, so that a trade counts by each of its sides; `open_interest` is the
    size of all longs.
    """

    instrument: str
    base: str
    quote: str
    contract_type: str
    contract_size: Decimal
    tick_size: Decimal
    lot_size: Decimal
    underlying: str | None
    expiry: Time | None
    mark_price: Decimal | None
    mark_time: Time | None
    mark_position: int | None
    mark_source: str | None
    provisional: int
    funding_index: Decimal
    prices_accepted: int
    rejected_late: int
    rejected_step: int
    fills: int
    volume: Decimal
    open_interest: Decimal


@dataclass(slots=True)
class MarketSourceRow:
    """The last accepted price of a source, and its last sequence, which a rejected price spends as well."""

    instrument: str
    source: str
    last_time: Time | None
    last_price: Decimal | None
    sequence: int | None


@dataclass(slots=True)
class AssetRow:
    """An asset, its smallest amount, and the instrument whose mark values it."""

    asset: str
    quantum: Decimal
    pricing_instrument: str | None


class RulebookLine(NamedTuple):
    """A publication of a version of a rulebook; the same version may be published again for another time."""

    name: str
    version: int
    effective: str
    log_position: int


MARKETS: Final = Table("view_markets", MarketRow, key=("instrument",))
MARKET_SOURCES: Final = Table("view_market_sources", MarketSourceRow, key=("instrument", "source"))
ASSETS: Final = Table("view_assets", AssetRow, key=("asset",))
RULEBOOKS: Final = Table("view_rulebooks", RulebookLine, key=("name", "version", "log_position"))


class Markets(ReadModel):
    """Folds listings, prices, funding and fills into the four tables of this file."""

    NAME = "markets"
    SHAPES = (MARKETS, MARKET_SOURCES, ASSETS, RULEBOOKS)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._markets = self.rows(MARKETS)
        self._sources = self.rows(MARKET_SOURCES)
        self._assets = self.rows(ASSETS)
        self._rulebooks = self.lines(RULEBOOKS)

    def steps(self) -> Mapping[type[Event], Step]:
        """What is listed or published, what is priced, and what is traded."""
        return {RulebookPublished: self._rulebook_published, AssetListed: self._asset_listed,
                InstrumentListed: self._instrument_listed, PriceRecorded: self._price_recorded,
                PriceRejected: self._price_rejected, ProvisionalMarkSet: self._provisional_mark_set,
                FundingIndexMoved: self._funding_index_moved, FillPosted: self._filled}

    def _rulebook_published(self, recorded: Recorded, event: RulebookPublished) -> None:
        self._rulebooks.append((event.name, event.version, rfc3339(event.effective), recorded.position))

    def _asset_listed(self, recorded: Recorded, event: AssetListed) -> None:
        key = (event.asset,)
        asset = self._assets.find(key)
        if asset is None:
            self._assets.add(key, AssetRow(event.asset, event.quantum, event.pricing_instrument))
            return
        asset.quantum, asset.pricing_instrument = event.quantum, event.pricing_instrument
        self._assets.change(key, asset)

    def _instrument_listed(self, recorded: Recorded, event: InstrumentListed) -> None:
        key = (event.instrument,)
        market = self._markets.find(key)
        if market is None:
            self._markets.add(key, MarketRow(
                instrument=event.instrument, base=event.base, quote=event.quote, contract_type=event.contract_type,
                contract_size=event.contract_size, tick_size=event.tick_size, lot_size=event.lot_size,
                underlying=event.underlying, expiry=event.expiry, mark_price=None, mark_time=None, mark_position=None,
                mark_source=None, provisional=0, funding_index=ZERO, prices_accepted=0, rejected_late=0,
                rejected_step=0, fills=0, volume=ZERO, open_interest=ZERO))
            return
        market.base, market.quote, market.contract_type = event.base, event.quote, event.contract_type
        market.contract_size, market.tick_size = event.contract_size, event.tick_size
        market.lot_size, market.underlying, market.expiry = event.lot_size, event.underlying, event.expiry
        self._markets.change(key, market)

    def _price_recorded(self, recorded: Recorded, event: PriceRecorded) -> None:
        market = self._market(recorded, event.instrument)
        market.prices_accepted += 1
        time = _time(event)
        if event.kind == "mark":
            market.mark_price, market.mark_time, market.mark_position = event.price, time, recorded.position
            market.mark_source, market.provisional = event.source, 0
        source = self._source(event)
        source.last_time, source.last_price = time, event.price

    def _price_rejected(self, recorded: Recorded, event: PriceRejected) -> None:
        market = self._market(recorded, event.instrument)
        match event.reason:
            case "late":
                market.rejected_late += 1
            case "step":
                market.rejected_step += 1
        self._source(event)

    def _source(self, event: PriceRecorded | PriceRejected) -> MarketSourceRow:
        """The row of the price's source, with the sequence that the price has spent."""
        key = (event.instrument, event.source)
        source = self._sources.find(key)
        if source is None:
            return self._sources.add(key, MarketSourceRow(*key, None, None, event.sequence))
        if event.sequence is not None:
            source.sequence = event.sequence
        self._sources.change(key, source)
        return source

    def _provisional_mark_set(self, recorded: Recorded, event: ProvisionalMarkSet) -> None:
        market = self._market(recorded, event.instrument)
        market.mark_price, market.mark_position, market.mark_source = event.price, recorded.position, None
        market.mark_time, market.provisional = _time(event), 1

    def _funding_index_moved(self, recorded: Recorded, event: FundingIndexMoved) -> None:
        self._market(recorded, event.instrument).funding_index = event.index_after

    def _filled(self, recorded: Recorded, event: FillPosted) -> None:
        market = self._market(recorded, event.instrument)
        market.fills += 1
        market.volume += event.size
        after = event.position_size
        before = after - event.size if event.side == "buy" else after + event.size
        if before > 0:
            market.open_interest -= before
        if after > 0:
            market.open_interest += after

    def _market(self, recorded: Recorded, instrument: str) -> MarketRow:
        """The row of the instrument, which is about to change."""
        key = (instrument,)
        market = self._markets.find(key)
        if market is None:
            raise BrokenInvariant(f"log position {recorded.position}: instrument {instrument} was never listed")
        self._markets.change(key, market)
        return market


def _time(event: PriceRecorded | ProvisionalMarkSet) -> Time:
    """The record's own time, which a market goes by; log time where it had none."""
    return event.time if event.cause.time is None else event.cause.time
