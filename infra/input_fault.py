"""Faults of an input in words: the JSON path of the field, what was expected there and what came.

This file decides nothing: it says what pydantic found.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from infra.streams.records import shown


class InputFault(NamedTuple):
    """One field at fault: its JSON path (empty for the whole), and what was expected and what came."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


_EXPECTED: Final = {
    "missing": "a value", "string_type": "a string", "int_type": "a whole number", "bool_type": "true or false",
    "dict_type": "an object", "model_type": "an object", "model_attributes_type": "an object", "list_type": "a list",
    "string_pattern_mismatch": "1 to 200 characters other than control characters"}


def input_faults(invalid: ValidationError, *above: str) -> list[InputFault]:
    return [InputFault(_path((*above, *error["loc"])), _sentence(error))
            for error in invalid.errors(include_url=False)]


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":  # pydantic's mark for a fault of a key itself
            path += f".{part}" if path else part
    return path


def _sentence(error: ErrorDetails) -> str:
    """What was expected and what came; our own models say it themselves."""
    if error["msg"].startswith("expected "):
        return error["msg"]
    came = "nothing" if error["type"] == "missing" else shown(error["input"])
    return f"expected {_expectation(error)}, came {came}"


def _expectation(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(context["expected"])
        case "too_long":
            return f"at most {context['max_length']} items"
        case "extra_forbidden":
            return "no such field"
        case kind:
            return _EXPECTED.get(kind) or f"what the contract says ({error['msg']})"
