"""What each type of record does: it is admitted, before anything changes, and then applied.

Admission rejects what cannot be applied whoever asks (unknown account, asset or instrument, off-lot size, what may
not change any more); after it, a record leaves its outcome. This file holds no state, and evaluates margin only
where a record's outcome rests on it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ledger import account as accounts
from ledger import asset as assets
from ledger import between_shards, fill, insurance_fund, movement
from ledger import market as markets
from ledger.account import AccountState
from ledger.amounts import ZERO
from ledger.asset import AssetState
from ledger.between_shards import AnswerShortfall, ClaimShortfall, TakeBackTransfer, TakeTransfer
from ledger.commands import (
    CancelWithdrawal,
    ChangeSettings,
    Command,
    Deposit,
    Halt,
    ListAsset,
    ListInstrument,
    MoveClock,
    MoveFund,
    MoveFunding,
    MoveIsolatedMargin,
    OpenAccount,
    PlaceOrder,
    PostFill,
    PublishRulebook,
    RecordPrice,
    ReportOrder,
    Resume,
    SetInterestRate,
    SettleMarket,
    SettleWithdrawal,
    Transfer,
    Withdraw,
)
from ledger.errors import BrokenInvariant, Rejected
from ledger.events import ClockMoved, Event, Halted, ProvisionalMarkSet, Recorded, Resumed, TransferSent
from ledger.insurance_fund import FundState
from ledger.market import MarketState
from ledger.postings import CROSS, pool_name, postings
from ledger.risk.margin import PoolMargin
from ledger.rulebook import decide_publish
from ledger.states import ALL

if TYPE_CHECKING:
    from ledger.clearing_house import ClearingHouse


def admit(house: ClearingHouse, command: Command) -> None:
    """Rejected where the record cannot be applied; nothing changes."""
    check = _ADMITTED.get(type(command))
    if check is not None:
        check(house, command)


def apply(house: ClearingHouse, command: Command) -> Recorded:
    """Apply an admitted record; the event that is its outcome."""
    rule = _APPLIED.get(type(command))
    if rule is None:
        raise BrokenInvariant(f"no rule applies {type(command).__name__}")
    return rule(house, command)


# --- what is known -----------------------------------------------------------------------------------------------


def _account(house: ClearingHouse, account: str, field: str = "account") -> AccountState:
    state = house.accounts.get(account)
    if state is None:
        raise Rejected("unknown-account", f"{field}: expected an opened account, came {account!r}", field=field)
    return state


def _market(house: ClearingHouse, instrument: str) -> MarketState:
    state = house.markets.get(instrument)
    if state is None:
        raise Rejected("unknown-instrument", f"instrument: expected a listed instrument, came {instrument!r}",
                       field="instrument")
    return state


def _asset(house: ClearingHouse, asset: str, field: str = "asset") -> AssetState:
    state = house.assets.get(asset)
    if state is None:
        raise Rejected("unknown-asset", f"{field}: expected a listed asset, came {asset!r}", field=field)
    return state


# --- admission ---------------------------------------------------------------------------------------------------


def _admit_fill(house: ClearingHouse, command: PostFill) -> None:
    state, market = _account(house, command.account), _market(house, command.instrument)
    _asset(house, command.fee_asset or market.settlement_asset, "fee_asset")
    fill.admit(state, command, market)


def _admit_cash(house: ClearingHouse, command: Deposit | Withdraw) -> None:
    state = _account(house, command.account)
    _asset(house, command.asset)
    if isinstance(command, Deposit) and command.reverses is not None:
        movement.decide_reversal(state, command, _reversed_deposit(house, command), house.stamp)
    if isinstance(command, Withdraw) and command.hold and command.id in state.holds:
        # Ids are unique per source only, and a hold ends by its id.
        raise Rejected("withdrawal-held", f"id: expected an id under which nothing is held for account "
                       f"{state.account!r}, came {command.id!r}", field="id")


def _admit_transfer(house: ClearingHouse, command: Transfer) -> None:
    _account(house, command.account)
    if house.part == "whole":
        _account(house, command.to_account, "to_account")
    _asset(house, command.asset)


def _admit_of_account(house: ClearingHouse, command: ReportOrder) -> None:
    _account(house, command.account)


def _admit_withdrawal_end(house: ClearingHouse, command: SettleWithdrawal | CancelWithdrawal) -> None:
    movement.decide_withdrawal_end(_account(house, command.account), command, house.stamp)


def _admit_settings(house: ClearingHouse, command: ChangeSettings) -> None:
    state = _account(house, command.account)
    if command.instrument is not None:
        _market(house, command.instrument)
    accounts.decide_settings(state, command, house.stamp)


def _admit_order(house: ClearingHouse, command: PlaceOrder) -> None:
    _account(house, command.account)
    _market(house, command.instrument)


def _admit_isolated(house: ClearingHouse, command: MoveIsolatedMargin) -> None:
    state = _account(house, command.account)
    _market(house, command.instrument)
    movement.isolated_key(state, command)


def _admit_price(house: ClearingHouse, command: RecordPrice) -> None:
    _market(house, command.instrument)


def _admit_funding(house: ClearingHouse, command: MoveFunding) -> None:
    markets.decide_funding(_market(house, command.instrument), command, time=0, cause=house.stamp.cause)


def _admit_settlement(house: ClearingHouse, command: SettleMarket) -> None:
    markets.decide_settlement(_market(house, command.instrument), command, time=0, cause=house.stamp.cause)


def _admit_asset(house: ClearingHouse, command: ListAsset) -> None:
    used = house.house.uses(command.asset) or any(
        house.markets[traded].settlement_asset == command.asset for traded in house.house.sizes)
    assets.decide_list(house.assets.get(command.asset), command, used=used, time=0, cause=house.stamp.cause)


def _admit_instrument(house: ClearingHouse, command: ListInstrument) -> None:
    _asset(house, command.quote, "quote")
    if command.contract_type == "inverse":
        _asset(house, command.base, "base")
    markets.decide_list(house.markets.get(command.instrument), command, time=0, cause=house.stamp.cause,
                        used=command.instrument in house.house.sizes)


def _admit_account(house: ClearingHouse, command: OpenAccount) -> None:
    accounts.decide_open(house.accounts.get(command.account), command, house.stamp)
    if command.rulebook is not None:
        house.rulebooks.in_force(max(house.log_time, command.time), command.rulebook)


def _admit_in_asset(house: ClearingHouse, command: MoveFund | SetInterestRate) -> None:
    _asset(house, command.asset)


def _admit_halt(house: ClearingHouse, command: Halt | Resume) -> None:
    if command.scope != ALL and command.scope not in house.markets and command.scope not in house.accounts:
        raise Rejected("unknown-scope", f"scope: expected {ALL!r}, a listed instrument or an opened account, came "
                       f"{command.scope!r}", field="scope")


def _admit_rulebook(house: ClearingHouse, command: PublishRulebook) -> None:
    decide_publish(house.rulebooks, command, house.stamp.cause, house.log_time)


# --- fills -------------------------------------------------------------------------------------------------------


def _apply_fill(house: ClearingHouse, command: PostFill) -> Recorded:
    house.settle(command.account)
    stamp, market = house.stamp, house.markets[command.instrument]
    if market.mark is None:
        house.append(f"market:{command.instrument}", ProvisionalMarkSet(
            time=stamp.time, cause=stamp.cause, instrument=command.instrument, price=command.price))
        market = house.markets[command.instrument]
    state = house.accounts[command.account]
    rules = house.rules(state)
    asset = market.settlement_asset
    quantum = house.assets[asset].quantum
    terms = fill.terms_of(state, command, market, quantum)
    fee = command.fee if command.fee_asset in (None, asset) else ZERO
    moved, short = fill.isolated_transfer(state, command, terms, market, quantum=quantum, fee=fee,
                                          brackets=rules.requirement(command.instrument))
    flags = fill.flags_of(state, command, stamp, terms, is_settled=market.settled,
                          is_halted=house.is_halted("new-risk", command.account, command.instrument))
    if short:
        flags.append("margin-short")
    event = fill.decide_fill(command, stamp, terms, market, isolated_margin=moved, flags=flags)
    lines = postings(event)
    after = accounts.evolve(state, event, lines)
    if terms.increases and state.is_margined and command.liquidation_order_id is None:
        margin = house.margin(after, pool_name(*terms.key))
        if margin.free < 0:
            # This flag changes neither the postings nor the state after.
            event = event.model_copy(update={"flags": [*flags, "initial-margin-breached"]})
    return house.append(f"account:{command.account}", event, lines, after)


# --- collateral --------------------------------------------------------------------------------------------------


def _apply_deposit(house: ClearingHouse, command: Deposit) -> Recorded:
    house.settle(command.account)
    state = house.accounts[command.account]
    if command.reverses is None:
        return house.append(f"account:{command.account}", movement.decide_deposit(state, command, house.stamp))
    original = _reversed_deposit(house, command)
    return house.append(f"account:{command.account}", movement.decide_reversal(state, command, original, house.stamp))


def _reversed_deposit(house: ClearingHouse, command: Deposit) -> Event | None:
    return house.answered(house.stamp.cause.source, command.reverses or "")


def _refusal(house: ClearingHouse, state: AccountState, asset: str, amount: Decimal, *, pool: str = CROSS,
             watched: list[str] | None = None) -> tuple[PoolMargin, movement.Refusal | None]:
    """Why an amount may not leave a pool, and the pool's figures; calls of all pools count unless `watched` are."""
    rules, margin = house.rules(state), house.margin(state, pool)
    available = movement.withdrawable(
        balance=state.balance(pool, asset), price=house.price_of(rules)(asset), margin=margin,
        tiers=rules.collateral(asset), quantum=house.assets[asset].quantum)
    pools = state.pools() if watched is None else watched
    # Margin that moves from the cross pool into a position does not leave the account.
    leaves = watched is None or pool != CROSS
    house.trigger = (house.position + 1, house.stamp.cause.type)
    return margin, movement.refusal_of(
        state, amount, pools=pools, available=available, margin=margin,
        is_stale=any(house.has_stale_mark(state, name) for name in pools),
        is_halted=leaves and house.is_halted("withdrawals", state.account))


