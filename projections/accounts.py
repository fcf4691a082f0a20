"""The read model of accounts: settings and status, balances, positions, pools, open orders and holds, as logged.

Figures that hang on marks (equity, margins, ratio) are not here: the book and `risk.margin` have them. Status is
what the events say: the worst open liquidation, call or warning. This file never evaluates a pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from ledger.amounts import ZERO, Time
from ledger.errors import BrokenInvariant
from ledger.events import (
    EVENTS,
    AccountOpened,
    AccountSettingsChanged,
    Event,
    FillPosted,
    FundDrawn,
    FundingSettled,
    LiquidationCompleted,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    OrderReserved,
    PositionSettled,
    Recorded,
    ShortfallClaimReceived,
    TradingSettingsChanged,
    TransferTurnedAway,
    WarningEnded,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalSettled,
)
from ledger.postings import ACCOUNT, CROSS, pool_name, postings
from projections.database import Connection
from projections.tables import Key, Postings, ReadModel, Step, Table

HEALTHY: Final = "healthy"
WARNING: Final = "warning"
MARGIN_CALL: Final = "margin-call"
LIQUIDATION: Final = "liquidation"

CallEnded = MarginCallMet | MarginCallWithdrawn | MarginCallSuperseded


@dataclass(slots=True)
class AccountRow:
    """An account: `status` is the worst of its pools, counted by state in the three columns after it."""

    account: str
    kind: str
    margin_mode: str
    position_mode: str
    member: str | None
    rulebook: str | None
    status: str
    pools_warning: int
    pools_called: int
    pools_liquidating: int
    opened_at: Time
    last_event_at: Time
    fills: int
    log_position: int


@dataclass(slots=True)
class BalanceRow:
    """What one pool holds of one asset; it stays when it comes to zero."""

    account: str
    pool: str
    asset: str
    amount: Decimal


@dataclass(slots=True)
class PositionRow:
    """An open position: size in contracts, all else in the settlement asset, an inverse contract's base.

    PnL and funding are totals since it was opened from flat, funding + when received; the cost of an inverse long is
    negative, as its value is.
    """

    account: str
    instrument: str
    margin_mode: str
    position_side: str
    settlement_asset: str
    size: Decimal
    cost: Decimal
    leverage: Decimal | None
    funding_index: Decimal
    realised_pnl: Decimal
    funding: Decimal
    log_position: int


@dataclass(slots=True)
class PoolRow:
    """A pool that has ever been: its status, whether its warning stands, its open call and liquidation.

    `due`: its call has expired and its liquidation has not started, which a stale mark may hold back for a while.
    """

    account: str
    pool: str
    status: str
    warned: int
    due: int
    call_id: str | None
    liquidation_id: str | None


@dataclass(slots=True)
class SettingRow:
    """What an account chose for an instrument; with an empty one, for all that have no choice of their own."""

    account: str
    instrument: str
    leverage: Decimal | None
    margin_mode: str | None


@dataclass(slots=True)
class OrderRow:
    """An open order at the venue, as the venue last told of it."""

    account: str
    order_id: str
    instrument: str
    side: str
    remaining: Decimal
    price: Decimal
    reduce_only: int
    first_at: Time
    last_at: Time
    log_position: int


@dataclass(slots=True)
class HoldRow:
    """A withdrawal that has neither settled nor been cancelled; `log_position` is where it was held."""

    account: str
    withdrawal: str
    asset: str
    amount: Decimal
    held_at: Time
    log_position: int


ACCOUNTS: Final = Table("view_accounts", AccountRow, key=("account",))
BALANCES: Final = Table("view_balances", BalanceRow, key=("account", "pool", "asset"))
POSITIONS: Final = Table("view_positions", PositionRow, key=("account", "instrument", "margin_mode", "position_side"))
POOLS: Final = Table("view_pools", PoolRow, key=("account", "pool"))
SETTINGS: Final = Table("view_settings", SettingRow, key=("account", "instrument"))
ORDERS: Final = Table("view_orders", OrderRow, key=("account", "order_id"))
HOLDS: Final = Table("view_holds", HoldRow, key=("account", "withdrawal"))

# The events of an account are those that name one, but for these, which stand in other streams.
_ELSEWHERE: Final = (FundDrawn, ShortfallClaimReceived, TransferTurnedAway)
ACCOUNT_EVENTS: Final = tuple(event for event in EVENTS
                              if "account" in event.model_fields and event not in _ELSEWHERE)


class Accounts(ReadModel):
    """Folds the events of accounts into the tables of this file."""

    NAME = "accounts"
    SHAPES = (ACCOUNTS, BALANCES, POSITIONS, POOLS, SETTINGS, ORDERS, HOLDS)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._accounts = self.rows(ACCOUNTS)
        self._balances = self.rows(BALANCES)
        self._positions = self.rows(POSITIONS)
        self._pools = self.rows(POOLS)
        self._settings = self.rows(SETTINGS)
        self._orders = self.rows(ORDERS)
        self._holds = self.rows(HOLDS)
        # account -> the keys of its positions, of accounts that an event has named since the last flush or before.
        self._held: dict[str, dict[Key, None]] = {}

    def steps(self) -> Mapping[type[Event], Step]:
        """Every event of an account moves its row and balances; some do more."""
        steps: dict[type[Event], Step] = dict.fromkeys(ACCOUNT_EVENTS, self._noted)
        return steps | {
            AccountOpened: self._opened,
            AccountSettingsChanged: self._settings_changed,
            FillPosted: self._filled,
            FundingSettled: self._funding_settled,
            PositionSettled: self._position_settled,
            TradingSettingsChanged: self._settings_chosen,
            OrderReserved: self._order_reserved,
            WithdrawalHeld: self._withdrawal_held,
            WithdrawalSettled: self._hold_ended,
            WithdrawalCancelled: self._hold_ended,
            MarginWarned: self._warned,
            WarningEnded: self._warning_ended,
            MarginCallIssued: self._call_issued,
            MarginCallMet: self._call_ended,
            MarginCallWithdrawn: self._call_ended,
            MarginCallExpired: self._call_expired,
            MarginCallSuperseded: self._call_ended,
            LiquidationStarted: self._liquidation_started,
            LiquidationCompleted: self._liquidation_completed}

    def _noted(self, recorded: Recorded, event: Any) -> None:
        self._touch(recorded, event.account)

    def _touch(self, recorded: Recorded, name: str) -> AccountRow:
        """The account's row, with the event noted and its postings in the balances."""
        event = recorded.event
        account = self._accounts.find((name,))
        if account is None:
            raise BrokenInvariant(f"log position {recorded.position}: account {name} was never opened")
        account.last_event_at = event.time
        account.log_position = recorded.position
        self._accounts.change((name,), account)
        balances = self._balances
        for owner, asset, amount, of, pool in self._postings(event):
            if owner == ACCOUNT:
                key = (of, pool, asset)
                balance = balances.find(key)
                if balance is None:
                    balances.add(key, BalanceRow(of, pool, asset, amount))
                else:
                    balance.amount += amount
                    balances.change(key, balance)
        return account

    def _opened(self, recorded: Recorded, event: AccountOpened) -> None:
        self._accounts.add((event.account,), AccountRow(
            account=event.account, kind=event.kind, margin_mode=event.margin_mode, position_mode=event.position_mode,
            member=event.member, rulebook=event.rulebook, status=HEALTHY, pools_warning=0, pools_called=0,
            pools_liquidating=0, opened_at=event.time, last_event_at=event.time, fills=0,
            log_position=recorded.position))
        self._pool(event.account, CROSS)

    def _settings_changed(self, recorded: Recorded, event: AccountSettingsChanged) -> None:
        account = self._touch(recorded, event.account)
        account.kind, account.margin_mode, account.position_mode = event.kind, event.margin_mode, event.position_mode
        account.member, account.rulebook = event.member, event.rulebook

    def _filled(self, recorded: Recorded, event: FillPosted) -> None:
        self._touch(recorded, event.account).fills += 1
        if event.mode != CROSS:
            self._pool(event.account, pool_name(event.instrument, event.mode, event.position))
        key = (event.account, event.instrument, event.mode, event.position)
        position = self._positions.find(key)
        if not event.position_size:
            if position is not None:
                self._close(key)
        elif position is None:
            self._keys(event.account)[key] = None
            self._positions.add(key, PositionRow(
                *key, settlement_asset=event.settlement_asset, size=event.position_size, cost=event.position_cost,
                leverage=event.position_leverage, funding_index=event.funding_index, realised_pnl=event.realised_pnl,
                funding=ZERO, log_position=recorded.position))
        else:
            position.size, position.cost = event.position_size, event.position_cost
            position.leverage, position.funding_index = event.position_leverage, event.funding_index
            position.realised_pnl += event.realised_pnl
            position.log_position = recorded.position
            self._positions.change(key, position)

    def _keys(self, account: str) -> dict[Key, None]:
        """The keys of the account's positions, to be asked for before any of them comes or goes."""
        keys = self._held.get(account)
        if keys is None:
            keys = self._held[account] = dict.fromkeys(self._positions.stored_keys(account))
        return keys

    def _close(self, key: Key) -> None:
        self._keys(str(key[0])).pop(key, None)
        self._positions.remove(key)

    def _position_settled(self, recorded: Recorded, event: PositionSettled) -> None:
        self._touch(recorded, event.account)
        key = (event.account, event.instrument, event.mode, event.position)
        position = self._positions.find(key)
        if position is None:
            raise BrokenInvariant(
                f"log position {recorded.position}: {event.account} settles {event.instrument}, of which it has no "
                f"{event.mode} position {event.position}")
        if not event.position_size:
            self._close(key)
            return
        position.size, position.cost = event.position_size, event.position_cost
        position.realised_pnl += event.realised_pnl
        position.log_position = recorded.position
        self._positions.change(key, position)

    def _settings_chosen(self, recorded: Recorded, event: TradingSettingsChanged) -> None:
        account = self._touch(recorded, event.account)
        account.position_mode = event.position_mode or account.position_mode
        key = (event.account, event.instrument or "")
        setting = self._settings.find(key)
        if setting is None:
            self._settings.add(key, SettingRow(*key, event.leverage, event.margin_mode))
        else:
            setting.leverage = setting.leverage if event.leverage is None else event.leverage
            setting.margin_mode = event.margin_mode or setting.margin_mode
            self._settings.change(key, setting)
        if event.leverage is None:
            return
        for held in self._keys(event.account):
            position = self._positions.find(held)
            if position is not None and event.instrument in (None, position.instrument):
                own = None if event.instrument else self._settings.find((event.account, position.instrument))
                if own is None or own.leverage is None:
                    position.leverage = event.leverage
                    self._positions.change(held, position)

    def _order_reserved(self, recorded: Recorded, event: OrderReserved) -> None:
        self._touch(recorded, event.account)
        key = (event.account, event.order_id)
        order = self._orders.find(key)
        if not event.remaining:
            if order is not None:
                self._orders.remove(key)
            return
        if order is None:
            self._orders.add(key, OrderRow(
                *key, instrument=event.instrument, side=event.side, remaining=event.remaining, price=event.price,
                reduce_only=int(event.reduce_only), first_at=event.time, last_at=event.time,
                log_position=recorded.position))
            return
        order.instrument, order.side, order.remaining = event.instrument, event.side, event.remaining
        order.price, order.reduce_only = event.price, int(event.reduce_only)
        order.last_at, order.log_position = event.time, recorded.position
        self._orders.change(key, order)

    def _withdrawal_held(self, recorded: Recorded, event: WithdrawalHeld) -> None:
        self._touch(recorded, event.account)
        key = (event.account, event.withdrawal)
        if self._holds.find(key) is not None:
            raise BrokenInvariant(
                f"log position {recorded.position}: withdrawal {event.withdrawal} of {event.account} is held twice")
        self._holds.add(key, HoldRow(*key, event.asset, event.amount, event.time, recorded.position))

    def _hold_ended(self, recorded: Recorded, event: WithdrawalSettled | WithdrawalCancelled) -> None:
        self._touch(recorded, event.account)
        key = (event.account, event.withdrawal)
        if self._holds.find(key) is None:
            raise BrokenInvariant(
                f"log position {recorded.position}: withdrawal {event.withdrawal} of {event.account} ends, but nothing "
                "is held for it")
        self._holds.remove(key)

    def _funding_settled(self, recorded: Recorded, event: FundingSettled) -> None:
        self._touch(recorded, event.account)
        for item in event.items:
            key = (event.account, item.instrument, item.margin_mode, item.position_side)
            position = self._positions.find(key)
            if position is None:
                raise BrokenInvariant(
                    f"log position {recorded.position}: funding of {item.instrument} settled for {event.account}, "
                    f"which has no such {item.margin_mode} position {item.position_side}")
            position.funding += item.payment
            position.funding_index = item.index
            position.log_position = recorded.position
            self._positions.change(key, position)

    def _warned(self, recorded: Recorded, event: MarginWarned) -> None:
        pool = self._pool(event.account, event.pool)
        pool.warned = 1
        self._judge(self._touch(recorded, event.account), pool)

    def _warning_ended(self, recorded: Recorded, event: WarningEnded) -> None:
        pool = self._pool(event.account, event.pool)
        pool.warned = 0
        self._judge(self._touch(recorded, event.account), pool)

    def _call_issued(self, recorded: Recorded, event: MarginCallIssued) -> None:
        pool = self._pool(event.account, event.pool)
        pool.call_id = event.call_id
        # A called pool counts as warned: the call says more than a warning would, and it ends as a warning does.
        pool.warned = 1
        self._judge(self._touch(recorded, event.account), pool)

    def _call_ended(self, recorded: Recorded, event: CallEnded) -> None:
        pool = self._pool(event.account, event.pool)
        pool.call_id = None
        self._judge(self._touch(recorded, event.account), pool)

    def _call_expired(self, recorded: Recorded, event: MarginCallExpired) -> None:
        pool = self._pool(event.account, event.pool)
        pool.call_id, pool.due = None, 1
        self._judge(self._touch(recorded, event.account), pool)

    def _liquidation_started(self, recorded: Recorded, event: LiquidationStarted) -> None:
        pool = self._pool(event.account, event.pool)
        pool.liquidation_id, pool.due = event.liquidation_id, 0
        self._judge(self._touch(recorded, event.account), pool)

    def _liquidation_completed(self, recorded: Recorded, event: LiquidationCompleted) -> None:
        pool = self._pool(event.account, event.pool)
        pool.liquidation_id = None
        self._judge(self._touch(recorded, event.account), pool)

    def _pool(self, account: str, name: str) -> PoolRow:
        row = self._pools.find((account, name))
        return row if row is not None else self._pools.add(
            (account, name), PoolRow(
                account, name, status=HEALTHY, warned=0, due=0, call_id=None, liquidation_id=None))

    def _judge(self, account: AccountRow, pool: PoolRow) -> None:
        """The pool's status from what stands open on it, and the account's from its pools."""
        _count(account, pool.status, -1)
        pool.status = (LIQUIDATION if pool.liquidation_id is not None or pool.due
                       else MARGIN_CALL if pool.call_id is not None else WARNING if pool.warned else HEALTHY)
        _count(account, pool.status, +1)
        account.status = (LIQUIDATION if account.pools_liquidating else MARGIN_CALL if account.pools_called
                          else WARNING if account.pools_warning else HEALTHY)
        self._pools.change((pool.account, pool.pool), pool)


def _count(account: AccountRow, status: str, pools: int) -> None:
    match status:
        case "warning":
            account.pools_warning += pools
        case "margin-call":
            account.pools_called += pools
        case "liquidation":
            account.pools_liquidating += pools
