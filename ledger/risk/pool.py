"""A pool's figures where a rulebook says more than the sum of its positions: what is put together, and how.

The pool rule of a rulebook says how profit counts (in full, with the balance it settles in, weighted, capped), which
positions are netted, what open orders reserve, and at which rate requirements are valued. Borrowed balances bring a
requirement of their own. Without a pool rule `ledger.risk.margin` sums straight on. This file holds no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, Fraction, WirePositive, divide_down, divide_up
from ledger.risk.collateral import CollateralBlock
from ledger.risk.figures import PoolMargin, PositionMargin, PriceOf, Rules
from ledger.risk.haircuts import Buffers
from ledger.risk.holding import Holding, notional_of, value_of
from ledger.risk.open_orders import OpenOrder, OrderRule, Reserved
from ledger.risk.portfolio import PortfolioRule, Scanned, charged
from ledger.risk.requirement import required
from ledger.risk.scenario import Scenarios
from ledger.risk.schedule import Required, Tiers
from ledger.risk.surroundings import NOTHING_KNOWN, Surroundings, WorsePrice, worth_for_initial


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfitWithBalance(_Block):
    """Unrealised PnL joins the balance of the asset it settles in, and is cut or valued with it.

    Source: Binance multi-assets and portfolio margin, OKX currency equity.
    """

    variant: Literal["with-balance:1"]


class ProfitWeighted(_Block):
    """Of an unrealised profit of the whole pool only a part counts; a loss counts in full."""

    variant: Literal["weighted:1"]
    maintenance: Fraction
    initial: Fraction


class ProfitCapped(_Block):
    """An unrealised profit of the whole pool counts up to a value; a loss counts in full."""

    variant: Literal["capped:1"]
    up_to: Factor


Profit = Annotated[ProfitWithBalance | ProfitWeighted | ProfitCapped, Field(discriminator="variant")]


class Netting(_Block):
    """Positions that hedge each other are margined together: those of one instrument, and those of a group.

    `net`: of each position's own requirement, the share that the net value is of the gross one; `larger-leg`: the
    share that the larger of the long and the short side is of it.
    """

    variant: Literal["netting:1"]
    by: Literal["net", "larger-leg"]
    groups: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _once(self) -> Netting:
        named = [name for group in self.groups.values() for name in group]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise PydanticCustomError("groups", "expected each instrument in one group, {name} stands in two",
                                      {"name": twice})
        return self

    def group_of(self, instrument: str) -> str:
        """What a position is netted within."""
        return next((name for name, group in self.groups.items() if instrument in group), f"={instrument}")


class CollateralRatio(_Block):
    """What new borrowing and withdrawals must leave: (collateral value + profit) / liabilities of at least `minimum`.

    Formula:  initial margin is at least (minimum - 1) x liabilities, so that free collateral is never more than what
              keeps the ratio. Rounding: none.   Source: Binance cross margin (borrowing from a margin level of 1.5,
              transfers out from 2), Synthetix's issuance ratio (docs/margin.md).
    """

    variant: Literal["collateral-ratio:1"]
    minimum: WirePositive

    @model_validator(mode="after")
    def _above_one(self) -> CollateralRatio:
        if self.minimum < 1:
            raise PydanticCustomError("minimum", "expected a minimum of at least 1, came {came}",
                                      {"came": str(self.minimum)})
        return self

    def initial(self, liabilities: Decimal) -> Decimal:
        """The least initial margin of a pool that owes `liabilities`, in the valuation asset."""
        return (self.minimum - ONE) * liabilities


class PoolRule(_Block):
    """How the figures of a pool are put together."""

    variant: Literal["pool:1"]
    profit: Profit | None = None
    netting: Netting | None = None
    orders: OrderRule | None = None
    # Positions under `scenarios:1` together; their requirements are valued at marks, and netting leaves them out.
    portfolio: PortfolioRule | None = None
    borrowing: CollateralRatio | None = None
    # The price of balances where new risk is judged; absent: the mark.
    initial_prices: WorsePrice | None = None
    # The rate at which requirements in another asset are valued: its mark, or the ask rate of its buffers.
    requirement_at: Literal["mark", "ask"] = "mark"


class BorrowTiers(_Block):
    """What a borrowed balance requires: marginal tiers of its value, as `tiers:1` has them, in the valuation asset."""

    variant: Literal["borrow-tiers:1"]
    tiers: Tiers

    def margins(self, value: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) of a borrowed value."""
        return self.tiers.margins(value)