def _apply_withdrawal(house: ClearingHouse, command: Withdraw) -> Recorded:
    house.settle(command.account)
    state = house.accounts[command.account]
    margin, refusal = _refusal(house, state, command.asset, command.amount)
    return house.append(f"account:{command.account}", movement.decide_withdraw(
        state, command, house.stamp, refusal, lambda: house.evidence(state, CROSS, margin)))


def _apply_withdrawal_end(house: ClearingHouse, command: SettleWithdrawal | CancelWithdrawal) -> Recorded:
    house.settle(command.account)
    return house.append(f"account:{command.account}", movement.decide_withdrawal_end(
        house.accounts[command.account], command, house.stamp))


def _apply_transfer(house: ClearingHouse, command: Transfer) -> Recorded:
    house.settle(command.account)
    state = house.accounts[command.account]
    margin, refusal = _refusal(house, state, command.asset, command.amount)
    outcome = house.append(f"account:{command.account}", movement.decide_transfer(
        state, command, house.stamp, refusal, lambda: house.evidence(state, CROSS, margin)))
    # An account that another shard keeps is reached by a record of its own.
    if isinstance(outcome.event, TransferSent) and command.to_account in house.accounts:
        house.settle(command.to_account)
        house.append(f"account:{command.to_account}", movement.receive(
            house.accounts[command.to_account], outcome.event, house.stamp))
    return outcome


