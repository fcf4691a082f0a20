"""What else may be said to a small clearing house: of settings, holds, transfers, orders, rates, halts and ends.

Neighbour: `record_steps`, which has all that makes an account trade and lose.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import NANOSECONDS, PRICE_MAX, PRICE_MIN, plain, round_down
from ledger.postings import CROSS, pool_name
from tests.property.record_steps import FINE, INSTRUMENTS, Line, Record, Scene


class Reverses(NamedTuple):
    """A deposit said before is undone; another amount, or an id that no deposit had, is not."""

    back: int
    how: str

    def say(self, scene: Scene) -> Record | Line | None:
        deposits = []
        for raw in scene.said:
            if raw.startswith(b'{"type": "deposit"'):
                deposits.append(json.loads(raw))
        if not deposits:
            return None
        chosen = deposits[-1 - self.back % len(deposits)]
        amount = chosen["amount"] if self.how != "other amount" else "0.77"
        return scene.record("deposit", account=chosen["account"], asset=chosen["asset"], amount=amount,
                           reverses="nothing" if self.how == "unknown" else chosen["id"])


class EndsWithdrawal(NamedTuple):
    """What is held goes out or comes back; a hold that is not there does neither."""

    hold: int
    settles: bool
    known: bool
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        holds = [(state.account, name) for state in scene.house.accounts.values() for name in state.holds]
        if not holds:
            return None
        account, name = holds[self.hold % len(holds)]
        return scene.record("withdrawal-settled" if self.settles else "withdrawal-cancelled", account=account,
                           withdrawal=name if self.known else "r0")


class Chooses(NamedTuple):
    account: int
    instrument: str | None
    leverage: str | None
    margin_mode: str | None
    position_mode: str | None

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("account-settings", account=scene.account(self.account).account,
                           instrument=self.instrument, leverage=self.leverage, margin_mode=self.margin_mode,
                           position_mode=self.position_mode)


class Transfers(NamedTuple):
    """As a withdrawal, to another account (or, wrongly, to the same)."""

    account: int
    to_account: int
    asset: str
    part: str | None
    beyond: int

    def say(self, scene: Scene) -> Record | Line | None:
        state = scene.account(self.account)
        asset = scene.held_asset(state) if self.asset == "held" else self.asset
        amount = scene.amount_of(state, CROSS, asset, self.part, self.beyond)
        return scene.record("transfer", account=state.account, to_account=scene.account(self.to_account).account,
                           asset=asset, amount=plain(amount))


class MovesMargin(NamedTuple):
    """Margin into an isolated position or out of it: a part of what is there, or what is just free and more."""

    position: int
    out: bool
    part: str | None
    beyond: int
    names_side: bool

    def say(self, scene: Scene) -> Record | Line | None:
        held = [(state, key) for state in scene.house.accounts.values() for key in state.positions if key[1] != CROSS]
        if not held:
            return None
        state, key = held[self.position % len(held)]
        asset = scene.house.markets[key[0]].settlement_asset
        amount = scene.amount_of(state, pool_name(*key) if self.out else CROSS, asset, self.part, self.beyond)
        return scene.record("isolated-margin", account=state.account, instrument=key[0],
                           amount=plain(-amount if self.out else amount),
                           position_side=key[2] if self.names_side else None)


class Orders(NamedTuple):
    """An order as it stands: `times` the size that would open as much as the account's balance is worth."""

    account: int
    order: int
    instrument: str
    side: str
    times: str
    off: str
    reduce_only: bool | None

    def say(self, scene: Scene) -> Record | Line | None:
        state = scene.account(self.account)
        lot, contract_size = Decimal(INSTRUMENTS[self.instrument][3]), Decimal(INSTRUMENTS[self.instrument][2])
        held = sum((abs(row.size) for key, row in state.positions.items() if key[0] == self.instrument), Decimal(0))
        size = held or Decimal(1) / contract_size
        price = min(max(round_down(scene.mark(self.instrument) * Decimal(self.off), FINE), PRICE_MIN), PRICE_MAX)
        remaining = min(round_down(size * Decimal(self.times), lot), Decimal(10) ** 17)
        return scene.record("order", account=state.account, order_id=f"o{self.order}", instrument=self.instrument,
                           side=self.side, remaining=plain(remaining), price=plain(price),
                           reduce_only=self.reduce_only)


class SetsRate(NamedTuple):
    asset: str
    borrow_rate: str
    lend_rate: str

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("interest-rate", asset=self.asset, borrow_rate=self.borrow_rate, lend_rate=self.lend_rate)


class Reports(NamedTuple):
    """What the venue says of a liquidation order: an open one, one of somebody else's, or one long gone."""

    order: int
    whose: str
    result: str

    def say(self, scene: Scene) -> Record | Line | None:
        orders = scene.orders()
        if self.whose == "gone" or not orders:
            return scene.record("liquidation-result", account=scene.account(self.order).account,
                               liquidation_order_id=f"order-{self.order}", result=self.result)
        state, order = orders[self.order % len(orders)]
        account = state.account if self.whose == "its own" else scene.account(self.order).account
        return scene.record("liquidation-result", account=account, liquidation_order_id=order.order_id,
                           result=self.result)


class Halts(NamedTuple):
    """A halt, or the end of one (`halt` of those in force, if there are any)."""

    resumes: bool
    scope: str | int
    what: str
    halt: int

    def say(self, scene: Scene) -> Record | Line | None:
        scope = self.scope if isinstance(self.scope, str) else scene.account(self.scope).account
        what: str = self.what
        if self.resumes and scene.house.halts:
            scope, what = sorted(scene.house.halts)[self.halt % len(scene.house.halts)]
        return scene.record("resume" if self.resumes else "halt", scope=scope, what=what, reason="drill", by="desk")


class Settles(NamedTuple):
    instrument: str
    factor: str
    kind: str

    def say(self, scene: Scene) -> Record | Line | None:
        price = min(max(round_down(scene.mark(self.instrument) * Decimal(self.factor), FINE), PRICE_MIN), PRICE_MAX)
        return scene.record("settlement", instrument=self.instrument, price=plain(price), kind=self.kind)
