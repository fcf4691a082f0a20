"""dYdX v4: the cases' inputs as quote accounts and markets; every figure comes from `ledger.risk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ledger.risk.deleveraging import NotDeleverable, deleverage, deleveraging_price
from ledger.risk.fillable import (
    FillableRule,
    InvalidFill,
    InvalidSize,
    bankruptcy_quote,
    close_against,
    closing_size,
    fillable_price,
    fund_delta,
    notional_bounds,
)
from ledger.risk.open_interest import PPM, OpenInterestFraction
from ledger.risk.quote_account import (
    Change,
    QuoteAccount,
    QuoteMarket,
    QuotePosition,
    changed,
    check_changes,
    funding_credit,
    notional,
    position_risk,
    risk,
    settled,
)
from ledger.risk.transition import Risk, compare_risk, without_worsening

Case = Mapping[str, Any]
D = Decimal


def _fractions(row: Mapping[str, Any]) -> OpenInterestFraction:
    return OpenInterestFraction(
        variant="open-interest:1", initial=D(row["imf"]), maintenance_fraction=D(row.get("maintenance_fraction", "0")),
        lower_cap=D(row.get("oi_lower_cap", "0")), upper_cap=D(row.get("oi_upper_cap", "0")))


def _market(row: Mapping[str, Any]) -> QuoteMarket:
    return QuoteMarket(str(row["id"]), D(row["price"]), _fractions(row), D(row["open_interest"]),
                       D(row.get("funding_index", "0")), bool(row.get("isolated", False)))


def _markets(inputs: Mapping[str, Any]) -> dict[str, QuoteMarket]:
    return {str(row["id"]): _market(row) for row in inputs["markets"]}


def _account(row: Mapping[str, Any]) -> QuoteAccount:
    return QuoteAccount(D(row["usdc"]), tuple(
        QuotePosition(str(held["market"]), D(held["size"]), D(held["quote_balance"]), D(held["funding_index"]))
        for held in row["positions"]))


def _change(row: Mapping[str, Any]) -> Change:
    return Change(D(row["usdc_delta"]), tuple((str(delta["market"]), D(delta["size"]))
                                              for delta in row["position_deltas"]))


def _rule(row: Mapping[str, Any]) -> FillableRule:
    return FillableRule(
        variant="fillable:1", max_fee=D(row["max_liquidation_fee"]),
        bankruptcy_adjustment=D(row["bankruptcy_adjustment"]), spread_to_maintenance=D(row["spread_to_maintenance"]),
        min_position_notional=D(row["min_position_notional"]), max_position_portion=D(row["max_position_portion"]),
        max_notional_per_block=D(row["max_notional_per_block"]))


def _risk(row: Mapping[str, Any], prefix: str = "") -> Risk:
    return Risk(*(D(row.get(prefix + name, "0")) for name in ("equity", "initial_margin", "maintenance_margin")))


def _asked(case: Case, figures: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: figures[name] for name in case["expected"] if name in figures}


def _account_shape(account: QuoteAccount) -> Mapping[str, Any]:
    return {"usdc": account.balance, "positions": [
        {"market": int(row.market), "size": row.size, "quote_balance": row.quote, "funding_index": row.funding_index}
        for row in account.positions]}


def account_risk(case: Case) -> Mapping[str, Any]:
    inputs, markets = case["inputs"], _markets(case["inputs"])
    account = changed(settled(_account(inputs["account"]), markets), _change(inputs["update"]), markets)
    return _asked(case, risk(account, markets)._asdict())


def liquidatable(case: Case) -> Mapping[str, Any]:
    markets = _markets(case["inputs"])
    return {"liquidatable": risk(settled(_account(case["inputs"]["account"]), markets), markets).liquidatable}


def bankruptcy_price(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    try:
        return {"bankruptcy_quote": bankruptcy_quote(
            _account(inputs["account"]), _markets(inputs), str(inputs["market"]), D(inputs["size_delta"]))}
    except InvalidSize:
        return {"error": "invalid_size_delta"}


def boundary(case: Case) -> Mapping[str, Any]:
    figures = _risk(case["inputs"])
    return _asked(case, {"liquidatable": figures.liquidatable, "initial_collateralized": figures.meets_initial,
                         "maintenance_collateralized": figures.meets_maintenance})


def can_deleverage(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    price = deleveraging_price(_account(inputs["account"]), _markets(inputs),
                               final_settlement=inputs["final_settlement"])
    return {"at_bankruptcy_price": price == "bankruptcy", "at_oracle_price": price == "oracle"}


def deleveraging(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    try:
        after = deleverage(_account(inputs["liquidated"]), _account(inputs["offsetting"]), _markets(inputs),
                           str(inputs["market"]), size_change=D(inputs["size_delta"]), price=inputs["price_mode"])
    except (InvalidSize, NotDeleverable):
        return {"error": "rejected"}
    return {"liquidated": _account_shape(after.account), "offsetting": _account_shape(after.counterparty)}


def fillable(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    try:
        return {"fillable_price": fillable_price(_account(inputs["account"]), _markets(inputs), str(inputs["market"]),
                                                 D(inputs["size_delta"]), _rule(inputs["config"]))}
    except InvalidSize:
        return {"error": "invalid_size_delta"}


def funding_clamp(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"max_abs_funding_rate_8h": _fractions(inputs).funding_bound(D(inputs["clamp_factor"]))}


def funding_settlement(case: Case) -> Mapping[str, Any]:
    # The index is in millionths of the quote quantum per base quantum.
    inputs = case["inputs"]
    return {"settlement_micro_usdc": funding_credit(
        size=D(inputs["size_base_quantums"]), index_seen=D(inputs["index_at_entry"]) * PPM,
        index_now=D(inputs["index_now"]) * PPM)}


def initial_margin(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"initial_margin": _fractions(inputs).margins(D(inputs["notional"]), D(inputs["open_notional"])).initial}


def insurance_fund_delta(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    size = D(inputs["fill_size"]) * (1 if inputs["side"] == "buy" else -1)
    try:
        return {"insurance_fund_delta": fund_delta(
            _account(inputs["account"]), _markets(inputs), str(inputs["market"]), size_change=size,
            price=D(inputs["fill_price"]), rule=_rule(inputs["config"]))}
    except InvalidFill:
        return {"error": "invalid_fill_size"}
    except InvalidSize:
        return {"error": "invalid_size_delta"}


def liquidatable_notional(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    bounds = notional_bounds(_account(inputs["account"]), _markets(inputs), str(inputs["market"]),
                             _rule(inputs["config"]))
    return {"min_notional": bounds.least, "max_notional": bounds.most}


def liquidation_fills(case: Case) -> Mapping[str, Any]:
    inputs, markets = case["inputs"], _markets(case["inputs"])
    accounts = {name: _account(row) for name, row in inputs["accounts"].items()}
    for fill in inputs["fills"]:
        closed, maker = fill["liquidated"], fill["maker"]
        after = close_against(
            accounts[closed], accounts[maker], markets, str(fill["market"]),
            size_change=D(fill["size"]) * (1 if fill["side"] == "buy" else -1), price=D(fill["price"]),
            maker_fee=D(inputs["maker_fee"]), taker_fee=D(inputs["liquidated_taker_fee"]),
            rule=_rule(inputs["config"]))
        accounts[closed], accounts[maker] = after.account, after.maker
    return {name: {"usdc": account.balance, "positions": {row.market: row.size for row in account.positions}}
            for name, account in accounts.items()}


def liquidation_size(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"size_delta": closing_size(_account(inputs["account"]), _markets(inputs), str(inputs["market"]),
                                       step=D(inputs["size_step"]), rule=_rule(inputs["config"]))}


def maintenance_ratio(case: Case) -> Mapping[str, Any]:
    return {"mmf": _fractions(case["inputs"]).maintenance}


def notional_value(case: Case) -> Mapping[str, Any]:
    return {"notional": notional(D(case["inputs"]["size"]), D(case["inputs"]["price"]), PPM)}


def oi_imf(case: Case) -> Mapping[str, Any]:
    return {"effective_imf": _fractions(case["inputs"]).effective(D(case["inputs"]["open_notional"]))}


def position_margin(case: Case) -> Mapping[str, Any]:
    figures = position_risk(_market(case["inputs"]["market"]), D(case["inputs"]["size"]))
    return _asked(case, figures._asdict())


def risk_order(case: Case) -> Mapping[str, Any]:
    return {"cmp": compare_risk(_risk(case["inputs"]["first"]), _risk(case["inputs"]["second"]))}


def transition_result(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    # Asked only of accounts below initial margin afterwards, so that margin is not among the inputs.
    return {"result": without_worsening(_risk(inputs, "old_"), _risk(inputs, "new_"))}


def update_check(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    accounts = {name: _account(row) for name, row in inputs["accounts"].items()}
    verdicts = check_changes([(accounts[row["account"]], _change(row)) for row in inputs["updates"]],
                             _markets(inputs), match=inputs["update_type"] == "Match")
    return {"success": all(verdict == "success" for verdict in verdicts), "results": list(verdicts)}


KINDS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "account_risk": account_risk, "bankruptcy_price": bankruptcy_price, "boundary": boundary,
    "can_deleverage": can_deleverage, "deleverage": deleveraging, "fillable_price": fillable,
    "funding_clamp": funding_clamp, "funding_settlement": funding_settlement, "initial_margin": initial_margin,
    "insurance_fund_delta": insurance_fund_delta, "liquidatable": liquidatable,
    "liquidatable_notional": liquidatable_notional, "liquidation_fills": liquidation_fills,
    "liquidation_size": liquidation_size, "maintenance_ratio": maintenance_ratio, "notional": notional_value,
    "oi_imf": oi_imf, "position_margin": position_margin, "risk_order": risk_order, "transition": transition_result,
    "update_check": update_check}
