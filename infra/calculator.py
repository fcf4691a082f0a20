"""The margin calculator: a portfolio that somebody made up, its marks and a rulebook; what margin says of it.

`answer(bytes)` is contracts section 3 as a function, for the command and for HTTP alike: stateless, nothing is
recorded. `BadInput` carries the JSON path of every field at fault and what was expected there. The formulas are
those of the ledger's own decisions (`ledger.risk`), under the same rulebooks. This file never reads a file, a ledger
or a clock.

Neighbours: `infra.margin_question` (what is asked), `projections.figures` (what is computed), `infra.explanation`
(the sentences).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from infra.explanation import Cure, explain
from infra.input_fault import InputFault
from infra.margin_question import (
    FAULTS_MAX,
    POSITIONS_MAX,
    REQUEST_BYTES_MAX,
    BadInput,
    InstrumentInput,
    MarginInput,
    PositionInput,
    read_question,
    rulebook_of,
)
from infra.order_input import open_orders
from infra.streams.records import shown
from ledger.amounts import (
    ONE,
    ZERO,
    Number,
    divide_down,
    exact,
    is_multiple,
    plain,
    round_up,
)
from ledger.postings import CROSS, pool_name
from ledger.risk.holding import Holding, cost_of
from ledger.risk.margin import PoolMargin, Status, worst_status
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.open_orders import OpenOrder
from ledger.risk.orders import OrderTerms, reserved_margin
from ledger.risk.requirement import with_leverage
from ledger.risk.solvers import size_to_target
from ledger.risk.surroundings import Surroundings
from ledger.rulebook import Rulebook
from projections.figures import (
    PoolFigures,
    Valuation,
    free_collateral,
    loan_to_value,
    pool_figures,
    ratio,
    withdrawable_value,
)

# Named here by all who ask.
__all__ = ["POSITIONS_MAX", "REQUEST_BYTES_MAX", "BadInput", "MarginAnswer", "MarginInput", "answer", "read_question",
           "rulebook_of"]

# Assets are not listed here, so their quanta are unknown; requirements that must be rounded are, up to this.
QUANTUM: Final = Decimal("0.00000001")

_BASE_QUOTE: Final = re.compile(r"([^\s-]+)-([^\s-]+)").fullmatch


# --- output ------------------------------------------------------------------------------------------------------


class Figures(BaseModel):
    """The figures of a pool, or of all together; amounts in the valuation asset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account_equity: Number
    margin_equity: Number
    collateral_value: Number
    unrealised_pnl: Number
    initial_margin: Number
    maintenance_margin: Number
    free_collateral: Number
    # Of the cross pool: the lesser of free collateral and collateral value; zero below the call line.
    withdrawable: Number
    liabilities: Number
    # Liabilities / collateral value, and the inverse; null for debt without collateral, and without debt.
    ltv: Number | None
    health_factor: Number | None
    margin_ratio: Number | None
    status: Status


class Exposure(BaseModel):
    """What moves with one underlying: delta in units of it, notionals in the valuation asset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    underlying: str
    net_delta: Number
    net_notional: Number
    gross_notional: Number


class PositionAnswer(BaseModel):
    """A position; figures in the valuation asset are null where its settlement asset has no mark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instrument: str
    signed_size: Number
    mark: Number
    notional: Number | None
    unrealised_pnl: Number | None
    initial_margin: Number | None
    maintenance_margin: Number | None
    liquidation_price: Number | None
    bankruptcy_price: Number | None


class _Named(BaseModel):
    pool: str


class PoolAnswer(Figures, _Named):
    """A pool on its own: no pool ever pays for another."""

    positions: list[PositionAnswer]


class MarginAnswer(Figures):
    """The whole answer: sums over the pools, the worst of their statuses."""

    exposures: list[Exposure]
    pools: list[PoolAnswer]
    explanation: list[str]


# --- from bytes to an answer -------------------------------------------------------------------------------------


