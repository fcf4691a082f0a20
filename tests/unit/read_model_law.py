"""The law of the read models: whatever the log, they say what the ledger's own states say, after every event.

`hold_to_states` folds a log into states and read models side by side, event by event, and compares; at the end, and
at cuts in between, models that were built from nothing have the same rows. Used by unit and property tests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from ledger.amounts import ZERO, exact
from ledger.events import Recorded
from ledger.states import States
from projections import queries
from projections.accounts import ACCOUNTS, BALANCES, HOLDS, ORDERS, POOLS, POSITIONS, SETTINGS
from projections.funds import FUNDS
from projections.journal import TRIAL_BALANCE, imbalances
from projections.margin_calls import LIQUIDATION_ORDERS, LIQUIDATIONS, MARGIN_CALLS
from projections.markets import ASSETS, HALTS, MARKET_SOURCES, MARKETS
from projections.read_model import ALL, ReadModels

NO_RATES = (None, None, None, ZERO, ZERO)


def contents(models: ReadModels) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    return {name: models.rows(name) for model in ALL for name in model.TABLES}


def hold_to_states(log: Sequence[Recorded], *, every: int = 1, cuts: Iterable[int] = ()) -> None:
    """Compare after every so many events, and rebuild from nothing at the cuts and at the end."""
    states = States()
    remaining = {*cuts, len(log)}

    def select(after: int, limit: int) -> Sequence[Recorded]:
        return log[after:after + limit]

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as followed:
        models = ReadModels(followed)
        models.create()
        with exact():
            for recorded in log:
                states.fold(recorded)
                if recorded.position % every and recorded.position not in remaining:
                    continue
                models.catch_up(select, until=recorded.position)
                assert states_of(states) == models_of(followed), f"after {recorded.position}: {recorded.event!r}"
                assert [] == imbalances(followed)
                if recorded.position in remaining:
                    with closing(sqlite3.connect(":memory:", isolation_level=None)) as anew:
                        rebuilt = ReadModels(anew)
                        rebuilt.create()
                        rebuilt.catch_up(select, until=recorded.position)
                        assert contents(rebuilt) == contents(models), f"rebuilt to {recorded.position}"


def states_of(states: States) -> Mapping[str, Any]:
    """What the ledger itself decides by, as plain values."""
    accounts = states.accounts.values()
    running = [(state, pool, row) for state in accounts for pool, row in state.liquidations.items()]
    return {
        "accounts": {state.account: (state.kind, state.margin_mode, state.position_mode, state.member, state.rulebook)
                     for state in accounts},
        "balances": {(state.account, pool, asset): amount for state in accounts
                     for pool, held in state.balances.items() for asset, amount in held.items()},
        "positions": {(state.account, *key): tuple(row) for state in accounts
                      for key, row in state.positions.items()},
        "settings": {(state.account, place or ""): tuple(row) for state in accounts
                     for place, row in state.settings.items()},
        "orders": {(state.account, name): tuple(row) for state in accounts for name, row in state.orders.items()},
        "holds": {(state.account, name): tuple(row) for state in accounts for name, row in state.holds.items()},
        "warned": {(state.account, pool) for state in accounts for pool in state.warned},
        "due": {(state.account, pool) for state in accounts for pool in state.due},
        "calls": {row.call_id: (state.account, pool, row.deadline, row.cure_level, row.position)
                  for state in accounts for pool, row in state.calls.items()},
        "liquidations": {row.liquidation_id: (state.account, pool) for state, pool, row in running},
        "liquidation orders": {
            order.order_id: (state.account, *order[1:]) for state, _, row in running for order in row.orders.values()},
        "markets": {name: (
            row.mark, row.mark_time if row.mark is not None else None,
            row.mark_position if row.mark is not None else None, row.provisional, row.funding_index, row.settled,
            row.settlement_asset, row.base, row.quote, row.contract_type, row.contract_size, row.tick_size,
            row.lot_size) for name, row in states.markets.items()},
        "price sources": {(name, source): row for name, market in states.markets.items()
                          for source, row in market.sources.items()},
        "assets": {name: (row.quantum, row.pricing_instrument, *(row.rates[-1] if row.rates else NO_RATES))
                   for name, row in states.assets.items()},
        "funds": {key: row.balance for key, row in states.funds.items() if row.balance},
        "halts": set(states.halts),
        "house": {key: amount for key, amount in states.house.balances.items() if amount},
        "open interest": {name: sum((max(ZERO, position.size) for state in accounts
                                     for key, position in state.positions.items() if key[0] == name), ZERO)
                          for name in states.markets}}


def models_of(connection: sqlite3.Connection) -> Mapping[str, Any]:
    """The same from the tables of the read models."""
    def rows(table: Any) -> list[Any]:
        return list(queries.select(connection, table))

    pools, markets = rows(POOLS), rows(MARKETS)
    return {
        "accounts": {row.account: (row.kind, row.margin_mode, row.position_mode, row.member, row.rulebook)
                     for row in rows(ACCOUNTS)},
        "balances": {(row.account, row.pool, row.asset): row.amount for row in rows(BALANCES) if row.amount},
        "positions": {(row.account, row.instrument, row.margin_mode, row.position_side):
                      (row.size, row.cost, row.funding_index, row.leverage) for row in rows(POSITIONS)},
        "settings": {(row.account, row.instrument): (row.leverage, row.margin_mode) for row in rows(SETTINGS)},
        "orders": {(row.account, row.order_id): (
            row.instrument, row.side, row.remaining, row.price, bool(row.reduce_only)) for row in rows(ORDERS)},
        "holds": {(row.account, row.withdrawal): (row.asset, row.amount) for row in rows(HOLDS)},
        "warned": {(row.account, row.pool) for row in pools if row.warned},
        "due": {(row.account, row.pool) for row in pools if row.due},
        "calls": {row.call_id: (row.account, row.pool, row.deadline, row.cure_level, row.issued_position)
                  for row in rows(MARGIN_CALLS) if row.state == "open"},
        "liquidations": {row.liquidation_id: (row.account, row.pool) for row in rows(LIQUIDATIONS)
                         if row.state == "running"},
        "liquidation orders": {row.order_id: (
            row.account, row.pool, row.instrument, row.position_side, row.side, row.size, row.filled, row.limit_price,
            row.expires_at) for row in rows(LIQUIDATION_ORDERS) if row.state in ("open", "part-filled")},
        "markets": {row.instrument: (
            row.mark_price, row.mark_time, row.mark_position, bool(row.provisional), row.funding_index,
            bool(row.settled), row.settlement_asset, row.base, row.quote, row.contract_type, row.contract_size,
            row.tick_size, row.lot_size) for row in markets},
        "price sources": {(row.instrument, row.source): (row.last_time, row.mark_price)
                          for row in rows(MARKET_SOURCES) if row.last_time is not None},
        "assets": {row.asset: (row.quantum, row.pricing_instrument, row.rates_since, row.borrow_rate, row.lend_rate,
                               row.borrow_index, row.lend_index) for row in rows(ASSETS)},
        "funds": {(row.fund, row.asset): row.balance for row in rows(FUNDS) if row.balance},
        "halts": {(row.scope, row.what) for row in rows(HALTS)},
        "house": {(row.owner, row.asset): row.amount for row in rows(TRIAL_BALANCE) if row.amount},
        "open interest": {row.instrument: row.open_interest for row in markets}}
