"""The market aggregate: an instrument, its mark, its sources' last prices and its funding index (`market:ID`).

A mark or a funding record is one event here, never one an account. This file decides which prices are taken; what
they do to accounts is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from ledger.amounts import FINEST, ZERO, divide_down, plain
from ledger.commands import ListInstrument, MoveFunding, RecordPrice, SettleMarket
from ledger.errors import BrokenInvariant, Rejected
from ledger.events import (
    Cause,
    Event,
    FundingIndexMoved,
    InstrumentListed,
    MarketSettled,
    PriceRecorded,
    PriceRejected,
    ProvisionalMarkSet,
)
from ledger.risk.oracle import OracleRule, fault_of_price, mark_of


class MarketState(NamedTuple):
    """An instrument as listed, and what its market knows."""

    instrument: str
    version: int
    base: str
    quote: str
    contract_type: Literal["linear", "inverse", "spot", "option"]
    contract_size: Decimal
    tick_size: Decimal
    lot_size: Decimal
    mark: Decimal | None = None
    mark_time: int = 0
    mark_position: int = 0
    # A fill's price stands in until the first mark comes.
    provisional: bool = False
    # price source -> (time, price) of its last accepted mark, time alone of its other kinds
    sources: Mapping[str, tuple[int, Decimal | None]] = {}
    # (delivery source, price source) -> last sequence seen
    sequences: Mapping[tuple[str, str], int] = {}
    funding_index: Decimal = ZERO
    # The contract has ended: no price moves it any more.
    settled: bool = False
    # What profit and funding are paid in: the quote, or the base of an inverse contract.
    settlement_asset: str = ""


_FIXED = ("base", "quote", "contract_type", "contract_size", "tick_size", "lot_size")


def decide_list(state: MarketState | None, command: ListInstrument, *, used: bool, time: int,
                cause: Cause) -> InstrumentListed:
    """List an instrument, or change what may change of it. Rejected: base, quote, type or sizes once used."""
    if state is not None and used:
        for field in _FIXED:
            before, came = getattr(state, field), getattr(command, field)
            if before != came:
                shown = [plain(value) if isinstance(value, Decimal) else value for value in (before, came)]
                raise Rejected("immutable", f"{field} of {command.instrument!r} is {shown[0]} and may not change once "
                               f"the instrument is used, came {shown[1]}", field=field)
    return InstrumentListed(
        time=time, cause=cause, instrument=command.instrument, base=command.base, quote=command.quote,
        contract_type=command.contract_type, contract_size=command.contract_size, tick_size=command.tick_size,
        lot_size=command.lot_size, underlying=command.underlying, expiry=command.expiry)


def is_repeated(state: MarketState, command: RecordPrice, delivery: str) -> bool:
    """Whether a sequenced price was seen already: its sequence is not above the last of its source."""
    if command.sequence is None:
        return False
    last = state.sequences.get((delivery, command.source))
    return last is not None and command.sequence <= last


def decide_price(state: MarketState, command: RecordPrice, rule: OracleRule, *, time: int,
                 cause: Cause) -> PriceRecorded | PriceRejected:
    """Take a price or reject it (`late`, `step`); either way its sequence is spent."""
    last = None if command.sequence is None else state.sequences.get((cause.source, command.source))
    gap = last + 1 if last is not None and command.sequence is not None and command.sequence > last + 1 else None
    judged = command.kind == "mark" and not state.provisional
    known = state.sources.get(command.source)
    fault: tuple[Literal["late", "step", "settled"], str] | None = fault_of_price(
        rule, price=command.price, time=command.time, last_time=None if known is None else known[0],
        mark=state.mark if judged else None, mark_time=state.mark_time)
    if state.settled:
        fault = "settled", f"expected a price of a contract that trades, {command.instrument} has settled"
    if fault is None:
        mark = _mark_after(state, command, rule) if command.kind == "mark" else command.price
        return PriceRecorded(time=time, cause=cause, instrument=command.instrument, price=command.price,
                             source=command.source, sequence=command.sequence, kind=command.kind, gap_from=gap,
                             mark=None if mark == command.price else mark)
    return PriceRejected(time=time, cause=cause, instrument=command.instrument, price=command.price,
                         source=command.source, sequence=command.sequence, kind=command.kind, gap_from=gap,
                         reason=fault[0], message=fault[1])


def _mark_after(state: MarketState, command: RecordPrice, rule: OracleRule) -> Decimal:
    others = [(time, price) for source, (time, price) in state.sources.items()
              if price is not None and source != command.source]
    return mark_of(rule, [*others, (command.time, command.price)]) if others else command.price


def decide_funding(state: MarketState, command: MoveFunding, *, time: int, cause: Cause) -> FundingIndexMoved:
    """Move the funding index by rate x price (else the mark), exact; of an inverse contract by rate / price, down.

    Rejected where there is neither price nor mark.
    """
    price = command.price if command.price is not None else state.mark
    if price is None:
        raise Rejected("no-mark", f"price: expected a price, since {command.instrument} has no mark", field="price")
    moved = divide_down(command.rate, price, FINEST) if state.contract_type == "inverse" else command.rate * price
    return FundingIndexMoved(time=time, cause=cause, instrument=command.instrument, rate=command.rate,
                             price=command.price, mark_price=price, index_before=state.funding_index,
                             index_after=state.funding_index + moved)


def decide_settlement(state: MarketState, command: SettleMarket, *, time: int, cause: Cause) -> MarketSettled:
    """Settle a market. Rejected where its contract has ended already."""
    if state.settled:
        raise Rejected("immutable", f"instrument: expected a contract that trades, {command.instrument} has settled",
                       field="instrument")
    return MarketSettled(time=time, cause=cause, instrument=command.instrument, price=command.price,
                         kind=command.kind)


def evolve(state: MarketState | None, event: Event, position: int) -> MarketState:
    """Fold one event of the market's stream; `position` is where it stands in the log."""
    if isinstance(event, PriceRecorded) and state is not None:
        return _priced(state, event, position)
    if isinstance(event, InstrumentListed):
        return _listed(state, event)
    if state is None:
        raise BrokenInvariant(f"a market's first event is InstrumentListed, came {type(event).__name__}")
    match event:
        case PriceRejected():
            return state._replace(version=state.version + 1, sequences=_sequences(state, event))
        case ProvisionalMarkSet():
            return state._replace(version=state.version + 1, mark=event.price, mark_time=event.cause.time or event.time,
                                  mark_position=position, provisional=True)
        case FundingIndexMoved():
            return state._replace(version=state.version + 1, funding_index=event.index_after)
        case MarketSettled():
            return state._replace(version=state.version + 1, mark=event.price, mark_position=position,
                                  mark_time=max(state.mark_time, event.cause.time or event.time), provisional=False,
                                  settled=event.kind != "daily")
        case _:
            raise BrokenInvariant(f"{type(event).__name__} does not belong to a market")