class AssetSums(NamedTuple):
    """What a pool has in one asset, in units of it: balance, loan, profit and requirements that settle in it."""

    asset: str
    balance: Decimal = ZERO
    loan: Decimal = ZERO
    pnl: Decimal = ZERO
    accrued: Decimal = ZERO
    initial: Decimal = ZERO
    maintenance: Decimal = ZERO
    closing_fee: Decimal = ZERO
    order_loss: Decimal = ZERO

    def with_position(self, pnl: Decimal, accrued: Decimal, need: Required) -> AssetSums:
        """The sums with a position's part added."""
        return self._replace(pnl=self.pnl + pnl, accrued=self.accrued + accrued, initial=self.initial + need.initial,
                             maintenance=self.maintenance + need.maintenance,
                             closing_fee=self.closing_fee + need.closing_fee)

    @property
    def credit(self) -> Decimal:
        """Balance less loan."""
        return self.balance - self.loan


class Weighed(NamedTuple):
    """The same in the valuation asset: gross value, value after haircut, and the rest."""

    asset: str
    gross: Decimal
    weighed: Decimal
    pnl: Decimal = ZERO
    accrued: Decimal = ZERO
    initial: Decimal = ZERO
    maintenance: Decimal = ZERO
    closing_fee: Decimal = ZERO
    order_loss: Decimal = ZERO
    # Whether profit and accrued funding are within gross and weighed already.
    together: bool = False
    # By how much less `weighed` is where new risk is judged.
    less_for_initial: Decimal = ZERO


def weigh(sums: AssetSums, price: Decimal, block: CollateralBlock, rule: PoolRule | None = None,
          borrow: BorrowTiers | None = None) -> Weighed:
    """One asset's sums in the valuation asset, its borrowed balance's requirement added.

    A loan that is not told apart is a negative balance. Rounding: none.
    """
    together = rule is not None and isinstance(rule.profit, ProfitWithBalance)
    amount = sums.credit + (sums.pnl + sums.accrued if together else ZERO)
    at = price
    if rule is not None and rule.requirement_at == "ask" and isinstance(block, Buffers):
        at = block.ask_rate(price)
    initial, maintenance = sums.initial * at, sums.maintenance * at
    owed = sums.loan or max(ZERO, -sums.balance)
    if borrow is not None and owed:
        more = borrow.margins(owed * price)
        initial, maintenance = initial + more[0], maintenance + more[1]
    return Weighed(sums.asset, amount * price, block.worth(amount, price), sums.pnl * price, sums.accrued * price,
                   initial, maintenance, sums.closing_fee * at, sums.order_loss * at, together)


def total(rows: Iterable[Weighed], rule: PoolRule | None = None, *, positions: Sequence[PositionMargin] = (),
          unpriced: Sequence[str] = ()) -> PoolMargin:
    """The pool's figures from its assets'. Rounding: none.

    account equity = gross values + profit; margin equity = weighed values + profit as the rule treats it - loss that
    open orders would make; the equity that initial margin is held against may treat profit harder (`initial_equity`).
    """
    gross = collateral = liabilities = pnl = accrued = apart = initial = maintenance = fees = loss = less = ZERO
    for row in rows:
        less += row.less_for_initial
        gross += row.gross
        collateral += max(row.weighed, ZERO)
        liabilities -= min(row.weighed, ZERO)
        pnl += row.pnl
        accrued += row.accrued
        if not row.together:
            apart += row.pnl + row.accrued
        initial += row.initial
        maintenance += row.maintenance
        fees += row.closing_fee
        loss += row.order_loss
    if rule is not None and rule.borrowing is not None:
        initial = max(initial, rule.borrowing.initial(liabilities))
    for_maintenance, for_initial = _treated(apart, rule)
    rest = collateral - liabilities - loss
    return PoolMargin(gross + apart, rest + for_maintenance, collateral, liabilities, pnl, accrued, initial,
                      maintenance, tuple(unpriced), tuple(positions), rest + for_initial - less, fees, loss)


