"""Rulebooks of on-chain protocols: the parameters of systems whose account model is not that of our own pools.

Each is data, `rulebooks/protocols/NAME-VERSION.json`, of one family; a family names the account model of
`ledger.risk` that its blocks belong to. They are shown and calculated with; no ledger runs under them. Parameters on
chain change by vote: every file says where its numbers come from. This file decides nothing about accounts.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ledger.amounts import Factor, Fraction
from ledger.commands import Id
from ledger.risk.fillable import FillableRule
from ledger.risk.health import HealthWeights
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.pool_position import PoolRequirement
from ledger.risk.skew import KeeperReward, SizeDiscount, SkewMargins
from ledger.risk.takeover import TakeoverRule
from ledger.risk.weights import AssetWeights, ProfitWeights, SizeRatios


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Protocol(_Block):
    """What every protocol's rulebook says: name, version, and where each number comes from."""

    name: Id
    version: int = Field(strict=True, gt=0)
    title: str
    sources: list[str] = Field(min_length=1)
    quote_asset: Id


class QuoteMarketRow(_Block):
    """A market of quote accounts; an isolated one stands alone in its account."""

    requirement: OpenInterestFraction
    isolated: bool = False


class QuoteRulebook(_Protocol):
    """One quote asset, margins as fractions scaled by open interest (`ledger.risk.quote_account`)."""

    family: Literal["quote-account:1"]
    instruments: dict[Id, QuoteMarketRow] = Field(min_length=1)
    liquidation: FillableRule
    funding_clamp_factor: Factor
    premium_clamp_factor: Factor


class WeightedAssetRow(_Block):
    """An asset of weighted accounts."""

    weights: AssetWeights


class WeightedMarketRow(_Block):
    """A perpetual market of weighted accounts."""

    requirement: SizeRatios
    profit: ProfitWeights
    contract: Literal["perpetual", "prediction"] = "perpetual"


class WeightedRulebook(_Protocol):
    """Weighted deposits and debts with perpetuals (`ledger.risk.weighted_account`)."""

    family: Literal["weighted-account:1"]
    assets: dict[Id, WeightedAssetRow] = Field(min_length=1)
    instruments: dict[Id, WeightedMarketRow]
    liquidation: TakeoverRule


class HealthAssetRow(_Block):
    """A token of accounts with health, and its fee when it is liquidated."""

    weights: HealthWeights
    liquidation_fee: Fraction


class HealthMarketRow(_Block):
    """A perpetual market of accounts with health; a result weight of 0 lets profit count only once settled."""

    settle_asset: Id
    weights: HealthWeights
    initial_result_weight: Fraction
    maintenance_result_weight: Fraction
    base_fee: Fraction
    result_fee: Fraction


class HealthRulebook(_Protocol):
    """One number for all (`ledger.risk.health`)."""

    family: Literal["health:1"]
    assets: dict[Id, HealthAssetRow] = Field(min_length=1)
    instruments: dict[Id, HealthMarketRow]


class SkewMarketRow(_Block):
    """A market whose margins and prices follow its skew."""

    requirement: SkewMargins


class SkewRulebook(_Protocol):
    """Collateral cut by size, margins by share of depth, a reward for whoever liquidates (`ledger.risk.skew`)."""

    family: Literal["skew:1"]
    assets: dict[Id, SizeDiscount]
    instruments: dict[Id, SkewMarketRow] = Field(min_length=1)
    reward: KeeperReward


class PoolMarketRow(_Block):
    """A market whose positions stand alone against a pool of liquidity."""

    requirement: PoolRequirement


class PoolRulebook(_Protocol):
    """Isolated positions with a pool as counterparty (`ledger.risk.pool_position`)."""

    family: Literal["pool-position:1"]
    instruments: dict[Id, PoolMarketRow] = Field(min_length=1)


ProtocolRulebook = Annotated[QuoteRulebook | WeightedRulebook | HealthRulebook | SkewRulebook | PoolRulebook,
                             Field(discriminator="family")]
_READ: TypeAdapter[ProtocolRulebook] = TypeAdapter(ProtocolRulebook)


def _shipped() -> dict[tuple[str, int], str]:
    found = {}
    for entry in (files("ledger") / "rulebooks" / "protocols").iterdir():
        name, _, number = entry.name.removesuffix(".json").rpartition("-")
        if entry.name.endswith(".json") and number.isdigit():
            found[name, int(number)] = entry.read_text("utf-8")
    return found


def protocol_names() -> list[str]:
    """The names of all shipped protocols' rulebooks, sorted."""
    return sorted({name for name, _ in _shipped()})


@lru_cache(maxsize=16)
def protocol(name: str, version: int | None = None) -> ProtocolRulebook | None:
    """A shipped protocol's rulebook, its latest version unless one is named; None where there is none."""
    found = {number: text for (known, number), text in _shipped().items() if known == name}
    wanted = max(found, default=0) if version is None else version
    return read_protocol(found[wanted]) if wanted in found else None


def read_protocol(text: str) -> ProtocolRulebook:
    """A protocol's rulebook from JSON; pydantic's ValidationError names the path of the fault."""
    return _READ.validate_json(text)
