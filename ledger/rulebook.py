"""The rulebook: versioned risk parameters as data, which one is in force when, and the stream that publishes them.

A rulebook is composed of the blocks of `ledger.risk`, each with a versioned variant. Shipped ones lie in
`rulebooks/NAME-VERSION.json` and are never edited, only followed by a next version, so that an old ledger replays
for ever. A published change never rewrites the past. This file decides nothing about accounts.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ledger.commands import Id, PublishRulebook
from ledger.errors import Rejected
from ledger.events import Cause, RulebookPublished
from ledger.risk.collateral import CollateralBlock, ValueTiers
from ledger.risk.liquidation import LiquidationRule
from ledger.risk.margin import Thresholds
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.oracle import OracleRule
from ledger.risk.orders import OrderMargin
from ledger.risk.pool import BorrowTiers, PoolRule
from ledger.risk.requirement import Brackets, RequirementBlock
from ledger.risk.scenario import Scenarios
from ledger.risk.surroundings import PoolScaled

DEFAULT_NAME, DEFAULT_VERSION = "house", 1
ANY = "*"


class CallRule(BaseModel):
    """Margin calls: time to meet one, and the asset it is stated in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str = Field(pattern="^deadline:1$")
    deadline_seconds: int = Field(strict=True, gt=0)
    asset: Id


class AssetRow(BaseModel):
    """What a rulebook says of an asset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collateral: CollateralBlock = Field(discriminator="variant")
    borrow: BorrowTiers | None = None
    # Needs the deposits of all accounts, so that no ledger runs under it.
    scaling: PoolScaled | None = None


class InstrumentRow(BaseModel):
    """What a rulebook says of an instrument."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: RequirementBlock = Field(discriminator="variant")