def _treated(profit: Decimal, rule: PoolRule | None) -> tuple[Decimal, Decimal]:
    """(against maintenance, against initial margin): what counts of an unrealised profit."""
    treatment = None if rule is None else rule.profit
    if profit <= 0 or treatment is None:
        return profit, profit
    match treatment:
        case ProfitWeighted():
            return profit * treatment.maintenance, profit * treatment.initial
        case ProfitCapped():
            return min(profit, treatment.up_to), min(profit, treatment.up_to)
        case ProfitWithBalance():
            return profit, profit


def spendable(pool: PoolMargin, block: CollateralBlock, price: Decimal) -> Decimal:
    """What is free in units of one asset, valued at its ask rate where it has buffers; down to 18 places.

    Source: Binance multi-assets mode, available for order by asset.
    """
    return divide_down(pool.free, block.ask_rate(price) if isinstance(block, Buffers) else price, FINEST)


# --- positions and orders ----------------------------------------------------------------------------------------


def evaluate_whole(balances: Mapping[str, Decimal], holdings: Iterable[Holding], price_of: PriceOf, rules: Rules, *,
                   orders: Iterable[OpenOrder] = (), loans: Mapping[str, Decimal] | None = None,
                   around: Surroundings = NOTHING_KNOWN) -> PoolMargin:
    """The margin of one pool under its rulebook's pool rule; `ledger.risk.margin.evaluate_pool` says what is what.

    `loans`: borrowed amounts told apart from balances (which then hold what was borrowed).
    Rounding: none but what a division needs, to 18 places, against the account.
    """
    rule = rules.pool
    sums: dict[str, AssetSums] = {}
    for asset, amount in balances.items():
        if amount:
            sums[asset] = AssetSums(asset, amount)
    for asset, amount in (loans or {}).items():
        sums[asset] = sums.get(asset, AssetSums(asset))._replace(loan=amount)
    kept = list(holdings)
    needs = _needs(kept, rules)
    shares, charge = _portfolio(kept, needs, price_of, rules)
    rows: list[tuple[Holding, Decimal, Decimal, Required]] = []
    settled: dict[str, list[Decimal]] = {}
    for holding, (value, notional, need) in zip(kept, needs, strict=True):
        pnl = value - holding.cost
        parts = settled.setdefault(holding.settlement_asset, [ZERO] * 5)
        for place, part in enumerate((pnl, holding.accrued, *need)):
            parts[place] += part
        rows.append((holding, notional, pnl, need))
    for asset, (pnl, accrued, *needed) in settled.items():
        sums[asset] = sums.get(asset, AssetSums(asset)).with_position(pnl, accrued, Required(*needed))
    if rule is not None and rule.orders is not None:
        for asset, reserved in rule.orders.reserved(list(orders), kept, rules.requirement).items():
            sums[asset] = _reserved(sums.get(asset, AssetSums(asset)), reserved)
    unpriced, weighed = [], []
    for asset, row in sums.items():
        price = price_of(asset)
        if price is not None:
            found = weigh(row, price, rules.collateral(asset), rule, rules.borrowing(asset))
            weighed.append(found if around is NOTHING_KNOWN else _for_initial(found, row, price, rules, around))
        elif row.credit < 0 or row != AssetSums(asset, row.balance, row.loan):
            unpriced.append(asset)
    if charge is not None:
        weighed.append(charge)
    positions = [_position(row, price, shares.get(index)) for index, row in enumerate(rows)
                 if (price := price_of(row[0].settlement_asset)) is not None]
    return total(weighed, rule, positions=positions, unpriced=unpriced)


def _for_initial(found: Weighed, sums: AssetSums, price: Decimal, rules: Rules, around: Surroundings) -> Weighed:
    """By how much less an asset counts where new risk is judged, at deposits of all and average prices."""
    asset = sums.asset
    amount = sums.credit + (sums.pnl + sums.accrued if found.together else ZERO)
    worth = worth_for_initial(
        amount, price, rules.collateral(asset), average=around.averages.get(asset),
        prices=None if rules.pool is None else rules.pool.initial_prices, deposits=around.deposits.get(asset),
        scaling=rules.scaling(asset))
    return found._replace(less_for_initial=found.weighed - worth)


