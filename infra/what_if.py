"""What a portfolio would come to, were its marks other: the calculator asked again, once for each move.

A move names an instrument, an asset or `*` (every mark) and a change in percent. Answers are the calculator's own.
This file never computes a figure and never records anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple

from infra.calculator import BadInput, MarginAnswer, answer, read_question
from infra.input_fault import InputFault
from ledger.amounts import FINEST, PRICE_MAX, PRICE_MIN, divide_down, exact, plain

_MOVE: Final = re.compile(r"(.+)=([+-]?[0-9]{1,6}(?:\.[0-9]{1,6})?)%").fullmatch
GRID: Final = tuple(Decimal(step) for step in (-50, -40, -30, -20, -15, -10, -5, -2, 0, 2, 5, 10, 15, 20, 30, 40, 50))
EVERY: Final = "*"


class Move(NamedTuple):
    """A change of one mark, or of every (`*`), in percent."""

    name: str
    percent: Decimal

    def __str__(self) -> str:
        return f"{self.name} {'+' if self.percent > 0 else ''}{plain(self.percent)} %"


def read_move(text: str) -> Move:
    """A move such as `BTC-USD=-10%`; BadInput says what was expected."""
    match = _MOVE(text)
    if match is None:
        raise BadInput([InputFault("", f"expected a move such as BTC-USD=-10% or *=-10%, came {text!r}")])
    move = Move(match[1], Decimal(match[2]))
    if move.percent <= -100:
        raise BadInput([InputFault("", f"expected a fall of less than 100 %, came {text!r}")])
    return move


def moved(raw: bytes, moves: Iterable[Move], *, with_prices: bool = True) -> MarginAnswer:
    """The calculator's answer with marks moved, each to 18 places, down; BadInput where a move names no mark."""
    document: dict[str, Any] = json.loads(raw)
    marks: dict[str, str] = dict(document["marks"])
    for move in moves:
        names = list(marks) if move.name == EVERY else [move.name]
        for name in names:
            if name not in marks:
                raise BadInput([InputFault(f"marks.{name}", f"expected a mark of {name} to move, came nothing")])
            with exact():
                price = divide_down(Decimal(marks[name]) * (100 + move.percent), Decimal(100), FINEST)
                marks[name] = plain(min(max(price, PRICE_MIN), PRICE_MAX))
    return answer(json.dumps({**document, "marks": marks}).encode(), with_prices=with_prices)


def what_if(raw: bytes, moves: Sequence[Move]) -> MarginAnswer:
    """All moves at once, on a question that was read and found sound first."""
    read_question(raw)
    return moved(raw, moves)


def fine_grid(raw: bytes, name: str, steps: Sequence[Decimal], parts: int = 10) -> list[Mapping[str, Any]]:
    """The grid with each step at which the status changes divided into equal parts."""
    rows = grid(raw, name, steps)
    between = [low + (high - low) * part / parts for low, high, (one, other) in zip(
        steps, steps[1:], pairwise(row["status"] for row in rows), strict=False) if one != other
        for part in range(1, parts)]
    return sorted([*rows, *grid(raw, name, between)], key=lambda row: Decimal(row["move"]))


def grid(raw: bytes, name: str = EVERY, steps: Sequence[Decimal] = GRID) -> list[Mapping[str, Any]]:
    """The account's figures at each step of one mark, or of every mark together, in percent."""
    read_question(raw)
    rows: list[Mapping[str, Any]] = []
    for step in steps:
        found = moved(raw, [Move(name, step)], with_prices=False)
        rows.append({"move": plain(step), "status": found.status, "account_equity": found.account_equity,
                     "margin_equity": found.margin_equity, "initial_margin": found.initial_margin,
                     "maintenance_margin": found.maintenance_margin, "margin_ratio": found.margin_ratio,
                     "free_collateral": found.free_collateral})
    return rows
