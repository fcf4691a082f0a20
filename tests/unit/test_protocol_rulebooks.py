"""The shipped rulebooks of on-chain protocols: all of them load, round-trip, say their sources and refuse faults."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from ledger.amounts import ONE, ZERO, exact
from ledger.protocol_rulebook import (
    HealthRulebook,
    QuoteRulebook,
    WeightedRulebook,
    protocol,
    protocol_names,
    read_protocol,
)
from ledger.risk.health import HealthAccount, HealthToken, Prices, health
from ledger.risk.quote_account import QuoteAccount, QuoteMarket, QuotePosition, risk
from ledger.risk.weighted_account import (
    AssetBalance,
    AssetMarket,
    Conditions,
    PerpMarket,
    PerpPosition,
    WeightedAccount,
    account_margin,
)


def test_the_five_protocols_are_shipped() -> None:
    assert ["drift", "dydx-v4", "gmx-v2", "mango-v4", "synthetix-v3"] == protocol_names()


@pytest.mark.parametrize("name", ["drift", "dydx-v4", "gmx-v2", "mango-v4", "synthetix-v3"])
def test_a_shipped_rulebook_is_what_it_says_and_survives_json(name: str) -> None:
    rulebook = protocol(name)

    assert rulebook is not None
    assert (name, 1) == (rulebook.name, rulebook.version)
    assert all(rulebook.sources)
    assert rulebook == read_protocol(rulebook.model_dump_json())
    assert rulebook == protocol(name, 1)


def test_what_is_not_shipped_is_none() -> None:
    assert protocol("no-such-protocol") is None
    assert protocol("drift", 999) is None


def _content(name: str) -> dict[str, Any]:
    rulebook = protocol(name)
    assert rulebook is not None
    content: dict[str, Any] = json.loads(rulebook.model_dump_json())
    return content


@pytest.mark.parametrize(("name", "path", "value", "where", "what"), [
    ("dydx-v4", ("instruments", "BTC-USD", "requirement", "initial"), "1.5", "initial", "at most 1"),
    ("dydx-v4", ("instruments", "SOL-USD", "requirement", "lower_cap"), "60000000", "requirement",
     "not above the upper"),
    ("dydx-v4", ("liquidation", "variant"), "fillable:2", "variant", "fillable:1"),
    ("drift", ("instruments", "SOL-PERP", "requirement", "maintenance"), "0.2", "requirement", "not above the initial"),
    ("mango-v4", ("assets", "SOL", "weights", "initial_asset"), "0.95", "weights", "not softer"),
    ("mango-v4", ("assets", "SOL", "weights", "borrow_scale_start"), "0", "weights", "above 0"),
    ("synthetix-v3", ("instruments", "BTC", "requirement", "skew_scale"), "0", "skew_scale", "above 0"),
    ("gmx-v2", ("instruments", "base-market", "requirement", "fraction"), 0.01, "fraction", "exact decimal"),
    ("gmx-v2", ("family",), "no-such-family", "", "no-such-family"),
    ("drift", ("sources",), [], "sources", "at least 1"),
])
def test_a_fault_is_refused_with_its_path(name: str, path: tuple[str, ...], value: object, where: str,
                                          what: str) -> None:
    content = _content(name)
    row = content
    for key in path[:-1]:
        row = row[key]
    row[path[-1]] = value

    with pytest.raises(ValidationError) as refused:
        read_protocol(json.dumps(content))

    fault = refused.value.errors()[0]
    assert where in ".".join(map(str, fault["loc"]))
    assert what in fault["msg"]


def test_dydx_an_account_under_the_shipped_rulebook() -> None:
    """1 BTC at 50,000 needs 1,000 to be opened and 60 % of that to be kept."""
    rulebook = protocol("dydx-v4")
    assert isinstance(rulebook, QuoteRulebook)
    rows = {name: QuoteMarket(name, Decimal(50_000), row.requirement, isolated=row.isolated)
            for name, row in rulebook.instruments.items()}
    with exact():
        figures = risk(QuoteAccount(Decimal(-49_000), (QuotePosition("BTC-USD", ONE),)), rows)

    assert (Decimal(1_000), Decimal(1_000), Decimal(600)) == figures


def test_drift_an_account_under_the_shipped_rulebook() -> None:
    """10,000 USDC less 100 SOL at 100, and a position of 100 SOL: 12,000 and 1,000 are required."""
    rulebook = protocol("drift")
    assert isinstance(rulebook, WeightedRulebook)
    prices = {"USDC": ONE, "SOL": Decimal(100)}
    assets = {name: AssetMarket(prices[name], prices[name], row.weights) for name, row in rulebook.assets.items()}
    perps = {name: PerpMarket(Decimal(100), row.requirement, row.profit)
             for name, row in rulebook.instruments.items()}
    account = WeightedAccount("USDC", {"USDC": AssetBalance(Decimal(10_000)), "SOL": AssetBalance(Decimal(-100))},
                              {"SOL-PERP": PerpPosition(Decimal(100), Decimal(-10_000))})
    with exact():
        cross = account_margin(account, assets, perps, Conditions("initial")).cross

    assert (Decimal(10_000), Decimal(13_000)) == (cross.collateral, cross.requirement)


def test_mango_an_account_under_the_shipped_rulebook() -> None:
    """10 SOL at 100 carry 800, or 400 once a million of them is deposited."""
    rulebook = protocol("mango-v4")
    assert isinstance(rulebook, HealthRulebook)
    weights = rulebook.assets["SOL"].weights
    hundred = Prices(Decimal(100), Decimal(100))
    with exact():
        few = health(HealthAccount({"SOL": HealthToken(hundred, weights, Decimal(10), Decimal(10), ZERO)}), "init")
        many = health(HealthAccount({"SOL": HealthToken(hundred, weights, Decimal(10), Decimal(10_000), ZERO)}), "init")

    assert (Decimal(800), Decimal(400)) == (few, many)
