"""All aggregates' states, folded from the log, and what they are worth: look-ups, figures and evidence.

Positions and versions must follow on without a gap; evolve never refuses. This file takes no decision and records
nothing; it never reads a clock, a file or a topic.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from decimal import Decimal

from ledger import account as accounts
from ledger import asset as assets
from ledger import insurance_fund
from ledger import market as markets
from ledger.account import AccountState
from ledger.accounts import Accounts
from ledger.amounts import ONE, ZERO, seconds
from ledger.asset import AssetState
from ledger.commands import HaltedWhat
from ledger.errors import BrokenInvariant
from ledger.events import (
    Event,
    Evidence,
    FillPosted,
    Halted,
    InstrumentListed,
    InterestRateSet,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationResultRecorded,
    MarginCallIssued,
    MarkEvidence,
    PositionEvidence,
    PositionSettled,
    Recorded,
    Resumed,
    RulebookPublished,
    RulebookVersion,
    ShortfallClaimed,
    ShortfallCovered,
    Trigger,
)
from ledger.house import House
from ledger.insurance_fund import FundState
from ledger.market import MarketState
from ledger.nomination import PoolPlace
from ledger.postings import CROSS, Posting, postings
from ledger.risk.margin import Holding, PoolMargin, PriceOf, evaluate_pool
from ledger.risk.open_orders import OpenOrder
from ledger.risk.orders import OrderTerms, reserved_margin
from ledger.rulebook import Rulebook, RulebookState, evolve_rulebook

PricePath = tuple[str, ...]
# What a halt's scope may be beside an instrument or an account.
ALL = "all"


class States:
    """The states of all aggregates at one position of the log."""

    def __init__(self) -> None:
        self.position = 0
        self.log_time = 0
        self.versions: dict[str, int] = {}
        self.accounts = Accounts()
        self.markets: dict[str, MarketState] = {}
        self.assets: dict[str, AssetState] = {}
        self.funds: dict[tuple[str, str], FundState] = {}
        self.rulebooks = RulebookState()
        self.halts: set[tuple[str, HaltedWhat]] = set()
        self.house = House()
        # Open liquidation orders, oldest first: order id -> (account, pool).
        self.open_orders: dict[str, PoolPlace] = {}
        # Claims that no fund has answered yet, by id.
        self.claims: dict[str, ShortfallClaimed] = {}
        # Assets that bear or ever bore interest.
        self.bearing: set[str] = set()
        # (deadline, call or order id, account, pool), a heap.
        self.timers: list[tuple[int, str, str, str]] = []
        # What tipped the decisions under way: the log position of a record's outcome, and its type.
        self.trigger = (0, "")
        self._rules: dict[str | None, Rulebook] = {}
        self._rules_until: int | None = None
        self._paths: dict[tuple[str, str], PricePath | None] = {}

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

    def balances(self, state: AccountState, pool: str) -> Mapping[str, Decimal]:
        """The balances of a pool with the interest that they have accrued."""
        held = state.balances.get(pool, accounts.NO_MARGIN)
        if not self.bearing or self.bearing.isdisjoint(held):
            return held
        after = dict(held)
        for item in accounts.interest_items(state, self.assets, self.log_time, (pool,)):
            after[item.asset] += item.payment
        return after

    def holdings(self, state: AccountState, pool: str) -> Iterator[Holding]:
        """The positions of a pool at the current marks, with what they have accrued."""
        for key, position in state.positions_of(pool):
            instrument, mode, side = key
            market = self.markets[instrument]
            asset = market.settlement_asset
            quantum = self.assets[asset].quantum
            funding = (ZERO if market.funding_index == position.funding_index
                       else accounts.accrued_funding(state, key, market, quantum).payment)
            if market.mark is None:
                raise BrokenInvariant(f"{state.account} holds {instrument}, which has no mark")
            yield Holding(instrument, mode, side, position.size, position.cost, market.mark, funding,
                          market.contract_size, asset, quantum, position.leverage, market.contract_type)

    def margin(self, state: AccountState, pool: str = CROSS) -> PoolMargin:
        """The exact figures of a pool now; what open orders reserve is part of the initial margin of the cross pool."""
        rules = self.rules(state)
        price_of = self.price_of(rules)
        orders: list[OpenOrder] = []
        if rules.pool is not None and rules.pool.orders is not None and pool == CROSS and state.orders:
            orders = self._open_orders(state)
        margin = evaluate_pool(self.balances(state, pool), self.holdings(state, pool), price_of, rules, orders=orders)
        if rules.orders is None or pool != CROSS or not state.orders:
            return margin
        return margin._replace(initial_margin=margin.initial_margin + self._reserved(state, price_of))

    def _open_orders(self, state: AccountState) -> list[OpenOrder]:
        """The account's open orders as a pool rule reserves margin for them; each with its instrument's leverage."""
        found = []
        for _, order in sorted(state.orders.items()):
            market = self.markets[order.instrument]
            found.append(OpenOrder(
                order.instrument, order.remaining if order.side == "buy" else -order.remaining, order.price,
                market.mark or order.price, market.contract_size, market.settlement_asset,
                self.assets[market.settlement_asset].quantum, state.leverage_of(order.instrument),
                market.contract_type, order.reduce_only))
        return found

    def reserved(self, state: AccountState) -> dict[str, Decimal]:
        """What the account's open orders reserve, by instrument, in its settlement asset; empty without such a rule."""
        rules = self.rules(state)
        found: dict[str, Decimal] = {}
        if rules.orders is None:
            return found
        for instrument in sorted({order.instrument for order in state.orders.values()}):
            market = self.markets[instrument]
            rows = [OrderTerms(order.side, order.remaining, order.price, order.reduce_only)
                    for _, order in sorted(state.orders.items()) if order.instrument == instrument]
            size = sum((position.size for key, position in state.positions.items() if key[0] == instrument), ZERO)
            found[instrument] = reserved_margin(
                rows, size=size, mark=market.mark or rows[0].price, contract_size=market.contract_size,
                contract_type=market.contract_type, quantum=self.assets[market.settlement_asset].quantum,
                brackets=rules.requirement(instrument), leverage=state.leverage_of(instrument))
        return found

    def _reserved(self, state: AccountState, price_of: PriceOf) -> Decimal:
        total = ZERO
        for instrument, needed in self.reserved(state).items():
            total += needed * (price_of(self.markets[instrument].settlement_asset) or ZERO)
        return total

    def marks_used(self, state: AccountState, pool: str) -> set[str]:
        """The instruments whose marks value a pool; an asset that has no price yet is valued by none."""
        rules = self.rules(state)
        price_of = self.price_of(rules)
        used = {key[0] for key, _ in state.positions_of(pool)}
        held = {self.markets[instrument].settlement_asset for instrument in used}
        for asset in held.union(state.balances.get(pool, {})):
            if price_of(asset) is not None:
                used.update(self.path_of(rules.valuation_asset, asset))
        return used

    def is_stale(self, instrument: str) -> bool:
        """Whether an instrument's mark is older than the rulebook in force allows."""
        market = self.markets[instrument]
        return market.mark is None or self.rules().oracle.is_stale(mark_time=market.mark_time, now=self.log_time)

    def is_halted(self, what: HaltedWhat, account: str, *instruments: str) -> bool:
        """Whether something is halted for all, for the account, or for one of the instruments."""
        return bool(self.halts) and any((scope, what) in self.halts for scope in (ALL, account, *instruments))

    def has_stale_mark(self, state: AccountState, pool: str) -> bool:
        """Whether a mark that values the pool is stale."""
        return any(self.is_stale(instrument) for instrument in self.marks_used(state, pool))

    def is_blocked(self, state: AccountState, pool: str) -> bool:
        """Whether no liquidation may start: a mark that values the pool is stale, or liquidations are halted."""
        held = [key[0] for key, _ in state.positions_of(pool)]
        return self.is_halted("liquidations", state.account, *held) or self.has_stale_mark(state, pool)

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
            margin_ratio=margin.ratio, balances=dict(sorted(self.balances(state, pool).items())), marks=marks,
            positions=rows, rulebook=RulebookVersion(name=rules.name, version=rules.version),
            trigger=Trigger(position=self.trigger[0], type=self.trigger[1]))

    def forget_rules(self) -> None:
        """Look up anew which rulebooks are in force at log time."""
        self._rules.clear()
        self._rules_until = self.rulebooks.next_change(self.log_time)

    # --- folding -------------------------------------------------------------------------------------------------

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
        elif kind == "asset":
            self.assets[name] = assets.evolve(self.assets.get(name), event)
            self._paths.clear()
            if isinstance(event, InterestRateSet):
                self.bearing.add(name)
        elif kind == "fund":
            fund, _, asset = name.partition(":")
            self.funds[fund, asset] = insurance_fund.evolve(self.funds.get((fund, asset)) or FundState(fund, asset),
                                                            event)
        elif isinstance(event, RulebookPublished):
            self.rulebooks = evolve_rulebook(self.rulebooks, event)
        elif kind == "halts":
            self._halt(event)
        if lines:
            self.house.post(lines)
        self.position, self.versions[stream] = recorded.position, recorded.originator_version
        if event.time > self.log_time:
            self.log_time = event.time
            if self._rules_until is not None and self._rules_until <= event.time:
                self.forget_rules()
        if isinstance(event, RulebookPublished):
            self.forget_rules()

    def _watch(self, account: str, event: Event) -> None:
        """Timers and open orders follow from the account's events."""
        if isinstance(event, FillPosted):
            self.house.trade(event)
            if event.liquidation_order_id is not None:
                self._forget_closed_order(event.liquidation_order_id)
        elif isinstance(event, MarginCallIssued):
            heapq.heappush(self.timers, (event.deadline, event.call_id, account, event.pool))
        elif isinstance(event, LiquidationOrderPlaced):
            heapq.heappush(self.timers, (event.expires_at, event.order_id, account, event.pool))
            self.open_orders[event.order_id] = (account, event.pool)
        elif isinstance(event, LiquidationOrderCancelled):
            self._forget_closed_order(event.order_id)
        elif isinstance(event, LiquidationResultRecorded):
            self._forget_closed_order(event.liquidation_order_id)
        elif isinstance(event, PositionSettled):
            self.house.settle(event)
        elif isinstance(event, ShortfallClaimed):
            self.claims[event.claim_id] = event
        elif isinstance(event, ShortfallCovered):
            self.claims.pop(event.claim_id, None)

    def _halt(self, event: Event) -> None:
        if isinstance(event, Halted):
            self.halts.add((event.scope, event.what))
        elif isinstance(event, Resumed):
            self.halts.discard((event.scope, event.what))

    def _forget_closed_order(self, order_id: str) -> None:
        place = self.open_orders.get(order_id)
        if place is not None and self.accounts[place[0]].order(order_id) is None:
            del self.open_orders[order_id]