def answer(raw: bytes, *, with_prices: bool = True) -> MarginAnswer:
    """The answer to a question in JSON; BadInput where it cannot be read.

    Without `with_prices` no position has a liquidation or bankruptcy price, and nothing is explained: a table of many
    answers needs neither.
    """
    question = read_question(raw)
    with exact():
        portfolio = _Portfolio(question, rulebook_of(question))
        return _answer(portfolio, with_prices)


# --- the portfolio -----------------------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """What an instrument is, as far as margin cares; an inverse contract settles in its base."""

    settled_in: str
    underlying: str
    contract_size: Decimal
    contract_type: Literal["linear", "inverse"]
    open_interest: Decimal | None = None


class _Portfolio:
    """The question made whole: every position with its terms, mark and pool; BadInput where they do not fit."""

    def __init__(self, question: MarginInput, rules: Rulebook) -> None:
        self.question, self.rules = question, rules
        self.notes = [*_ignored(question)]
        self.terms: dict[str, _Terms] = {}
        self.valuation = Valuation(question.marks, self._path_of)
        self._pools: dict[str, tuple[dict[str, Decimal], list[Holding]]] = {
            CROSS: (dict(question.account.collateral), [])}
        faults = list(self._described())
        for index, position in enumerate(question.account.positions):
            faults.extend(self._take(f"account.positions[{index}]", position))
        self.orders: list[OpenOrder] = []
        faults.extend(self._ordered())
        faults.extend(self._beyond())
        if faults:
            raise BadInput(list(dict.fromkeys(faults))[:FAULTS_MAX])
        if question.account.orders and rules.orders is None and (rules.pool is None or rules.pool.orders is None):
            self.notes.append(f"Open orders reserve no margin under rulebook {rules.name} {rules.version}.")

    def reserved(self) -> Decimal:
        """Initial margin that open orders reserve by the rulebook's `orders`, in the valuation asset.

        As in the ledger it is beside that of all positions on an instrument, and of the cross pool.
        """
        total = ZERO
        if self.rules.orders is None:
            return total
        for name in sorted({order.instrument for order in self.orders}):
            orders = [order for order in self.orders if order.instrument == name]
            size = sum((row.size for _, rows in self._pools.values() for row in rows if row.instrument == name), ZERO)
            first = orders[0]
            needed = reserved_margin(
                [OrderTerms("buy" if row.size > 0 else "sell", abs(row.size), row.price, row.reduce_only)
                 for row in orders], size=size, mark=first.mark, contract_size=first.contract_size,
                contract_type=first.contract_type, quantum=QUANTUM, brackets=self.rules.requirement(name),
                leverage=first.leverage)
            total += needed * (self.valuation.price_of(first.settlement_asset) or ZERO)
        return total

    @property
    def around(self) -> Surroundings:
        """Deposits of all, and average worths of what is held."""
        asked = self.question
        valuation = Valuation({**asked.marks, **asked.averages}, self._path_of)
        worths = {asset: valuation.price_of(asset) for asset in asked.account.collateral}
        return Surroundings(asked.deposits, {asset: worth for asset, worth in worths.items() if worth is not None})

    def _beyond(self) -> Iterator[InputFault]:
        """What the rulebook asks beyond the account, and the question does not say."""
        asked, rules = self.question, self.rules
        known = {row.instrument for row in asked.instruments if row.open_interest is not None}
        for name in dict.fromkeys(row.instrument for row in asked.account.positions):
            if isinstance(rules.requirement(name), OpenInterestFraction) and name not in known:
                yield InputFault("instruments", f"expected the open_interest of {name}, which the rulebook's "
                                                "requirement goes by, came nothing")
        for asset, amount in asked.account.collateral.items():
            if amount > 0 and rules.scaling(asset) is not None and asset not in asked.deposits:
                yield InputFault(f"deposits.{asset}", f"expected the deposits of {asset} of all accounts, which the "
                                                      "rulebook's scaling goes by, came nothing")
            if rules.pool is not None and rules.pool.initial_prices is not None:
                for mark in self._path_of(asset) or ():
                    if mark not in asked.averages:
                        yield InputFault(f"averages.{mark}", f"expected the average of {mark}, which the rulebook's "
                                                             "initial_prices go by, came nothing")

    def pools(self) -> Iterator[tuple[str, Mapping[str, Decimal], Sequence[Holding]]]:
        """(name, balances, holdings) of every pool, cross first."""
        for name, (balances, holdings) in self._pools.items():
            yield name, balances, holdings

    def _terms_of(self, name: str) -> _Terms | None:
        """An instrument's terms: as described, else guessed from a name BASE-QUOTE."""
        if name not in self.terms and (match := _BASE_QUOTE(name)) is not None:
            self.terms[name] = _Terms(match[2], match[1], ONE, "linear")
        return self.terms.get(name)

    def _ordered(self) -> Iterator[InputFault]:
        """Take the open orders, or say why they cannot be."""
        account = self.question.account
        leverages = {row.instrument: row.leverage for row in account.positions}
        for row in open_orders(account.orders, self._terms_of, self.question.marks, leverages, QUANTUM):
            if isinstance(row, OpenOrder):
                self.orders.append(row)
            else:
                yield InputFault(*row)

    def _path_of(self, asset: str) -> Sequence[str] | None:
        if asset == self.rules.valuation_asset:
            return ()
        marks = self.question.marks
        pair = f"{asset}-{self.rules.valuation_asset}"
        return (asset,) if asset in marks else (pair,) if pair in marks else None

    def _described(self) -> Iterator[InputFault]:
        held = {position.instrument for position in self.question.account.positions}
        for index, row in enumerate(self.question.instruments):
            path = f"instruments[{index}]"
            if row.instrument in self.terms:
                yield InputFault(f"{path}.instrument", f"expected each instrument once, came {row.instrument!r} again")
            if row.instrument in held and row.contract_type not in ("linear", "inverse"):
                yield InputFault(f"{path}.contract_type", f"expected 'linear' or 'inverse' in this version, came "
                                                          f"{shown(row.contract_type)}")
            inverse = row.contract_type == "inverse"
            self.terms[row.instrument] = _Terms(
                row.base if inverse else row.quote, row.underlying or row.base, row.contract_size,
                "inverse" if inverse else "linear", row.open_interest)

    def _take(self, path: str, position: PositionInput) -> Iterator[InputFault]:
        """Put a position into its pool, or say why it cannot be."""
        faults = list(_unsound(path, position, self.question.instruments))
        name = position.instrument
        if self._terms_of(name) is None:
            faults.append(InputFault(f"{path}.instrument", "expected an instrument of `instruments`, or a linear "
                                                           f"BASE-QUOTE, came {shown(name)}"))
        mark = self.question.marks.get(name)
        if mark is None:
            faults.append(InputFault(f"marks.{name}", f"expected the mark of {name}, which is held, came nothing"))
        pool = pool_name(name, position.margin_mode, position.position_side)
        balances, holdings = self._pools.setdefault(pool, ({}, []))
        key = (name, position.margin_mode, position.position_side)
        if any(holding[:3] == key for holding in holdings):
            faults.append(InputFault(path, f"expected one {position.margin_mode} position {position.position_side} in "
                                           f"{name}, came another"))
        if faults or mark is None:
            yield from faults
            return
        terms = self.terms[name]
        cost = cost_of(size=position.signed_size, contract_size=terms.contract_size, price=position.entry_price,
                       contract_type=terms.contract_type, quantum=QUANTUM)
        holdings.append(Holding(*key, position.signed_size, cost, mark, ZERO, terms.contract_size, terms.settled_in,
                                QUANTUM, position.leverage, terms.contract_type, terms.open_interest))
        if pool != CROSS:
            balances[terms.settled_in] = self._isolated_margin(position, abs(cost), terms)

    def _isolated_margin(self, position: PositionInput, notional: Decimal, terms: _Terms) -> Decimal:
        """What was put beside an isolated position; where not given, its initial margin at the entry price."""
        if position.isolated_margin is not None:
            return position.isolated_margin
        initial, _ = self.rules.requirement(position.instrument).margins(notional)
        margin = round_up(with_leverage(initial, notional, position.leverage, QUANTUM), QUANTUM)
        self.notes.append(f"The isolated position in {position.instrument} names no isolated_margin: taken as its "
                          f"initial margin at the entry price, {plain(margin)} {terms.settled_in}, beside the "
                          "collateral.")
        return margin


