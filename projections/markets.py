"""The read model of markets, assets, rulebooks and halts: marks, their sources, funding, volume, open interest.

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
    Halted,
    InstrumentListed,
    InterestRateSet,
    MarketSettled,
    PositionSettled,
    PriceRecorded,
    PriceRejected,
    ProvisionalMarkSet,
    Recorded,
    Resumed,
    RulebookPublished,
)
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table


@dataclass(slots=True)
class MarketRow:
    """An instrument, its mark, and what has happened on it.

    `mark_time` is the latest time of a record that set the mark; a provisional mark is the price of a fill, and that
    of a settlement its own: neither has a source. `is_median`: the mark is the median of several sources and not the
    price of the one that moved it last. Sizes are in contracts: `volume` is that of all fills, so that a trade counts
    by each of its sides, `open_interest` that of all longs. `settled`: the contract has ended.
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
    is_median: int
    provisional: int
    funding_index: Decimal
    funding_rate: Decimal | None
    funding_time: Time | None
    prices_accepted: int
    rejected_late: int
    rejected_step: int
    rejected_settled: int
    fills: int
    volume: Decimal
    open_interest: Decimal
    settlement_asset: str
    settlement_price: Decimal | None
    settlement_kind: str | None
    settlement_time: Time | None
    settled: int


@dataclass(slots=True)
class MarketSourceRow:
    """The last accepted price of a source, whatever its kind, and its last mark, which the median is taken of.

    The last sequence is one that a rejected price spends as well; `gaps` counts those that did not follow the last.
    """

    instrument: str
    source: str
    last_time: Time | None
    last_price: Decimal | None
    last_kind: str | None
    mark_price: Decimal | None
    sequence: int | None
    accepted: int
    rejected: int
    gaps: int


@dataclass(slots=True)
class AssetRow:
    """An asset, its smallest amount, the instrument whose mark values it, and its interest.

    Rates are per year, from `rates_since` on; an index is the sum of rate x seconds until then.
    """

    asset: str
    quantum: Decimal
    pricing_instrument: str | None
    borrow_rate: Decimal | None
    lend_rate: Decimal | None
    borrow_index: Decimal
    lend_index: Decimal
    rates_since: Time | None


class RulebookLine(NamedTuple):
    """A publication of a version of a rulebook; the same version may be published again for another time."""

    name: str
    version: int
    effective: str
    log_position: int


@dataclass(slots=True)
class HaltRow:
    """A halt in force, since the first of the records that asked for it; the rest is of the latest."""

    scope: str
    what: str
    reason: str
    by: str
    since: Time
    log_position: int


class HaltLine(NamedTuple):
    """A halt or its end, as a record told of it."""

    position: int
    time: str
    scope: str
    what: str
    action: str
    reason: str
    by: str


MARKETS: Final = Table("view_markets", MarketRow, key=("instrument",))
MARKET_SOURCES: Final = Table("view_market_sources", MarketSourceRow, key=("instrument", "source"))
ASSETS: Final = Table("view_assets", AssetRow, key=("asset",))
RULEBOOKS: Final = Table("view_rulebooks", RulebookLine, key=("name", "version", "log_position"))
HALTS: Final = Table("view_halts", HaltRow, key=("scope", "what"))
HALT_LINES: Final = Table("view_halt_lines", HaltLine, key=("position",))


