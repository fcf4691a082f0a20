"""Liquidation by health: tokens for debts, perpetual base and profit taken over, and bankruptcy last.

Each function changes an account just enough that its `liq_end` health reaches zero, within what the liquidator
wants. This file moves no money; it says what would be moved.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import FINEST, ONE, ZERO, divide_down, divide_up, round_up
from ledger.risk.health import (
    HealthAccount,
    HealthPerp,
    HealthToken,
    amount_given,
    amount_taken,
    effective_balances,
    health,
)


class NotLiquidatable(ValueError):
    """There is nothing of the asked kind to liquidate."""


class TokenExchange(NamedTuple):
    """Debt repaid by the liquidator, and the asset given for it."""

    repaid: Decimal
    given: Decimal


def exchange_tokens(account: HealthAccount, asset: str, debt: str, *, most: Decimal,
                    fee_factor: Decimal = ONE) -> TokenExchange:
    """How much of a debt a liquidator repays, and how much of an asset it gets at oracle prices with a fee.

    Formula:  repaid = min(-health / (debt price x (liability weight - fee factor x asset weight)), what the asset
              pays for, the debt, `most`); given = repaid x debt price x fee factor / asset price. Of balance and of
              balance with unsettled results only the smaller part may move, of the debt as of the asset.
    Rounding: repaid up where health sets it, else down; given down; to 18 places.
    Raises:   NotLiquidatable where there is no such debt or no such asset.
    Source:   Mango v4, `token_liq_with_token`.
    """
    held, owed = account.tokens[asset], account.tokens[debt]
    balances = effective_balances(account, "liq_end")
    repayable = min(most, -owed.balance, -balances[debt])
    payable = min(held.balance, balances[asset])
    if repayable <= 0 or payable <= 0:
        raise NotLiquidatable(f"expected a debt in {debt} and a balance in {asset}, came {owed.balance} and "
                              f"{held.balance}, with results {balances[debt]} and {balances[asset]}")
    price = owed.prices.oracle * fee_factor
    freed = owed.price("liq_end", owed=True) - price * held.weights.asset("liq_end")
    total = health(account, "liq_end")
    needed = divide_up(-total, freed, FINEST) if freed > 0 else repayable
    possible = divide_down(payable * held.prices.oracle, price, FINEST)
    repaid = max(min(needed if total < 0 else ZERO, possible, repayable), ZERO)
    return TokenExchange(repaid, divide_down(repaid * price, held.prices.oracle, FINEST))


class PerpTerms(NamedTuple):
    """Fees of a takeover, the lot, how far below zero health may stay, and the most the liquidator wants.

    `most_base` has the sign of the position; `slack` is where the last step stops, a bit below zero.
    """

    most_base: Decimal
    most_result: Decimal
    base_fee: Decimal = ZERO
    result_fee: Decimal = ZERO
    lot: Decimal = ONE
    slack: Decimal = ZERO


class PerpTakeover(NamedTuple):
    """Changes of the account: base, quote, and its settle token; the liquidator's are the opposite."""

    base: Decimal
    quote: Decimal
    settle_token: Decimal


class _Progress:
    """The figures that the steps of a takeover hand on."""

    def __init__(self, perp: HealthPerp, token: HealthToken, balance: Decimal, total: Decimal,
                 terms: PerpTerms) -> None:
        self.perp, self.token, self.terms = perp, token, terms
        self.balance, self.total = balance, total
        self.unweighted = perp.unweighted("liq_end")
        self.taken = self.settled = ZERO
        price, weights = perp.prices.oracle * terms.lot, perp.weights
        if perp.base > 0:
            self.per_lot = price * (ONE - terms.base_fee - weights.asset("liq_end"))
        else:
            self.per_lot = price * (weights.liability("liq_end") - ONE - terms.base_fee)

    def missing(self) -> Decimal:
        """How much settle token would bring health to zero."""
        return amount_given(self.total, self.balance, asset_price=self.token.price("liq_end", owed=False),
                            liability_price=self.token.price("liq_end", owed=True))

    def gain(self, amount: Decimal) -> None:
        """Add settle token to the effective balance."""
        after = self.balance + amount
        self.total += self.token.contribution("liq_end", after) - self.token.contribution("liq_end", self.balance)
        self.balance = after

    def reduce(self, *, limit: Decimal | None, expected: Decimal, actual: Decimal) -> None:
        """Take over lots: `expected` and `actual` settle token gained by each, `limit` on the expected sum."""
        wanted = self.missing() if limit is None else min(self.missing(), limit)
        if expected <= 0:
            return
        left = min(abs(self.perp.base), abs(self.terms.most_base)) - self.taken
        lots = max(ZERO, min(divide_up(wanted, expected, ONE), divide_down(left, self.terms.lot, ONE)))
        self.taken += lots * self.terms.lot
        self.unweighted += lots * self.per_lot
        self.gain(lots * actual)

    def settle(self) -> None:
        """Let the liquidator take over positive results for settle token less the fee, while that helps."""
        per_unit = ONE - self.terms.result_fee - self.perp.result_weight("liq_end")
        if self.unweighted < 0 or per_unit <= 0:
            return
        amount = max(ZERO, min(divide_up(self.missing(), per_unit, FINEST), self.terms.most_result - self.settled,
                               self.unweighted))
        self.settled += amount
        self.unweighted -= amount
        self.gain(amount * per_unit)