def _unsound(path: str, position: PositionInput, instruments: Sequence[InstrumentInput]) -> Iterator[InputFault]:
    size, side = position.signed_size, position.position_side
    if not size:
        yield InputFault(f"{path}.signed_size", "expected a size other than 0, came 0")
    if (side == "long" and size < 0) or (side == "short" and size > 0):
        yield InputFault(f"{path}.signed_size", f"expected a {'positive' if side == 'long' else 'negative'} size of a "
                                                f"{side} position, came {plain(size)}")
    if position.margin_mode == "cross" and position.isolated_margin is not None:
        yield InputFault(f"{path}.isolated_margin", "expected none for a cross position, came "
                                                    f"{plain(position.isolated_margin)}")
    for row in instruments:
        if row.instrument == position.instrument and row.lot_size and not is_multiple(size, row.lot_size):
            yield InputFault(f"{path}.signed_size", f"expected a multiple of the lot size {plain(row.lot_size)}, came "
                                                    f"{plain(size)}")


def _ignored(question: MarginInput) -> Iterator[str]:
    """Fields that the contract does not know: ignored, as it says, but not silently."""
    account = question.account
    places: list[tuple[str, BaseModel]] = [("", question), ("account.", account)]
    places += [(f"account.positions[{index}].", row) for index, row in enumerate(account.positions)]
    names = [f"{path}{name}" for path, row in places for name in row.model_extra or ()]
    if names:
        more = f" and {len(names) - FAULTS_MAX} more" if len(names) > FAULTS_MAX else ""
        yield f"Fields that are not known were ignored: {', '.join(map(shown, names[:FAULTS_MAX]))}{more}."