def _apply_isolated_margin(house: ClearingHouse, command: MoveIsolatedMargin) -> Recorded:
    house.settle(command.account)
    state = house.accounts[command.account]
    asset = house.markets[command.instrument].settlement_asset
    source = CROSS if command.amount > 0 else pool_name(*movement.isolated_key(state, command))
    margin, refusal = _refusal(house, state, asset, abs(command.amount), pool=source, watched=[source])
    return house.append(f"account:{command.account}", movement.decide_isolated_margin(
        state, command, house.stamp, asset=asset, refusal=refusal,
        evidence=lambda: house.evidence(state, source, margin)))


# --- between shards ----------------------------------------------------------------------------------------------


def _admit_between(house: ClearingHouse, command: ClaimShortfall | TakeTransfer) -> None:
    between_shards.require_part(house.part, command)


def _admit_answer(house: ClearingHouse, command: AnswerShortfall) -> None:
    between_shards.require_part(house.part, command)
    between_shards.require_open_claim(house.claims.get(command.claim_id), command)


def _admit_return(house: ClearingHouse, command: TakeBackTransfer) -> None:
    between_shards.require_part(house.part, command)
    _account(house, command.account)
    _asset(house, command.asset)


def _apply_claim(house: ClearingHouse, command: ClaimShortfall) -> Recorded:
    received = between_shards.receive_claim(command, house.stamp)
    outcome = house.append("claims", received)
    house.draw(received)
    return outcome