class Rulebook(BaseModel):
    """One version of one rulebook. A row `*` of assets or instruments holds for all that have no row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Id
    version: int = Field(strict=True, gt=0)
    title: str = ""
    valuation_asset: Id
    thresholds: Thresholds
    calls: CallRule
    liquidation: LiquidationRule
    oracle: OracleRule
    # Absent: open orders reserve nothing.
    orders: OrderMargin | None = None
    assets: dict[Id, AssetRow]
    instruments: dict[Id, InstrumentRow]
    pool: PoolRule | None = None
    # Where its numbers come from, and where they depart from the venue.
    notes: list[str] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Rulebook:
        for part, rows in (("assets", self.assets), ("instruments", self.instruments)):
            if ANY not in rows:
                raise PydanticCustomError("rows", "expected a default row `*` in {part}", {"part": part})
        if self.orders is not None and self.pool is not None and self.pool.orders is not None:
            raise PydanticCustomError("orders", "expected the margin of open orders in `orders` or in `pool.orders`, "
                                      "came both", {})
        scaled = [name for name, row in self.assets.items() if row.scaling is not None]
        if scaled and self.pool is None:
            raise PydanticCustomError("scaling", "expected a `pool` where assets.{name} has a `scaling`, came none",
                                      {"name": scaled[0]})
        self._check_portfolio()
        return self

    def _check_portfolio(self) -> None:
        """Positions that are revalued together have one grid, and offsets name what is there."""
        blocks = {name: row.requirement for name, row in self.instruments.items()
                  if isinstance(row.requirement, Scenarios)}
        rule = None if self.pool is None else self.pool.portfolio
        if blocks and rule is None:
            raise PydanticCustomError("portfolio", "expected `pool.portfolio` where instruments.{name}.requirement is "
                                      "`scenarios:1`, came none", {"name": next(iter(blocks))})
        first: dict[str, str] = {}
        for name, block in blocks.items():
            if block.underlying is None:
                continue
            other = first.setdefault(block.underlying, name)
            if block.grid != blocks[other].grid:
                raise PydanticCustomError(
                    "grid", "expected one grid, minimum, multiple and sizes for underlying {underlying}; those of "
                    "instruments.{name}.requirement are not those of instruments.{other}.requirement",
                    {"underlying": block.underlying, "name": name, "other": other})
        named = set() if rule is None or rule.offsets is None else rule.offsets.named
        if unknown := sorted(named - first.keys()):
            raise PydanticCustomError("offsets", "expected pool.portfolio.offsets.credits to name underlyings of "
                                      "instruments, came {name}", {"name": unknown[0]})

    @cached_property
    def is_screened(self) -> bool:
        """Whether the book can bound what a mark does to a pool; else every pool it touches is judged exactly."""
        return (self.pool is None
                and all(isinstance(row.requirement, Brackets) for row in self.instruments.values())
                and all(isinstance(row.collateral, ValueTiers) and row.borrow is None for row in self.assets.values()))

    @cached_property
    def beyond_one_account(self) -> tuple[str, ...]:
        """The paths of the blocks that ask for what one account's figures do not hold.

        The calculator is told it; a ledger keeps none of it, and takes no rulebook with such a block.
        """
        found = [f"instruments.{name}.requirement" for name, row in self.instruments.items()
                 if isinstance(row.requirement, OpenInterestFraction)]
        found += [f"assets.{name}.scaling" for name, row in self.assets.items() if row.scaling is not None]
        if self.pool is not None and self.pool.initial_prices is not None:
            found.append("pool.initial_prices")
        return tuple(found)

    def collateral(self, asset: str) -> CollateralBlock:
        """The haircuts of an asset; those of `*` where it has no row."""
        return (self.assets.get(asset) or self.assets[ANY]).collateral

    def requirement(self, instrument: str) -> RequirementBlock:
        """The margins of an instrument; those of `*` where it has no row."""
        return (self.instruments.get(instrument) or self.instruments[ANY]).requirement

    def scaling(self, asset: str) -> PoolScaled | None:
        """How deposits of all cut an asset as collateral of new risk; that of `*` where it has no row."""
        return (self.assets.get(asset) or self.assets[ANY]).scaling

    def borrowing(self, asset: str) -> BorrowTiers | None:
        """What a borrowed balance of an asset requires; that of `*` where it has no row."""
        return (self.assets.get(asset) or self.assets[ANY]).borrow


def _files() -> dict[tuple[str, int], Traversable]:
    found = {}
    for entry in (files("ledger") / "rulebooks").iterdir():
        stem, _, number = entry.name.removesuffix(".json").rpartition("-")
        if entry.name.endswith(".json") and number.isdigit():
            found[stem, int(number)] = entry
    return found


@lru_cache(maxsize=64)
def shipped(name: str, version: int | None = None) -> Rulebook | None:
    """A rulebook that comes with the package; None where there is none.

    Unless a version is named the latest, of the default rulebook the one that is in force without a record.
    """
    found = {number: entry for (stem, number), entry in _files().items() if stem == name}
    if version is None:
        version = DEFAULT_VERSION if name == DEFAULT_NAME else max(found, default=0)
    return Rulebook.model_validate_json(found[version].read_text("utf-8")) if version in found else None


def named(text: str) -> Rulebook | None:
    """A shipped rulebook by name, `house`, or by name and version, `house-2`; None where there is none."""
    stem, _, number = text.rpartition("-")
    return shipped(text) or (shipped(stem, int(number)) if stem and number.isdecimal() else None)


def shipped_names() -> list[str]:
    """The names of all rulebooks that come with the package."""
    return sorted({name for name, _ in _files()})


def shipped_versions() -> list[tuple[str, int]]:
    """The names and versions of all rulebooks that come with the package."""
    return sorted(_files())


def read_rulebook(content: dict[str, Any]) -> Rulebook:
    """A whole rulebook from a record; Rejected names the path of the fault and what was expected."""
    try:
        return Rulebook.model_validate_json(json.dumps(content))
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        path = ".".join(str(part) for part in ("rulebook", *first["loc"]))
        raise Rejected("rulebook", f"{path}: {first['msg']}", field=path) from None


class Publication(NamedTuple):
    """A rulebook and from when it is in force."""

    effective: int
    rulebook: Rulebook


class RulebookState(NamedTuple):
    """All publications, in the order of the log."""

    version: int = 0
    publications: tuple[Publication, ...] = ()

    def in_force(self, time: int, name: str | None = None) -> Rulebook:
        """The rulebook in force at `time`: the latest effective one (of `name`, if given), else the shipped one.

        Of two with the same effective time the later published holds.
        """
        best: Publication | None = None
        for publication in self.publications:
            if publication.effective <= time and (name is None or publication.rulebook.name == name) and (
                    best is None or publication.effective >= best.effective):
                best = publication
        if best is not None:
            return best.rulebook
        # Shipped rulebooks are pinned by version where the ledger relies on them without a record.
        default = shipped(DEFAULT_NAME, DEFAULT_VERSION) if name in (None, DEFAULT_NAME) else shipped(name or "")
        if default is None:
            raise Rejected("unknown-rulebook", f"expected a published or shipped rulebook, came {name!r}",
                           field="rulebook")
        return default

    def next_change(self, after: int) -> int | None:
        """The earliest effective time after `after`, when all pools are to be judged anew."""
        return min((row.effective for row in self.publications if row.effective > after), default=None)


def decide_publish(state: RulebookState, command: PublishRulebook, cause: Cause, log_time: int) -> RulebookPublished:
    """Publish a rulebook. Rejected: not well formed, unknown name, or a version that is taken by other content."""
    if isinstance(command.rulebook, str):
        found = named(command.rulebook)
        if found is None:
            raise Rejected("unknown-rulebook", f"expected the name of a shipped rulebook, came {command.rulebook!r}",
                           field="rulebook")
        rulebook = found
    else:
        rulebook = read_rulebook(command.rulebook)
    if rulebook.beyond_one_account:
        path = f"rulebook.{rulebook.beyond_one_account[0]}"
        raise Rejected("rulebook", f"{path}: expected a block that one account's figures suffice for, since the ledger "
                       "keeps no open interest, deposits of all or averages, came one for the calculator", field=path)
    # The default is in force without a record; what else is shipped may grow and change nothing here.
    for other in (shipped(DEFAULT_NAME, DEFAULT_VERSION), *(row.rulebook for row in state.publications)):
        if other is not None and (other.name, other.version) == (rulebook.name, rulebook.version) and (
                other != rulebook):
            raise Rejected("rulebook", f"rulebook.version: expected a new version, since {rulebook.version} of "
                           f"{rulebook.name!r} is published with other content", field="rulebook.version")
    effective = max(command.time if command.effective is None else command.effective, log_time)
    return RulebookPublished(
        time=log_time, cause=cause, name=rulebook.name, version=rulebook.version, effective=effective,
        rulebook=command.rulebook, requested_effective=command.effective,
        content=rulebook.model_dump(mode="json", exclude_none=True))


def evolve_rulebook(state: RulebookState, event: RulebookPublished) -> RulebookState:
    """Fold a publication."""
    rulebook = Rulebook.model_validate_json(json.dumps(event.content))
    return RulebookState(state.version + 1, (*state.publications, Publication(event.effective, rulebook)))
