"""The clearing house: the application that holds every aggregate's state and takes the decisions that span them.

One command at a time, in the order of semantics section 2: log time moves, timers due are judged, the record is
applied, nominated pools are decided worst first until none is nominated. A nominator (the book) says which pools
may have crossed a line; only the exact rules here write an event. This file never reads a clock, a file or a
topic: it is an eventsourcing application over whatever store its environment names, in memory by default.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.persistence import ProcessRecorder

from ledger import account as accounts
from ledger import asset as assets
from ledger import fill, insurance_fund, liquidation, margin_call
from ledger import market as markets
from ledger.account import AccountState, Stamp
from ledger.amounts import ONE, ZERO, seconds
from ledger.asset import AssetState
from ledger.commands import (
    Command,
    Deposit,
    ListAsset,
    ListInstrument,
    MoveClock,
    MoveFund,
    MoveFunding,
    OpenAccount,
    PostFill,
    PublishRulebook,
    RecordPrice,
    Withdraw,
)
from ledger.errors import BrokenInvariant, Rejected
from ledger.events import (
    AssetListed,
    Cause,
    ClockMoved,
    Event,
    Evidence,
    FillPosted,
    InstrumentListed,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    MarginCallIssued,
    MarkEvidence,
    PositionEvidence,
    ProvisionalMarkSet,
    Recorded,
    RecordRejected,
    RulebookPublished,
    RulebookVersion,
    ShortfallClaimed,
    Trigger,
)
from ledger.house import House
from ledger.insurance_fund import FundState
from ledger.margin_call import Standing
from ledger.market import MarketState
from ledger.nomination import Everybody, Nominator, PoolPlace
from ledger.postings import CROSS, Posting, pool_name, postings
from ledger.risk.margin import Holding, MarginOrder, PoolMargin, PriceOf, evaluate_pool
from ledger.rulebook import Rulebook, RulebookState, decide_publish, evolve_rulebook

# Rounds of decisions one record may cause, and steps one pool may take in a round. Each round liquidates, calls or
# cures somebody for good, so a thousand can only be a loop.
ROUNDS_MAX: Final = 1_000
PricePath = tuple[str, ...]


class ClearingHouse(Application[str]):
    """Streams, versions, states, and the decisions on them."""

    name = "ledger"

    def __init__(self, env: Mapping[str, str] | None = None, *, nominator: Nominator | None = None) -> None:
        super().__init__({"ORIGINATOR_ID_TYPE": "text", **(env or {})})
        if not isinstance(self.recorder, ProcessRecorder):
            raise BrokenInvariant("the store must record positions with events (a process recorder)")
        self.nominator: Nominator = Everybody() if nominator is None else nominator
        self.position = 0
        self.log_time = 0
        self.versions: dict[str, int] = {}
        self.accounts: dict[str, AccountState] = {}
        self.markets: dict[str, MarketState] = {}
        self.assets: dict[str, AssetState] = {}
        self.funds: dict[tuple[str, str], FundState] = {}
        self.rulebooks = RulebookState()
        self.house = House()
        # Open liquidation orders, oldest first: order id -> (account, pool).
        self.open_orders: dict[str, PoolPlace] = {}
        # Events recorded and not yet taken by the writer.
        self.pending: list[Recorded] = []
        self._timers: list[tuple[int, str, str, str]] = []
        self._rules: dict[str | None, Rulebook] = {}
        self._rules_until: int | None = None
        self._paths: dict[tuple[str, str], PricePath | None] = {}
        self._stamp = Stamp(0, Cause(source="", type=""))
        self._own: str | None = None
        # What tipped the decisions under way: the log position of a record's outcome, and its type.
        self._trigger = (0, "")

    def construct_recorder(self) -> Any:
        """Positions of sources must commit with the events, so only a process recorder will do."""
        return self.factory.process_recorder()

    # --- look-ups ------------------------------------------------------------------------------------------------

    def rules(self, state: AccountState | None = None) -> Rulebook:
        """The rulebook in force at log time, for an account that may name its own."""
        name = None if state is None else state.rulebook
        found = self._rules.get(name)
        if found is None:
            found = self._rules[name] = self.rulebooks.in_force(self.log_time, name)
        return found

    def price_of(self, rules: Rulebook) -> PriceOf:
        """What one unit of an asset is worth in the rulebook's valuation asset, None where no mark says."""
        valuation, paths, known = rules.valuation_asset, self._paths, self.markets

        def price(asset: str) -> Decimal | None:
            if asset == valuation:
                return ONE
            key = (valuation, asset)
            path = paths[key] if key in paths else self._find_path(key)
            if path is None:
                return None
            worth = ONE
            for instrument in path:
                mark = known[instrument].mark
                if mark is None:
                    return None
                worth *= mark
            return worth

        return price

    def path_of(self, valuation: str, asset: str) -> PricePath:
        """The instruments, at most two, whose marks value an asset; empty where it needs or has none."""
        key = (valuation, asset)
        if asset == valuation:
            return ()
        return (self._paths[key] if key in self._paths else self._find_path(key)) or ()

    def _find_path(self, key: tuple[str, str]) -> PricePath | None:
        valuation, asset = key
        path: list[str] = []
        while asset != valuation and len(path) < 2:
            listed = self.assets.get(asset)
            market = self.markets.get(listed.pricing_instrument or "") if listed else None
            if market is None or market.base != asset:
                break
            path.append(market.instrument)
            asset = market.quote
        found = self._paths[key] = tuple(path) if asset == valuation else None
        return found

    def holdings(self, state: AccountState, pool: str) -> Iterator[Holding]:
        """The positions of a pool at the current marks, with what they have accrued."""
        for key, position in state.positions_of(pool):
            instrument, mode, side = key
            market = self.markets[instrument]
            quantum = self.assets[market.quote].quantum
            funding = (ZERO if market.funding_index == position.funding_index
                       else accounts.accrued_funding(state, key, market, quantum).payment)
            if market.mark is None:
                raise BrokenInvariant(f"{state.account} holds {instrument}, which has no mark")
            yield Holding(instrument, mode, side, position.size, position.cost, market.mark, funding,
                          market.contract_size, market.quote, quantum, position.leverage)

    def margin(self, state: AccountState, pool: str = CROSS) -> PoolMargin:
        """The exact figures of a pool now."""
        rules = self.rules(state)
        return evaluate_pool(state.balances.get(pool, {}), self.holdings(state, pool), self.price_of(rules), rules)

    def marks_used(self, state: AccountState, pool: str) -> set[str]:
        """The instruments whose marks value a pool; an asset that has no price yet is valued by none."""
        rules = self.rules(state)
        price_of = self.price_of(rules)
        used = {key[0] for key, _ in state.positions_of(pool)}
        held = {self.markets[instrument].quote for instrument in used}
        for asset in held.union(state.balances.get(pool, {})):
            if price_of(asset) is not None:
                used.update(self.path_of(rules.valuation_asset, asset))
        return used

    def is_stale(self, instrument: str) -> bool:
        """Whether an instrument's mark is older than the rulebook in force allows."""
        market = self.markets[instrument]
        return market.mark is None or self.rules().oracle.is_stale(mark_time=market.mark_time, now=self.log_time)

    def is_blocked(self, state: AccountState, pool: str) -> bool:
        """Whether no liquidation may start, since a mark that values the pool is stale."""
        return any(self.is_stale(instrument) for instrument in self.marks_used(state, pool))

    def evidence(self, state: AccountState, pool: str, margin: PoolMargin) -> Evidence:
        """All that a decision on a pool rests on."""
        rules = self.rules(state)
        marks = {}
        for instrument in sorted(self.marks_used(state, pool)):
            market = self.markets[instrument]
            if market.mark is not None:
                marks[instrument] = MarkEvidence(
                    price=market.mark, position=market.mark_position, provisional=market.provisional or None,
                    age_seconds=seconds(max(0, self.log_time - market.mark_time)))
        rows = [PositionEvidence(
            instrument=row.holding.instrument, margin_mode=row.holding.margin_mode,  # type: ignore[arg-type]
            position_side=row.holding.position_side, size=row.holding.size,  # type: ignore[arg-type]
            cost=row.holding.cost, notional=row.notional, unrealised_pnl=row.unrealised_pnl,
            initial_margin=row.initial_margin, maintenance_margin=row.maintenance_margin)
            for row in sorted(margin.positions, key=lambda row: row.holding[:3])]
        return Evidence(
            account_equity=margin.account_equity, margin_equity=margin.margin_equity,
            collateral_value=margin.collateral_value, unrealised_pnl=margin.unrealised_pnl,
            initial_margin=margin.initial_margin, maintenance_margin=margin.maintenance_margin,
            margin_ratio=margin.ratio, balances=dict(sorted(state.balances.get(pool, {}).items())), marks=marks,
            positions=rows, rulebook=RulebookVersion(name=rules.name, version=rules.version),
            trigger=Trigger(position=self._trigger[0], type=self._trigger[1]))

    # --- one record ----------------------------------------------------------------------------------------------

    def handle(self, command: Command, cause: Cause) -> Recorded:
        """Apply one record and all that follows from it; the outcome's event is returned.

        Events pile up in `pending`. Runs under `ledger.amounts.exact()`. Raises Rejected, with nothing changed,
        where the record cannot be applied.
        """
        self._admit(command)
        try:
            return self._handle(command, cause)
        except Rejected as late:
            raise BrokenInvariant(f"a record was admitted and then rejected: {late}") from late

    def _handle(self, command: Command, cause: Cause) -> Recorded:
        # Not getattr: to be asked for a field that it lacks is dear to a model.
        self._own = vars(command).get("account")
        self._stamp = Stamp(self.log_time, cause)
        if command.MOVES_LOG_TIME:
            self._move_log_time(command.time)
        outcome = self._apply(command)
        self._trigger = (outcome.position, command.TYPE)
        self._decide_nominated()
        return outcome

    def reject(self, rejected: RecordRejected) -> Recorded:
        """Record that a record cannot be applied; nothing else changes, not even log time."""
        return self._append(f"intake:{rejected.cause.source}", rejected)

    def _move_log_time(self, time: int) -> None:
        before, self.log_time = self.log_time, max(self.log_time, time)
        self._stamp = Stamp(self.log_time, self._stamp.cause)
        if self._rules_until is not None and before < self._rules_until <= self.log_time:
            self._forget_rules()
            self.nominator.rules_changed(self)
        while self._timers and self._timers[0][0] <= self.log_time:
            _, name, account, pool = heapq.heappop(self._timers)
            self._timer(name, self.accounts[account], pool)

    def _forget_rules(self) -> None:
        self._rules.clear()
        self._rules_until = self.rulebooks.next_change(self.log_time)

    def _timer(self, name: str, state: AccountState, pool: str) -> None:
        """A deadline passed: of a call, or of a liquidation order; those that ended meanwhile mean nothing."""
        call, running = state.calls.get(pool), state.liquidations.get(pool)
        is_call = call is not None and call.call_id == name
        order = running.orders.get(name) if running is not None else None
        if not is_call and order is None:
            return
        self._trigger = (int(name.rpartition("-")[2]), "deadline")
        # What accrued is settled first, so that positions in the log are known to the event that follows.
        self._settle_funding(state.account)
        standing = self._standing(state.account, pool)
        if is_call and call is not None:
            self._append(f"account:{state.account}", margin_call.decide_expiry(standing, call))
        elif order is not None and running is not None:
            self._append(f"account:{state.account}", liquidation.decide_order_expiry(standing, running, order))
        own, self._own = self._own, None
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
            if events and self._settle_funding(account):
                # Settling moved the next position; equity is the same, so the same is decided again.
                events = self._next_events(account, pool)
            if not events:
                return
            for event in events:
                self._append(f"account:{account}", event)
                if isinstance(event, ShortfallClaimed):
                    self._answer(event)
        raise BrokenInvariant(f"pool {pool} of {account} is not settled after {ROUNDS_MAX} steps")

    def _standing(self, account: str, pool: str) -> Standing:
        state = self.accounts[account]
        rules = self.rules(state)
        margin = self.margin(state, pool)
        return Standing(state, pool, margin, rules, self.price_of(rules), self._curable(state, pool),
                        lambda: self.evidence(state, pool, margin), self._stamp, self.position + 1)

    def _curable(self, state: AccountState, pool: str) -> Mapping[str, Decimal]:
        if pool == CROSS:
            return self._quanta
        held = [self.markets[key[0]].quote for key, _ in state.positions_of(pool)]
        return {asset: self._quanta[asset] for asset in held or state.balances.get(pool, {})}

    @property
    def _quanta(self) -> Mapping[str, Decimal]:
        return {asset: listed.quantum for asset, listed in self.assets.items()}

    def _next_events(self, account: str, pool: str) -> list[Event]:
        standing = self._standing(account, pool)
        if standing.margin.unpriced:
            return []
        running = standing.account.liquidations.get(pool)
        own = self._own == account
        if running is not None:
            return liquidation.decide_liquidation(standing, running, self._quanta, own=own)
        reason = liquidation.reason_to_start(standing)
        if reason is not None and not self.is_blocked(standing.account, pool):
            return liquidation.decide_start(standing, reason)
        return margin_call.decide_call(standing, own=own)

    def _answer(self, claim: ShortfallClaimed) -> None:
        """The house's part of a shortfall: the insurance fund pays what it holds."""
        fund = self.funds.get(("insurance", claim.asset)) or FundState("insurance", claim.asset)
        drawn = insurance_fund.decide_cover(fund, claim, time=self._stamp.time, cause=self._stamp.cause)
        self._append(f"fund:insurance:{claim.asset}", drawn)
        self._append(f"account:{claim.account}", liquidation.cover(claim, drawn))

    def _settle_funding(self, account: str) -> bool:
        state = self.accounts[account]
        for (instrument, _, _), position in state.positions.items():
            index = self.markets[instrument].funding_index
            if index is not position.funding_index and index != position.funding_index:
                break
        else:
            return False
        event = accounts.decide_settle_funding(state, self.markets, self.assets, self._stamp)
        if event is not None:
            self._append(f"account:{account}", event)
        return event is not None

    # --- records by type -----------------------------------------------------------------------------------------

    def _admit(self, command: Command) -> None:
        """Rejected where the record cannot be applied, before anything changes."""
        match command:
            case PostFill():
                state, market = self._account(command.account), self._market(command.instrument)
                self._asset(command.fee_asset or market.quote, "fee_asset")
                fill.admit(state, command, market)
            case Deposit() | Withdraw():
                self._account(command.account)
                self._asset(command.asset)
            case RecordPrice():
                self._market(command.instrument)
            case MoveFunding():
                markets.decide_funding(self._market(command.instrument), command, time=0, cause=self._stamp.cause)
            case ListAsset():
                assets.decide_list(self.assets.get(command.asset), command, time=0, cause=self._stamp.cause,
                                   used=self._is_used(command.asset))
            case ListInstrument():
                self._asset(command.quote, "quote")
                markets.decide_list(self.markets.get(command.instrument), command, time=0, cause=self._stamp.cause,
                                    used=command.instrument in self.house.sizes)
            case OpenAccount():
                accounts.decide_open(self.accounts.get(command.account), command, self._stamp)
                if command.rulebook is not None:
                    self.rulebooks.in_force(max(self.log_time, command.time), command.rulebook)
            case MoveFund():
                self._asset(command.asset)
            case PublishRulebook():
                decide_publish(self.rulebooks, command, self._stamp.cause, self.log_time)

    def _is_used(self, asset: str) -> bool:
        """Whether anything was posted in an asset, or traded that settles in it."""
        return self.house.uses(asset) or any(self.markets[traded].quote == asset for traded in self.house.sizes)

    def _account(self, account: str) -> AccountState:
        state = self.accounts.get(account)
        if state is None:
            raise Rejected("unknown-account", f"account: expected an opened account, came {account!r}", field="account")
        return state

    def _market(self, instrument: str) -> MarketState:
        state = self.markets.get(instrument)
        if state is None:
            raise Rejected("unknown-instrument", f"instrument: expected a listed instrument, came {instrument!r}",
                           field="instrument")
        return state

    def _asset(self, asset: str, field: str = "asset") -> AssetState:
        state = self.assets.get(asset)
        if state is None:
            raise Rejected("unknown-asset", f"{field}: expected a listed asset, came {asset!r}", field=field)
        return state

    def _apply(self, command: Command) -> Recorded:
        time, cause = self._stamp
        match command:
            case PostFill():
                return self._fill(command)
            case RecordPrice():
                rule = self.rulebooks.in_force(command.time).oracle if self.rulebooks.publications else (
                    self.rules().oracle)
                price = markets.decide_price(self.markets[command.instrument], command, rule, time=time, cause=cause)
                return self._append(f"market:{command.instrument}", price)
            case Deposit():
                self._settle_funding(command.account)
                event: Event = accounts.decide_deposit(self.accounts[command.account], command, self._stamp)
                return self._append(f"account:{command.account}", event)
            case Withdraw():
                return self._withdraw(command)
            case MoveFunding():
                event = markets.decide_funding(self.markets[command.instrument], command, time=time, cause=cause)
                return self._append(f"market:{command.instrument}", event)
            case MoveClock():
                return self._append("clock", ClockMoved(time=time, cause=cause))
            case OpenAccount():
                if command.account in self.accounts:
                    self._settle_funding(command.account)
                event = accounts.decide_open(self.accounts.get(command.account), command, self._stamp)
                return self._append(f"account:{command.account}", event)
            case ListAsset():
                event = assets.decide_list(self.assets.get(command.asset), command, used=False, time=time, cause=cause)
                return self._append(f"asset:{command.asset}", event)
            case ListInstrument():
                event = markets.decide_list(self.markets.get(command.instrument), command, used=False, time=time,
                                            cause=cause)
                return self._append(f"market:{command.instrument}", event)
            case MoveFund():
                fund = self.funds.get((command.fund, command.asset)) or FundState(command.fund, command.asset)
                event = insurance_fund.decide_move(fund, command, time=time, cause=cause)
                return self._append(f"fund:{command.fund}:{command.asset}", event)
            case PublishRulebook():
                published = decide_publish(self.rulebooks, command, cause, self.log_time)
                recorded = self._append("rulebook", published)
                if published.effective <= self.log_time:
                    self.nominator.rules_changed(self)
                return recorded
            case _:
                raise BrokenInvariant(f"no rule applies {type(command).__name__}")

    def _fill(self, command: PostFill) -> Recorded:
        self._settle_funding(command.account)
        market = self.markets[command.instrument]
        if market.mark is None:
            self._append(f"market:{command.instrument}", ProvisionalMarkSet(
                time=self._stamp.time, cause=self._stamp.cause, instrument=command.instrument, price=command.price))
            market = self.markets[command.instrument]
        state = self.accounts[command.account]
        rules = self.rules(state)
        quantum = self.assets[market.quote].quantum
        terms = fill.terms_of(state, command, market, quantum)
        fee = command.fee if command.fee_asset in (None, market.quote) else ZERO
        moved, short = fill.isolated_transfer(state, command, terms, market, quantum=quantum, fee=fee,
                                                  brackets=rules.requirement(command.instrument))
        flags = fill.flags_of(state, command, self._stamp)
        if short:
            flags.append("margin-short")
        event = fill.decide_fill(command, self._stamp, terms, market, isolated_margin=moved, flags=flags)
        lines = postings(event)
        after = accounts.evolve(state, event, lines)
        if terms.increases and state.is_margined and command.liquidation_order_id is None:
            margin = self.margin(after, pool_name(*terms.key))
            if margin.margin_equity < margin.initial_margin:
                # This flag changes neither the postings nor the state after.
                event = event.model_copy(update={"flags": [*flags, "initial-margin-breached"]})
        return self._append(f"account:{command.account}", event, lines, after)

    def _withdraw(self, command: Withdraw) -> Recorded:
        self._settle_funding(command.account)
        state = self.accounts[command.account]
        rules = self.rules(state)
        margin = self.margin(state)
        available = accounts.withdrawable(
            balance=state.balance(CROSS, command.asset), price=self.price_of(rules)(command.asset), margin=margin,
            tiers=rules.collateral(command.asset), quantum=self.assets[command.asset].quantum)
        self._trigger = (self.position + 1, command.TYPE)
        event = accounts.decide_withdraw(
            state, command, self._stamp, available=available, margin=margin,
            is_stale=any(self.is_blocked(state, pool) for pool in state.pools()),
            evidence=lambda: self.evidence(state, CROSS, margin))
        return self._append(f"account:{command.account}", event)

    # --- folding -------------------------------------------------------------------------------------------------

    def _append(self, stream: str, event: Event, lines: list[Posting] | None = None,
                after: AccountState | None = None) -> Recorded:
        recorded = Recorded(self.position + 1, stream, self.versions.get(stream, 0) + 1, event)
        self.fold(recorded, lines, after)
        self.pending.append(recorded)
        self.nominator.applied(recorded, self)
        return recorded

    def fold(self, recorded: Recorded, lines: list[Posting] | None = None, after: AccountState | None = None) -> None:
        """Fold one event of the log into the states; positions and versions must follow on without a gap.

        `lines` and `after` are the event's postings and its account's state after it, where the caller has them.
        """
        stream, event = recorded.originator_id, recorded.event
        if recorded.position != self.position + 1 or recorded.originator_version != self.versions.get(stream, 0) + 1:
            raise BrokenInvariant(
                f"expected position {self.position + 1} and version {self.versions.get(stream, 0) + 1} of {stream}, "
                f"came {recorded.position} and {recorded.originator_version}")
        kind, _, name = stream.partition(":")
        if lines is None:
            lines = postings(event)
        if kind == "account":
            self.accounts[name] = accounts.evolve(self.accounts.get(name), event, lines) if after is None else after
            self._watch(name, event)
        elif kind == "market":
            self.markets[name] = markets.evolve(self.markets.get(name), event, recorded.position)
            if isinstance(event, InstrumentListed):
                self._paths.clear()
        elif isinstance(event, AssetListed):
            self.assets[name] = assets.evolve(self.assets.get(name), event)
            self._paths.clear()
        elif kind == "fund":
            fund, _, asset = name.partition(":")
            self.funds[fund, asset] = insurance_fund.evolve(self.funds.get((fund, asset)) or FundState(fund, asset),
                                                            event)
        elif isinstance(event, RulebookPublished):
            self.rulebooks = evolve_rulebook(self.rulebooks, event)
        if lines:
            self.house.post(lines)
        self.position, self.versions[stream] = recorded.position, recorded.originator_version
        if event.time > self.log_time:
            self.log_time = event.time
            if self._rules_until is not None and self._rules_until <= event.time:
                self._forget_rules()
        if isinstance(event, RulebookPublished):
            self._forget_rules()

    def _watch(self, account: str, event: Event) -> None:
        """Timers and open orders follow from the account's events."""
        if isinstance(event, FillPosted):
            self.house.trade(event)
            if event.liquidation_order_id is not None:
                self._forget_closed_order(event.liquidation_order_id)
        elif isinstance(event, MarginCallIssued):
            heapq.heappush(self._timers, (event.deadline, event.call_id, account, event.pool))
        elif isinstance(event, LiquidationOrderPlaced):
            heapq.heappush(self._timers, (event.expires_at, event.order_id, account, event.pool))
            self.open_orders[event.order_id] = (account, event.pool)
        elif isinstance(event, LiquidationOrderCancelled):
            self._forget_closed_order(event.order_id)

    def _forget_closed_order(self, order_id: str) -> None:
        place = self.open_orders.get(order_id)
        if place is not None and self.accounts[place[0]].order(order_id) is None:
            del self.open_orders[order_id]

    def load(self, log: Iterable[Recorded], progress: Callable[[int], None] | None = None) -> None:
        """Fold a log from where the states stand; the nominator is told once, at the end."""
        for recorded in log:
            self.fold(recorded)
            if progress is not None:
                progress(recorded.position)
        self.nominator.rules_changed(self)
        self.nominator.take()