def _apply_answer(house: ClearingHouse, command: AnswerShortfall) -> Recorded:
    house.settle(command.account)
    answered, covered = between_shards.answer_claim(command, house.stamp)
    outcome = house.append(f"account:{command.account}", answered)
    house.append(f"account:{command.account}", covered)
    return outcome


def _apply_arrival(house: ClearingHouse, command: TakeTransfer) -> Recorded:
    if command.account in house.accounts:
        house.settle(command.account)
    taken = between_shards.take_transfer(house.accounts.get(command.account), command, house.stamp,
                                         is_listed=command.asset in house.assets)
    if not isinstance(taken, tuple):
        return house.append("transfers", taken)
    outcome = house.append(f"account:{command.account}", taken[0])
    house.append(f"account:{command.account}", taken[1])
    return outcome


def _apply_return(house: ClearingHouse, command: TakeBackTransfer) -> Recorded:
    return _append_to(house, command.account, between_shards.take_back, command)


# --- accounts ----------------------------------------------------------------------------------------------------


def _apply_account(house: ClearingHouse, command: OpenAccount) -> Recorded:
    if command.account in house.accounts:
        house.settle(command.account)
    return house.append(f"account:{command.account}", accounts.decide_open(
        house.accounts.get(command.account), command, house.stamp))


def _apply_settings(house: ClearingHouse, command: ChangeSettings) -> Recorded:
    return _append_to(house, command.account, accounts.decide_settings, command)


def _apply_order(house: ClearingHouse, command: PlaceOrder) -> Recorded:
    return _append_to(house, command.account, accounts.decide_order, command)


def _apply_result(house: ClearingHouse, command: ReportOrder) -> Recorded:
    return _append_to(house, command.account, accounts.decide_result, command)


def _append_to(house: ClearingHouse, account: str, decide: Callable[..., Event], command: Command) -> Recorded:
    house.settle(account)
    return house.append(f"account:{account}", decide(house.accounts[account], command, house.stamp))


# --- markets -----------------------------------------------------------------------------------------------------


def _apply_price(house: ClearingHouse, command: RecordPrice) -> Recorded:
    rule = house.rulebooks.in_force(command.time).oracle if house.rulebooks.publications else house.rules().oracle
    return house.append(f"market:{command.instrument}", markets.decide_price(
        house.markets[command.instrument], command, rule, time=house.stamp.time, cause=house.stamp.cause))


def _apply_funding(house: ClearingHouse, command: MoveFunding) -> Recorded:
    return house.append(f"market:{command.instrument}", markets.decide_funding(
        house.markets[command.instrument], command, time=house.stamp.time, cause=house.stamp.cause))


def _apply_settlement(house: ClearingHouse, command: SettleMarket) -> Recorded:
    """The market first, so that equity at the new mark is known; then every position on it, account by account."""
    settled = markets.decide_settlement(house.markets[command.instrument], command, time=house.stamp.time,
                                        cause=house.stamp.cause)
    outcome = house.append(f"market:{command.instrument}", settled)
    market = house.markets[command.instrument]
    quantum = house.assets[market.settlement_asset].quantum
    for account in sorted(house.accounts.holders(command.instrument), key=str.encode):
        house.settle(account)
        for key in sorted(key for key in house.accounts[account].positions if key[0] == command.instrument):
            house.append(f"account:{account}", accounts.decide_position_settled(
                house.accounts[account], key, market, settled, quantum, house.stamp))
    return outcome


def _apply_asset(house: ClearingHouse, command: ListAsset) -> Recorded:
    return house.append(f"asset:{command.asset}", assets.decide_list(
        house.assets.get(command.asset), command, used=False, time=house.stamp.time, cause=house.stamp.cause))