def _listed(state: MarketState | None, event: InstrumentListed) -> MarketState:
    listed = MarketState(event.instrument, 1, event.base, event.quote, event.contract_type, event.contract_size,
                         event.tick_size, event.lot_size,
                         settlement_asset=event.base if event.contract_type == "inverse" else event.quote)
    if state is None:
        return listed
    # What is listed again takes its new terms and keeps what the market knows.
    return listed._replace(version=state.version + 1, mark=state.mark, mark_time=state.mark_time,
                           mark_position=state.mark_position, provisional=state.provisional, sources=state.sources,
                           sequences=state.sequences, funding_index=state.funding_index, settled=state.settled)


def _priced(state: MarketState, event: PriceRecorded, position: int) -> MarketState:
    time = event.cause.time or event.time
    sequences = _sequences(state, event)
    if event.kind != "mark":
        known = state.sources.get(event.source)
        sources = {**state.sources, event.source: (time, None if known is None else known[1])}
        return state._replace(version=state.version + 1, sources=sources, sequences=sequences)
    sources = {**state.sources, event.source: (time, event.price)}
    return state._replace(version=state.version + 1, mark=event.price if event.mark is None else event.mark,
                          # A provisional mark is the log's own, and no measure for the prices that all logs share.
                          mark_time=time if state.provisional else max(state.mark_time, time),
                          mark_position=position, provisional=False, sources=sources, sequences=sequences)


def _sequences(state: MarketState, event: PriceRecorded | PriceRejected) -> Mapping[tuple[str, str], int]:
    if event.sequence is None:
        return state.sequences
    return {**state.sequences, (event.cause.source, event.source): event.sequence}