def _position(row: tuple[Holding, Decimal, Decimal, Required], price: Decimal,
              share: tuple[Decimal, Decimal] | None) -> PositionMargin:
    holding, notional, pnl, need = row
    initial, maintenance = (need.initial * price, need.maintenance * price) if share is None else share
    return PositionMargin(holding, notional * price, pnl * price, initial, maintenance, need.closing_fee * price)


def _portfolio(holdings: Sequence[Holding], needs: Sequence[tuple[Decimal, Decimal, Required]], price_of: PriceOf,
               rules: Rules) -> tuple[dict[int, tuple[Decimal, Decimal]], Weighed | None]:
    """The positions' shares of what the portfolio is charged, by place, and the whole charge, in the valuation asset.

    A position that settles in an asset without a price is left out: such a pool is unpriced.
    """
    rule = None if rules.pool is None else rules.pool.portfolio
    if rule is None:
        return {}, None
    places, rows = [], []
    for index, (holding, (_, notional, _)) in enumerate(zip(holdings, needs, strict=True)):
        block, price = rules.requirement(holding.instrument), price_of(holding.settlement_asset)
        if isinstance(block, Scenarios) and price is not None:
            places.append(index)
            rows.append(Scanned(holding, notional, price, block))
    if not rows:
        return {}, None
    found = charged(rows, rule)
    whole = Weighed("", ZERO, ZERO, initial=sum((row.initial for row in found.charges), ZERO),
                    maintenance=sum((row.maintenance for row in found.charges), ZERO))
    return dict(zip(places, found.shares, strict=True)), whole


def _reserved(sums: AssetSums, reserved: Reserved) -> AssetSums:
    return sums._replace(initial=sums.initial + reserved.initial, order_loss=sums.order_loss + reserved.loss)


def measured(holding: Holding) -> tuple[Decimal, Decimal]:
    """(value, notional) of a position at its mark."""
    if holding.contract_type == "inverse":
        terms = (holding.size, holding.contract_size, holding.mark)
        return (value_of(size=terms[0], contract_size=terms[1], price=terms[2], contract_type="inverse"),
                notional_of(size=terms[0], contract_size=terms[1], price=terms[2], contract_type="inverse"))
    value = holding.size * holding.contract_size * holding.mark
    return value, abs(value)


def _needs(holdings: Sequence[Holding], rules: Rules) -> list[tuple[Decimal, Decimal, Required]]:
    """(value, notional, requirement) of each position, after netting."""
    found = []
    for holding in holdings:
        value, notional = measured(holding)
        block = rules.requirement(holding.instrument)
        # What the portfolio is charged is summed apart.
        need = Required(ZERO, ZERO) if isinstance(block, Scenarios) else required(block, holding, notional)
        found.append((value, notional, need))
    netting = None if rules.pool is None else rules.pool.netting
    if netting is None:
        return found
    groups: dict[tuple[str, str], list[int]] = {}
    for index, holding in enumerate(holdings):
        if isinstance(rules.requirement(holding.instrument), Scenarios):
            continue
        groups.setdefault((netting.group_of(holding.instrument), holding.settlement_asset), []).append(index)
    for members in groups.values():
        if len(members) > 1:
            _net(holdings, found, members, netting)
    return found


def _net(holdings: Sequence[Holding], found: list[tuple[Decimal, Decimal, Required]], members: Sequence[int],
         netting: Netting) -> None:
    """Scale the requirements of a group's positions to that of its net, or of its larger leg."""
    longs = sum((found[index][1] for index in members if holdings[index].size > 0), ZERO)
    shorts = sum((found[index][1] for index in members if holdings[index].size < 0), ZERO)
    whole = longs + shorts
    if not whole:
        return
    counted = abs(longs - shorts) if netting.by == "net" else max(longs, shorts)
    for index in members:
        value, notional, need = found[index]
        # The share counted of each, up, so that the group's sum is never below the exact figure.
        found[index] = value, notional, Required(*(divide_up(part * counted, whole, FINEST) for part in need))
