"""The question that the margin calculator is asked: a portfolio, its marks and a rulebook, read and found sound.

`BadInput` carries the JSON path of every field at fault and what was expected there. Whether the parts fit together
is the calculator's to say (`infra.calculator`). This file computes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from infra.input_fault import InputFault, input_faults
from infra.order_input import OrderInput
from infra.streams.records import shown
from ledger.amounts import ONE, Factor, WireAmount, WirePositive, WirePrice
from ledger.commands import Id, MarginMode, PositionSide
from ledger.rulebook import Rulebook, named

# A portfolio is a page of text; what is larger was sent here by mistake.
REQUEST_BYTES_MAX: Final = 1024 * 1024
# Each position's prices take a search over the whole pool: time grows with the square.
POSITIONS_MAX: Final = 250
FAULTS_MAX: Final = 20


class BadInput(Exception):
    """The input cannot be calculated; every fault that was found, in the order of the fields."""

    def __init__(self, faults: Sequence[InputFault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = list(faults)


class _Input(BaseModel):
    # Unknown fields are kept, to be named in the explanation: a misspelt `leverage` must not pass unseen.
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class InstrumentInput(_Input):
    """An instrument's terms, as its `instrument` record gives them; tick and lot size may be left out."""

    instrument: Id
    base: Id
    quote: Id
    contract_type: str = "linear"
    contract_size: WirePositive = ONE
    tick_size: WirePositive | None = None
    lot_size: WirePositive | None = None
    underlying: Id | None = None
    # All accounts' contracts, one side; needed where the requirement is `open-interest:1`.
    open_interest: Factor | None = None


class PositionInput(_Input):
    """A position: its size in contracts, long when positive, and its average entry price."""

    instrument: Id
    signed_size: WireAmount
    entry_price: WirePrice
    margin_mode: MarginMode = "cross"
    position_side: PositionSide = "net"
    isolated_margin: WireAmount | None = None
    leverage: WirePositive | None = None


class AccountInput(_Input):
    """What the account holds: collateral by asset (negative: owed), positions, open orders."""

    collateral: dict[Id, WireAmount]
    positions: list[PositionInput] = Field(max_length=POSITIONS_MAX)
    orders: list[OrderInput] = Field(default=[], max_length=POSITIONS_MAX)


class MarginInput(_Input):
    """The whole question."""

    # The name of a shipped one, or a whole one.
    rulebook: JsonValue
    instruments: list[InstrumentInput] = []
    account: AccountInput
    marks: dict[Id, WirePrice]
    # What a rulebook may ask beyond one account: deposits of all by asset, average prices named as marks are.
    deposits: dict[Id, Factor] = {}
    averages: dict[Id, WirePrice] = {}


# --- from bytes to a question ------------------------------------------------------------------------------------


def read_question(raw: bytes) -> MarginInput:
    """The question that the bytes hold, its fields each well formed; BadInput names those that are not."""
    if len(raw) > REQUEST_BYTES_MAX:
        raise BadInput([InputFault("", f"expected at most {REQUEST_BYTES_MAX} bytes, came {len(raw)} or more")])
    try:
        from_json(raw, allow_inf_nan=False)  # bounds the depth, which the next line does not
        document = json.loads(raw, object_pairs_hook=_object)
    except ValueError as wrong:
        raise BadInput([InputFault("", f"expected one JSON object, came no well-formed JSON: {wrong}")]) from None
    if not isinstance(document, dict):
        raise BadInput([InputFault("", f"expected one JSON object, came {shown(document)}")])
    try:
        return MarginInput.model_validate(document)
    except ValidationError as invalid:
        raise BadInput(input_faults(invalid)[:FAULTS_MAX]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {again!r} stands twice in one object")
    return found


def rulebook_of(question: MarginInput) -> Rulebook:
    """The rulebook that a question names, or brings; BadInput where it is none."""
    wanted = question.rulebook
    if isinstance(wanted, dict):
        try:
            return Rulebook.model_validate_json(json.dumps(wanted))
        except ValidationError as invalid:
            raise BadInput(input_faults(invalid, "rulebook")[:FAULTS_MAX]) from None
    found = named(wanted) if isinstance(wanted, str) else None
    if found is None:
        raise BadInput([InputFault("rulebook", "expected the name of a shipped rulebook such as 'house', or a whole "
                                               f"rulebook, came {shown(wanted)}")])
    return found