def _apply_rates(house: ClearingHouse, command: SetInterestRate) -> Recorded:
    return house.append(f"asset:{command.asset}", assets.decide_rates(
        house.assets[command.asset], command, time=house.stamp.time, cause=house.stamp.cause))


def _apply_instrument(house: ClearingHouse, command: ListInstrument) -> Recorded:
    return house.append(f"market:{command.instrument}", markets.decide_list(
        house.markets.get(command.instrument), command, used=False, time=house.stamp.time, cause=house.stamp.cause))


# --- the house ---------------------------------------------------------------------------------------------------


def _apply_fund(house: ClearingHouse, command: MoveFund) -> Recorded:
    fund = house.funds.get((command.fund, command.asset)) or FundState(command.fund, command.asset)
    return house.append(f"fund:{command.fund}:{command.asset}", insurance_fund.decide_move(
        fund, command, time=house.stamp.time, cause=house.stamp.cause))


def _apply_rulebook(house: ClearingHouse, command: PublishRulebook) -> Recorded:
    published = decide_publish(house.rulebooks, command, house.stamp.cause, house.log_time)
    recorded = house.append("rulebook", published)
    if published.effective <= house.log_time:
        house.nominator.rules_changed(house)
    return recorded


def _apply_halt(house: ClearingHouse, command: Halt) -> Recorded:
    return house.append("halts", Halted(time=house.stamp.time, cause=house.stamp.cause, scope=command.scope,
                                        what=command.what, reason=command.reason, by=command.by))


def _apply_resume(house: ClearingHouse, command: Resume) -> Recorded:
    recorded = house.append("halts", Resumed(time=house.stamp.time, cause=house.stamp.cause, scope=command.scope,
                                             what=command.what, reason=command.reason, by=command.by))
    # Whatever the halt held back is judged now, in order.
    house.nominator.rules_changed(house)
    return recorded


def _apply_clock(house: ClearingHouse, command: MoveClock) -> Recorded:
    return house.append("clock", ClockMoved(time=house.stamp.time, cause=house.stamp.cause))


_ADMITTED: dict[type[Command], Callable[[ClearingHouse, Any], None]] = {
    PostFill: _admit_fill, RecordPrice: _admit_price, Deposit: _admit_cash, Withdraw: _admit_cash,
    SettleWithdrawal: _admit_withdrawal_end, CancelWithdrawal: _admit_withdrawal_end, Transfer: _admit_transfer,
    MoveIsolatedMargin: _admit_isolated, OpenAccount: _admit_account, ChangeSettings: _admit_settings,
    PlaceOrder: _admit_order, ReportOrder: _admit_of_account, MoveFunding: _admit_funding,
    SettleMarket: _admit_settlement, ListAsset: _admit_asset, SetInterestRate: _admit_in_asset,
    ListInstrument: _admit_instrument, MoveFund: _admit_in_asset, PublishRulebook: _admit_rulebook,
    Halt: _admit_halt, Resume: _admit_halt, ClaimShortfall: _admit_between, TakeTransfer: _admit_between,
    AnswerShortfall: _admit_answer, TakeBackTransfer: _admit_return}

_APPLIED: dict[type[Command], Callable[[ClearingHouse, Any], Recorded]] = {
    PostFill: _apply_fill, RecordPrice: _apply_price, Deposit: _apply_deposit, Withdraw: _apply_withdrawal,
    SettleWithdrawal: _apply_withdrawal_end, CancelWithdrawal: _apply_withdrawal_end, Transfer: _apply_transfer,
    MoveIsolatedMargin: _apply_isolated_margin, OpenAccount: _apply_account, ChangeSettings: _apply_settings,
    PlaceOrder: _apply_order, ReportOrder: _apply_result, MoveFunding: _apply_funding,
    SettleMarket: _apply_settlement, ListAsset: _apply_asset, SetInterestRate: _apply_rates,
    ListInstrument: _apply_instrument, MoveFund: _apply_fund, PublishRulebook: _apply_rulebook,
    Halt: _apply_halt, Resume: _apply_resume, MoveClock: _apply_clock, ClaimShortfall: _apply_claim,
    AnswerShortfall: _apply_answer, TakeTransfer: _apply_arrival, TakeBackTransfer: _apply_return}