def take_over_perp(account: HealthAccount, market: str, terms: PerpTerms) -> PerpTakeover:
    """What a liquidator takes over of a perpetual position and of its positive result.

    Steps:    1. while the unweighted result is negative, base, until it is zero or health is; 2. positive result,
              while health is negative; 3. more base, as far as the result it frees can still be taken over; 4.
              positive result again; 5. where a positive result has weight, base until health is zero.
              Base goes at the oracle price less the fee, in whole lots.
    Rounding: lots up; amounts of result up to 18 places.
    Raises:   NotLiquidatable where `most_base` has the other sign, or closing frees no margin.
    Source:   Mango v4, `perp_liq_base_or_positive_pnl`.
    """
    perp = account.perps[market]
    if terms.most_base * perp.base < 0:
        raise NotLiquidatable(f"expected a size with the sign of the position {perp.base}, came {terms.most_base}")
    at = _Progress(perp, account.tokens[perp.settle_token], effective_balances(account, "liq_end")[perp.settle_token],
                   health(account, "liq_end"), terms)
    if perp.base and at.per_lot <= 0:
        raise NotLiquidatable(f"expected weights of {market} beyond its fee, so that closing frees margin")
    kept, weight = ONE - terms.result_fee, perp.result_weight("liq_end")
    if at.unweighted < 0:
        at.reduce(limit=-at.unweighted, expected=at.per_lot, actual=at.per_lot)
    at.settle()
    if at.unweighted >= 0 and at.settled < terms.most_result:
        at.reduce(limit=terms.most_result - at.settled, expected=at.per_lot * kept, actual=at.per_lot * weight)
    at.settle()
    if at.total < -terms.slack and weight:
        at.reduce(limit=None, expected=at.per_lot * weight, actual=at.per_lot * weight)
    base = -at.taken if perp.base > 0 else at.taken
    price = perp.prices.oracle * (ONE - terms.base_fee if perp.base > 0 else ONE + terms.base_fee)
    return PerpTakeover(base, -base * price - at.settled, at.settled * kept)


class Bankruptcy(NamedTuple):
    """What is settled against the account's collateral, what the fund pays and what it covers by that, what is left
    for all others; all but the fund's payment in the settle token."""

    settled: Decimal
    fund_paid: Decimal
    fund_covered: Decimal
    socialised: Decimal


def settle_or_bankrupt(account: HealthAccount, market: str, *, settle_limit: Decimal, most: Decimal,
                       fund: Decimal, fund_price: Decimal, fund_quantum: Decimal = ONE,
                       fee_factor: Decimal = ONE) -> Bankruptcy:
    """What becomes of a negative result without base: settled, insured, then shared by all.

    Steps:    1. the liquidator takes the loss for settle token, as far as other collateral backs it (maintenance
              health without losses), the account's limit allows and the liquidator wants; 2. only where nothing more
              could be settled: the fund pays ceil(loss x price x fee factor / fund price) for what health lacks, and
              the liquidator takes over what that pays for; 3. only where the fund is empty: the rest is socialised.
    Rounding: the fund's payment up to its quantum; amounts down to 18 places.
    Raises:   NotLiquidatable where the result is not negative.
    Source:   Mango v4, `perp_liq_negative_pnl_or_bankruptcy`.
    """
    perp = account.perps[market]
    token = account.tokens[perp.settle_token]
    result = perp.quote - perp.unpaid_funding + perp.base * perp.prices.oracle
    if result >= 0:
        raise NotLiquidatable(f"expected a negative result in {market}, came {result}")
    backed = amount_taken(health(account, "maint", without_losses=True),
                          effective_balances(account, "maint", without_losses=True)[perp.settle_token],
                          asset_price=token.price("maint", owed=False),
                          liability_price=token.price("maint", owed=True))
    possible = max(min(backed, -result, abs(settle_limit)), ZERO)
    settled = min(possible, most)
    left = -result - settled
    if settled < possible or not left:
        return Bankruptcy(settled, ZERO, ZERO, ZERO)
    missing = amount_given(health(account, "liq_end"), effective_balances(account, "liq_end")[perp.settle_token],
                           asset_price=token.price("liq_end", owed=False),
                           liability_price=token.price("liq_end", owed=True))
    loss = min(left, missing)
    covered = max(min(loss, most - settled), ZERO)
    price = token.prices.oracle * fee_factor
    paid = min(round_up(divide_up(covered * price, fund_price, FINEST), fund_quantum), fund)
    taken = min(divide_down(paid * fund_price, price, FINEST), covered)
    rest = loss - taken if paid == fund else ZERO
    return Bankruptcy(settled, paid, taken, rest)