class Markets(ReadModel):
    """Folds listings, prices, funding, settlements, halts and fills into the tables of this file."""

    NAME = "markets"
    SHAPES = (MARKETS, MARKET_SOURCES, ASSETS, RULEBOOKS, HALTS, HALT_LINES)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._markets = self.rows(MARKETS)
        self._sources = self.rows(MARKET_SOURCES)
        self._assets = self.rows(ASSETS)
        self._rulebooks = self.lines(RULEBOOKS)
        self._halts = self.rows(HALTS)
        self._halt_lines = self.lines(HALT_LINES)

    def steps(self) -> Mapping[type[Event], Step]:
        """What is listed or published, what is priced, what is traded, and what is halted."""
        return {RulebookPublished: self._rulebook_published, AssetListed: self._asset_listed,
                InterestRateSet: self._rates_set, MarketSettled: self._market_settled,
                PositionSettled: self._position_settled, Halted: self._halted, Resumed: self._resumed,
                InstrumentListed: self._instrument_listed, PriceRecorded: self._price_recorded,
                PriceRejected: self._price_rejected, ProvisionalMarkSet: self._provisional_mark_set,
                FundingIndexMoved: self._funding_index_moved, FillPosted: self._filled}

    def _rulebook_published(self, recorded: Recorded, event: RulebookPublished) -> None:
        self._rulebooks.append((event.name, event.version, rfc3339(event.effective), recorded.position))

    def _asset_listed(self, recorded: Recorded, event: AssetListed) -> None:
        key = (event.asset,)
        asset = self._assets.find(key)
        if asset is None:
            self._assets.add(key, AssetRow(
                event.asset, event.quantum, event.pricing_instrument, None, None, ZERO, ZERO, None))
            return
        asset.quantum, asset.pricing_instrument = event.quantum, event.pricing_instrument
        self._assets.change(key, asset)

    def _rates_set(self, recorded: Recorded, event: InterestRateSet) -> None:
        asset = self._assets.find((event.asset,))
        if asset is None:
            raise BrokenInvariant(f"log position {recorded.position}: asset {event.asset} was never listed")
        asset.borrow_rate, asset.lend_rate, asset.rates_since = event.borrow_rate, event.lend_rate, event.time
        asset.borrow_index, asset.lend_index = event.borrow_index, event.lend_index
        self._assets.change((event.asset,), asset)

    def _halted(self, recorded: Recorded, event: Halted) -> None:
        self._halt_lines.append((recorded.position, rfc3339(event.time), event.scope, event.what, "halt",
                                 event.reason, event.by))
        key = (event.scope, event.what)
        halt = self._halts.find(key)
        if halt is None:
            self._halts.add(key, HaltRow(*key, event.reason, event.by, event.time, recorded.position))
            return
        halt.reason, halt.by, halt.log_position = event.reason, event.by, recorded.position
        self._halts.change(key, halt)

    def _resumed(self, recorded: Recorded, event: Resumed) -> None:
        self._halt_lines.append((recorded.position, rfc3339(event.time), event.scope, event.what, "resume",
                                 event.reason, event.by))
        key = (event.scope, event.what)
        if self._halts.find(key) is not None:
            self._halts.remove(key)

    def _instrument_listed(self, recorded: Recorded, event: InstrumentListed) -> None:
        key = (event.instrument,)
        market = self._markets.find(key)
        settlement_asset = event.base if event.contract_type == "inverse" else event.quote
        if market is None:
            self._markets.add(key, MarketRow(
                instrument=event.instrument, base=event.base, quote=event.quote, contract_type=event.contract_type,
                contract_size=event.contract_size, tick_size=event.tick_size, lot_size=event.lot_size,
                underlying=event.underlying, expiry=event.expiry, mark_price=None, mark_time=None, mark_position=None,
                mark_source=None, is_median=0, provisional=0, funding_index=ZERO, funding_rate=None,
                funding_time=None, prices_accepted=0, rejected_late=0, rejected_step=0, rejected_settled=0, fills=0,
                volume=ZERO, open_interest=ZERO, settlement_asset=settlement_asset, settlement_price=None,
                settlement_kind=None, settlement_time=None, settled=0))
            return
        market.base, market.quote, market.contract_type = event.base, event.quote, event.contract_type
        market.contract_size, market.tick_size = event.contract_size, event.tick_size
        market.lot_size, market.underlying, market.expiry = event.lot_size, event.underlying, event.expiry
        market.settlement_asset = settlement_asset
        self._markets.change(key, market)

    def _price_recorded(self, recorded: Recorded, event: PriceRecorded) -> None:
        market = self._market(recorded, event.instrument)
        market.prices_accepted += 1
        time = _time(event)
        if event.kind == "mark":
            self._mark(market, event.price if event.mark is None else event.mark, time, recorded.position)
            market.mark_source, market.is_median = event.source, int(event.mark is not None)
        source = self._source(event)
        source.accepted += 1
        source.last_time, source.last_price, source.last_kind = time, event.price, event.kind
        if event.kind == "mark":
            source.mark_price = event.price

    def _price_rejected(self, recorded: Recorded, event: PriceRejected) -> None:
        market = self._market(recorded, event.instrument)
        match event.reason:
            case "late":
                market.rejected_late += 1
            case "step":
                market.rejected_step += 1
            case "settled":
                market.rejected_settled += 1
        self._source(event).rejected += 1

    def _source(self, event: PriceRecorded | PriceRejected) -> MarketSourceRow:
        """The row of the price's source, with the sequence that the price has spent."""
        key = (event.instrument, event.source)
        source = self._sources.find(key)
        if source is None:
            source = self._sources.add(key, MarketSourceRow(*key, None, None, None, None, None, 0, 0, 0))
        else:
            self._sources.change(key, source)
        if event.sequence is not None:
            source.sequence = event.sequence
        source.gaps += event.gap_from is not None
        return source

    def _provisional_mark_set(self, recorded: Recorded, event: ProvisionalMarkSet) -> None:
        market = self._market(recorded, event.instrument)
        market.mark_price, market.mark_position, market.mark_source = event.price, recorded.position, None
        market.mark_time, market.provisional = _time(event), 1

    def _mark(self, market: MarketRow, mark: Decimal, time: Time, position: int) -> None:
        market.mark_price, market.mark_position, market.provisional = mark, position, 0
        market.mark_time = time if market.mark_time is None else max(market.mark_time, time)

    def _market_settled(self, recorded: Recorded, event: MarketSettled) -> None:
        market = self._market(recorded, event.instrument)
        self._mark(market, event.price, _time(event), recorded.position)
        market.mark_source, market.is_median = None, 0
        market.settlement_price, market.settlement_kind = event.price, event.kind
        market.settlement_time, market.settled = _time(event), int(event.kind != "daily")

    def _position_settled(self, recorded: Recorded, event: PositionSettled) -> None:
        ended = max(ZERO, event.settled_size) - max(ZERO, event.position_size)
        if ended:
            self._market(recorded, event.instrument).open_interest -= ended

    def _funding_index_moved(self, recorded: Recorded, event: FundingIndexMoved) -> None:
        market = self._market(recorded, event.instrument)
        market.funding_index, market.funding_rate = event.index_after, event.rate
        market.funding_time = _time(event)

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


def _time(event: Event) -> Time:
    """The record's own time, which a market goes by; log time where it had none."""
    return event.time if event.cause.time is None else event.cause.time
