"""The clearing house: the application that holds every aggregate's state and takes the decisions that span them.

One command at a time, in the order of semantics section 2: log time moves, timers due are judged, the record is
applied, nominated pools are decided worst first until none is nominated. A nominator (the book) says which pools
may have crossed a line; only the exact rules here write an event. This file never reads a clock, a file or a
topic: it is an eventsourcing application over whatever store its environment names, in memory by default.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.persistence import ProcessRecorder

from ledger import account as accounts
from ledger import insurance_fund, liquidation, margin_call, records
from ledger.account import AccountState, Stamp
from ledger.between_shards import Part
from ledger.commands import Command
from ledger.errors import BrokenInvariant, Rejected
from ledger.events import (
    Cause,
    Event,
    FundDrawn,
    Recorded,
    RecordRejected,
    ShortfallClaimed,
    ShortfallClaimReceived,
    TransferSent,
)
from ledger.insurance_fund import FundState
from ledger.margin_call import Standing
from ledger.nomination import Everybody, Nominator
from ledger.postings import CROSS, Posting
from ledger.risk.margin import MarginOrder
from ledger.states import States

# Rounds of decisions one record may cause, and steps one pool may take in a round. Each round liquidates, calls or
# cures somebody for good, so a thousand can only be a loop.
ROUNDS_MAX: Final = 1_000


class ClearingHouse(States, Application[str]):
    """Streams, versions, states, and the decisions on them."""

    name = "ledger"

    def __init__(self, env: Mapping[str, str] | None = None, *, nominator: Nominator | None = None) -> None:
        States.__init__(self)
        Application.__init__(self, {"ORIGINATOR_ID_TYPE": "text", **(env or {})})
        if not isinstance(self.recorder, ProcessRecorder):
            raise BrokenInvariant("the store must record positions with events (a process recorder)")
        self.nominator: Nominator = Everybody() if nominator is None else nominator
        # Events recorded and not yet taken by the writer.
        self.pending: list[Recorded] = []
        # What this ledger keeps; a service of several shards sets it before the first record.
        self.part: Part = "whole"
        # The event that answered an id of a source, where one did; the writer, who knows them, sets it.
        self.answered: Callable[[str, str], Event | None] = lambda source, name: None
        self.stamp = Stamp(0, Cause(source="", type=""))
        # The accounts that the record at hand is a record of.
        self._own: tuple[str | None, ...] = ()

    def construct_recorder(self) -> Any:
        """Positions of sources must commit with the events, so only a process recorder will do."""
        return self.factory.process_recorder()

    # --- one record ----------------------------------------------------------------------------------------------

    def handle(self, command: Command, cause: Cause) -> Recorded:
        """Apply one record and all that follows from it; the outcome's event is returned.

        Events pile up in `pending`. Runs under `ledger.amounts.exact()`. Raises Rejected, with nothing changed,
        where the record cannot be applied.
        """
        self.stamp = Stamp(self.log_time, cause)
        records.admit(self, command)
        try:
            return self._handle(command, cause)
        except Rejected as late:
            raise BrokenInvariant(f"a record was admitted and then rejected: {late}") from late

    def _handle(self, command: Command, cause: Cause) -> Recorded:
        if command.MOVES_LOG_TIME:
            self._move_log_time(command.time)
        outcome = records.apply(self, command)
        # Not getattr: to be asked for a field that it lacks is dear to a model. Whom nothing was sent, nothing befell.
        receiver = outcome.event.to_account if isinstance(outcome.event, TransferSent) else None
        self._own = (vars(command).get("account"), receiver)
        self.trigger = (outcome.position, command.TYPE)
        self._decide_nominated()
        return outcome

    def reject(self, rejected: RecordRejected) -> Recorded:
        """Record that a record cannot be applied; nothing else changes, not even log time."""
        return self.append(f"intake:{rejected.cause.source}", rejected)

    def _move_log_time(self, time: int) -> None:
        before, self.log_time = self.log_time, max(self.log_time, time)
        self.stamp = Stamp(self.log_time, self.stamp.cause)
        if self._rules_until is not None and before < self._rules_until <= self.log_time:
            self.forget_rules()
            self.nominator.rules_changed(self)
        while self.timers and self.timers[0][0] <= self.log_time:
            _, name, account, pool = heapq.heappop(self.timers)
            self._timer(name, self.accounts[account], pool)

    def _timer(self, name: str, state: AccountState, pool: str) -> None:
        """A deadline passed: of a call, or of a liquidation order; those that ended meanwhile mean nothing."""
        call, running = state.calls.get(pool), state.liquidations.get(pool)
        is_call = call is not None and call.call_id == name
        order = running.orders.get(name) if running is not None else None
        if not is_call and order is None:
            return
        self.trigger = (int(name.rpartition("-")[2]), "deadline")
        # What accrued is settled first, so that positions in the log are known to the event that follows.
        self.settle(state.account)
        standing = self._standing(state.account, pool)
        if is_call and call is not None:
            self.append(f"account:{state.account}", margin_call.decide_expiry(standing, call))
        elif order is not None and running is not None:
            self.append(f"account:{state.account}", liquidation.decide_order_expiry(standing, running, order))
        own, self._own = self._own, ()
        self._decide_pool(state.account, pool)
        self._own = own

    # --- decisions on pools --------------------------------------------------------------------------------------

    def _decide_nominated(self) -> None:
        for _ in range(ROUNDS_MAX):
            places = self.nominator.take()
            if not places:
                return
            ranked = []
            for account, pool in places:
                state = self.accounts[account]
                if state.is_margined:
                    place = (account.encode(), pool != CROSS, pool.encode())
                    ranked.append((MarginOrder(self.margin(state, pool), place), account, pool))
            for _, account, pool in sorted(ranked, key=lambda row: row[0]):
                self._decide_pool(account, pool)
        raise BrokenInvariant(f"pools are still nominated after {ROUNDS_MAX} rounds")

    def _decide_pool(self, account: str, pool: str) -> None:
        for _ in range(ROUNDS_MAX):
            events = self._next_events(account, pool)
            if events and self.settle(account):
                # Settling moved the next position; equity is the same, so the same is decided again.
                events = self._next_events(account, pool)
            if not events:
                return
            for event in events:
                self.append(f"account:{account}", event)
                if isinstance(event, ShortfallClaimed) and self.part == "whole":
                    self._answer(event)
        raise BrokenInvariant(f"pool {pool} of {account} is not settled after {ROUNDS_MAX} steps")

    def _standing(self, account: str, pool: str) -> Standing:
        state = self.accounts[account]
        rules = self.rules(state)
        margin = self.margin(state, pool)
        return Standing(state, pool, margin, rules, self.price_of(rules), self._curable(state, pool),
                        lambda: self.evidence(state, pool, margin), self.stamp, self.position + 1)

    def _curable(self, state: AccountState, pool: str) -> Mapping[str, Decimal]:
        if pool == CROSS:
            return self.quanta
        held = [self.markets[key[0]].settlement_asset for key, _ in state.positions_of(pool)]
        return {asset: self.quanta[asset] for asset in held or state.balances.get(pool, {})}

    @property
    def quanta(self) -> Mapping[str, Decimal]:
        """asset -> its quantum."""
        return {asset: listed.quantum for asset, listed in self.assets.items()}

    def _next_events(self, account: str, pool: str) -> list[Event]:
        standing = self._standing(account, pool)
        if standing.margin.unpriced:
            return []
        running = standing.account.liquidations.get(pool)
        own = account in self._own
        if running is not None:
            return liquidation.decide_liquidation(standing, running, self.quanta, own=own)
        reason = liquidation.reason_to_start(standing)
        if reason is not None and not self.is_blocked(standing.account, pool):
            return liquidation.decide_start(standing, reason)
        return margin_call.decide_call(standing, own=own)

    def _answer(self, claim: ShortfallClaimed) -> None:
        """The house's part of a shortfall, where it stands in the same log: the insurance fund pays what it holds."""
        self.append(f"account:{claim.account}", liquidation.cover(claim, self.draw(claim)))

    def draw(self, claim: ShortfallClaimed | ShortfallClaimReceived) -> FundDrawn:
        """Record what the insurance fund pays of a claim."""
        fund = self.funds.get(("insurance", claim.asset)) or FundState("insurance", claim.asset)
        drawn = insurance_fund.decide_cover(fund, claim, time=self.stamp.time, cause=self.stamp.cause)
        self.append(f"fund:insurance:{claim.asset}", drawn)
        return drawn

    def settle(self, account: str) -> bool:
        """Record what the account's balances and positions have accrued, before its next event; whether there was any.

        Interest first: it runs from the account's last event, whatever that was.
        """
        state, before = self.accounts[account], self.position
        if self.bearing:
            interest = accounts.decide_settle_interest(state, self.assets, self.stamp)
            if interest is not None:
                self.append(f"account:{account}", interest)
                state = self.accounts[account]
        for (instrument, _, _), position in state.positions.items():
            index = self.markets[instrument].funding_index
            if index is not position.funding_index and index != position.funding_index:
                funding = accounts.decide_settle_funding(state, self.markets, self.assets, self.stamp)
                if funding is not None:
                    self.append(f"account:{account}", funding)
                break
        return self.position != before

    def append(self, stream: str, event: Event, lines: list[Posting] | None = None,
                after: AccountState | None = None) -> Recorded:
        """Record an event: fold it, and tell the nominator. `lines` and `after` as in `fold`."""
        recorded = Recorded(self.position + 1, stream, self.versions.get(stream, 0) + 1, event)
        self.fold(recorded, lines, after)
        self.pending.append(recorded)
        self.nominator.applied(recorded, self)
        return recorded

    def load(self, log: Iterable[Recorded], progress: Callable[[int], None] | None = None) -> None:
        """Fold a log from where the states stand; the nominator is told once, at the end."""
        for recorded in log:
            self.fold(recorded)
            if progress is not None:
                progress(recorded.position)
        self.nominator.rules_changed(self)
        self.nominator.take()