# --- the answer --------------------------------------------------------------------------------------------------


def _answer(portfolio: _Portfolio, with_prices: bool) -> MarginAnswer:
    rules, valuation = portfolio.rules, portfolio.valuation
    pools = [pool_figures(name, balances, holdings, valuation, rules, portfolio.orders if name == CROSS else (),
                          portfolio.around, with_prices=with_prices)
             for name, balances, holdings in portfolio.pools()]
    if reserved := portfolio.reserved():
        cross = pools[0].margin
        pools[0] = pools[0]._replace(margin=cross._replace(initial_margin=cross.initial_margin + reserved))
    overall = worst_status(pool.status for pool in pools)
    total = _sum([pool.margin for pool in pools])
    available = sum((_withdrawable(pool) for pool in pools), ZERO)
    return MarginAnswer(
        **_figures(total, overall, available), exposures=_exposures(portfolio, pools),
        pools=[_pool(pool) for pool in pools],
        explanation=[*explain(pools, portfolio.question.account.collateral, valuation, rules,
                              _cures(portfolio, pools)), *portfolio.notes] if with_prices else [])


def _cures(portfolio: _Portfolio, pools: Sequence[PoolFigures]) -> dict[str, Cure]:
    """What closing the position that costs most would do for the pools that are called or liquidated."""
    lines = portfolio.rules.thresholds
    targets: dict[Status, Decimal] = {"margin-call": lines.cure, "liquidation": lines.stop, "bankrupt": lines.stop}
    lots = {row.instrument: row.lot_size for row in portfolio.question.instruments}
    found = {}
    for pool, (_, balances, holdings) in zip(pools, portfolio.pools(), strict=True):
        if pool.status in targets and pool.margin.positions:
            held = max(pool.margin.positions, key=lambda row: row.maintenance_margin).holding
            found[pool.pool] = Cure(held, size_to_target(
                balances, holdings, held, portfolio.valuation.price_of, portfolio.rules, target=targets[pool.status],
                lot_size=lots.get(held.instrument) or QUANTUM))
    return found


