"""Exact decimals and times: the context, the quanta, the named rounding points, and the wire types of both.

Every figure that is recorded or decided is a `Decimal` computed under `EXACT`, which raises where a
result would be rounded. Rounding happens only in the functions of this file, each of which names its
direction. This file never rounds silently and never touches a float.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import (
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)

# Size, contract size and rate have up to 18 + 18 digits, a price 12 + 18, and an asset is valued over two of them: an
# equity takes up to 210 digits, the product of two that compares ratios 420, the quotient that shares equity out over
# orders as many again. A thousand hold every exact result this ledger forms; one that would not fit raises Inexact.
EXACT: Final = Context(prec=1_000, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])

AMOUNT_LIMIT: Final = Decimal(10) ** 18
PRICE_MIN: Final = Decimal(10) ** -12
PRICE_MAX: Final = Decimal(10) ** 12
# Prices and ratios that come out of a division are given to this many places (the finest the wire holds).
FINEST: Final = Decimal(10) ** -18


def exact() -> AbstractContextManager[Context]:
    """The context that all ledger arithmetic runs under; raises where a result would be rounded."""
    return localcontext(EXACT)


# --- rounding points ---------------------------------------------------------------------------------------------


def round_down(value: Decimal, quantum: Decimal) -> Decimal:
    """The greatest multiple of `quantum` that is not above `value` (towards minus infinity)."""
    quotient, remainder = divmod(value, quantum)
    if remainder and remainder < 0:
        quotient -= 1
    return quotient * quantum if remainder else value


def round_up(value: Decimal, quantum: Decimal) -> Decimal:
    """The least multiple of `quantum` that is not below `value` (towards plus infinity)."""
    quotient, remainder = divmod(value, quantum)
    if remainder and remainder > 0:
        quotient += 1
    return quotient * quantum if remainder else value


def divide_down(numerator: Decimal, denominator: Decimal, quantum: Decimal) -> Decimal:
    """numerator / denominator, rounded down (towards minus infinity) to `quantum`; the denominator is positive."""
    quotient, remainder = divmod(numerator, denominator * quantum)
    if remainder and numerator < 0:
        quotient -= 1
    return quotient * quantum


def divide_up(numerator: Decimal, denominator: Decimal, quantum: Decimal) -> Decimal:
    """numerator / denominator, rounded up (towards plus infinity) to `quantum`; the denominator is positive."""
    quotient, remainder = divmod(numerator, denominator * quantum)
    if remainder and numerator > 0:
        quotient += 1
    return quotient * quantum


def round_towards_zero(value: Decimal, quantum: Decimal) -> Decimal:
    """The multiple of `quantum` next to `value` on the side of zero (what integer chains call truncation)."""
    quotient, remainder = divmod(value, quantum)
    return quotient * quantum if remainder else value


def is_multiple(value: Decimal, quantum: Decimal) -> bool:
    """Whether `value` is a whole number of quanta."""
    return not value % quantum


# --- decimals on the wire ----------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?").fullmatch


def plain(value: Decimal) -> str:
    """The one text of a number: no exponent, no trailing zeros after the point, no minus before zero."""
    text = str(value)
    if "E" in text:
        text = format(value, "f")
    if "." in text:
        if text[-1] == "0":
            text = text.rstrip("0")
        if text[-1] == ".":
            text = text[:-1]
    return "0" if text == "-0" else text


class _Number:
    """Pydantic marker: an exact decimal that travels as a JSON string.

    With `wire` the text must match the records' grammar (semantics section 1) and the bounds hold; without,
    any plain decimal of our own log is taken back, since sums and indexes outgrow the grammar of records.
    """

    def __init__(self, *, low: Decimal | None = None, high: Decimal | None = None, above: bool = False,
                 closed: bool = False, wire: bool = True) -> None:
        # The lower bound is part of the range unless `above`; the upper one is not unless `closed`.
        self.low, self.high, self.above, self.closed, self.wire = low, high, above, closed, wire

    def read(self, value: object) -> Decimal:
        if type(value) is str:
            if self.wire and not _NUMBER(value):
                raise PydanticCustomError(
                    "decimal_text", "expected a plain decimal in a string such as \"12.5\", came {came}",
                    {"came": repr(value[:60])})
            try:
                number = Decimal(value)
            except InvalidOperation:
                raise PydanticCustomError(
                    "decimal_text", "expected a plain decimal, came {came}", {"came": repr(value[:60])}) from None
        elif type(value) is Decimal:
            number = value
        else:
            raise PydanticCustomError(
                "decimal_string", "expected a JSON string with an exact decimal, came {came}",
                {"came": f"{type(value).__name__} {str(value)[:40]}"})
        low, high = self.low, self.high
        if low is not None and (number <= low if self.above else number < low):
            bound = f"{'above' if self.above else 'at least'} {plain(low)}"
            raise PydanticCustomError("decimal_low", "expected a number {bound}, came {came}",
                                      {"bound": bound, "came": plain(number)})
        if high is not None and (number > high if self.closed else number >= high):
            bound = f"{'at most' if self.closed else 'below'} {plain(high)}"
            raise PydanticCustomError("decimal_high", "expected a number {bound}, came {came}",
                                      {"bound": bound, "came": plain(number)})
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        serialization = core_schema.plain_serializer_function_ser_schema(
            plain, return_schema=core_schema.str_schema(), when_used="json")
        if self.wire:
            return core_schema.no_info_plain_validator_function(self.read, serialization=serialization)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(self.read),
            python_schema=core_schema.is_instance_schema(Decimal),
            serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema,
                                     handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        pattern = r"^-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,18})?$" if self.wire else r"^-?[0-9]+(\.[0-9]+)?$"
        return {"type": "string", "pattern": pattern}


# Numbers as records bring them (grammar and bounds of semantics section 1).
WireAmount = Annotated[Decimal, _Number(low=-AMOUNT_LIMIT, high=AMOUNT_LIMIT, above=True)]
WirePositive = Annotated[Decimal, _Number(low=ZERO, high=AMOUNT_LIMIT, above=True)]
WirePrice = Annotated[Decimal, _Number(low=PRICE_MIN, high=PRICE_MAX, closed=True)]
Fraction = Annotated[Decimal, _Number(low=ZERO, high=ONE, closed=True)]
Factor = Annotated[Decimal, _Number(low=ZERO, high=AMOUNT_LIMIT)]
# Numbers as the log holds them.
Number = Annotated[Decimal, _Number(wire=False)]

# --- times -------------------------------------------------------------------------------------------------------

_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?Z").fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What nanoseconds in 64 bits hold, deadlines that follow a time included.
TIMES: Final = (datetime(1700, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC))
NANOSECONDS: Final = 1_000_000_000


def nanoseconds(text: str) -> int:
    """An RFC 3339 time in `Z` as nanoseconds since 1970; ValueError says what was expected."""
    match = _TIME(text)
    if match is None:
        raise ValueError(f"expected a time such as 2019-09-24T18:00:00Z, at most nanoseconds, came {text[:60]!r}")
    second, fraction = match.groups()
    whole = _whole_second(second)
    return whole + int(fraction.ljust(9, "0")) if fraction else whole


# Streams stay within a second for many records, so that a second's text is worth remembering.
@lru_cache(maxsize=4_096)
def _whole_second(text: str) -> int:
    if text[11:13] == "24":  # which some versions of Python take for the next midnight
        raise ValueError(f"expected a time that exists, came {text + 'Z'!r}: the hour is 24")
    try:
        moment = datetime.fromisoformat(text + "+00:00")
    except ValueError as fault:
        raise ValueError(f"expected a time that exists, came {text + 'Z'!r}: {fault}") from None
    if not TIMES[0] <= moment < TIMES[1]:
        raise ValueError(f"expected a time from {TIMES[0].year} to before {TIMES[1].year}, came {text + 'Z'!r}")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * NANOSECONDS


@lru_cache(maxsize=4_096)
def _second_text(whole: int) -> str:
    return (_EPOCH + timedelta(seconds=whole)).isoformat()[:19]


@lru_cache(maxsize=4_096)
def rfc3339(time: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in `Z`; the fraction without trailing zeros, none when whole."""
    whole, fraction = divmod(time, NANOSECONDS)
    if not fraction:
        return _second_text(whole) + "Z"
    return f"{_second_text(whole)}.{fraction:09d}".rstrip("0") + "Z"


def seconds(duration: int) -> Decimal:
    """A duration in nanoseconds as exact seconds."""
    return Decimal(duration).scaleb(-9)


class _Time:
    """Pydantic marker: nanoseconds since 1970 inside, RFC 3339 in `Z` on the wire."""

    @staticmethod
    def read(value: object) -> int:
        if type(value) is int:
            return value
        if type(value) is not str:
            raise PydanticCustomError("time_string", "expected a time in a string, came {came}",
                                      {"came": type(value).__name__})
        try:
            return nanoseconds(value)
        except ValueError as fault:
            raise PydanticCustomError("time_text", "{fault}", {"fault": str(fault)}) from None

    @staticmethod
    def read_text(value: object) -> int:
        if type(value) is int:
            raise PydanticCustomError("time_string", "expected a time in a string, came {came}",
                                      {"came": str(value)[:60]})
        return _Time.read(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(self.read_text),
            python_schema=core_schema.no_info_plain_validator_function(self.read),
            serialization=core_schema.plain_serializer_function_ser_schema(
                rfc3339, return_schema=core_schema.str_schema(), when_used="json"))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema,
                                     handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}


Time = Annotated[int, _Time()]