def _sum(margins: Sequence[PoolMargin]) -> PoolMargin:
    """The pools' amounts added up."""
    def total(name: str) -> Decimal:
        return sum((getattr(margin, name) for margin in margins), ZERO)

    return PoolMargin(
        account_equity=total("account_equity"), margin_equity=total("margin_equity"),
        collateral_value=total("collateral_value"), liabilities=total("liabilities"),
        unrealised_pnl=total("unrealised_pnl"), accrued=ZERO, initial_margin=total("initial_margin"),
        maintenance_margin=total("maintenance_margin"), unpriced=(), positions=(),
        initial_equity=sum((margin.free + margin.initial_margin for margin in margins), ZERO))


def _figures(margin: PoolMargin, status: Status, available: Decimal) -> dict[str, Any]:
    return {
        "account_equity": margin.account_equity, "margin_equity": margin.margin_equity,
        "collateral_value": margin.collateral_value, "unrealised_pnl": margin.unrealised_pnl,
        "initial_margin": margin.initial_margin, "maintenance_margin": margin.maintenance_margin,
        "free_collateral": free_collateral(margin), "withdrawable": available, "liabilities": margin.liabilities,
        "ltv": loan_to_value(liabilities=margin.liabilities, collateral_value=margin.collateral_value),
        "health_factor": ratio(margin.collateral_value, margin.liabilities), "margin_ratio": margin.ratio,
        "status": status}


def _withdrawable(pool: PoolFigures) -> Decimal:
    """Only the cross pool pays out, and nothing while it is, or would be, called."""
    return withdrawable_value(pool.margin) if pool.pool == CROSS and pool.status in ("healthy", "warning") else ZERO


def _pool(pool: PoolFigures) -> PoolAnswer:
    rows = []
    for row in pool.positions:
        margin = row.margin
        rows.append(PositionAnswer(
            instrument=row.holding.instrument, signed_size=row.holding.size, mark=row.holding.mark,
            notional=margin and margin.notional, unrealised_pnl=margin and margin.unrealised_pnl,
            initial_margin=margin and margin.initial_margin, maintenance_margin=margin and margin.maintenance_margin,
            liquidation_price=row.liquidation_price, bankruptcy_price=row.bankruptcy_price))
    return PoolAnswer(pool=pool.pool, **_figures(pool.margin, pool.status, _withdrawable(pool)), positions=rows)


def _delta(holding: Holding) -> Decimal:
    """Units of the underlying: size x contract size, which of an inverse contract is in quote and divided by mark."""
    contracts = holding.size * holding.contract_size
    return divide_down(contracts, holding.mark, QUANTUM) if holding.contract_type == "inverse" else contracts


def _exposures(portfolio: _Portfolio, pools: Sequence[PoolFigures]) -> list[Exposure]:
    """By underlying; positions only, and only those that can be valued."""
    sums: dict[str, list[Decimal]] = {}
    for pool in pools:
        for row in pool.positions:
            if row.margin is None:
                continue
            holding = row.holding
            found = sums.setdefault(portfolio.terms[holding.instrument].underlying, [ZERO, ZERO, ZERO])
            found[0] += _delta(holding)
            found[1] += row.margin.notional if holding.size > 0 else -row.margin.notional
            found[2] += row.margin.notional
    return [Exposure(underlying=name, net_delta=delta, net_notional=net, gross_notional=gross)
            for name, (delta, net, gross) in sorted(sums.items())]
