"""Square roots to 18 places, by whole numbers, so that every machine finds the same."""

from __future__ import annotations

from decimal import Decimal
from math import isqrt

_PLACES = 18


def root_down(value: Decimal) -> Decimal:
    """The greatest decimal of 18 places whose square is not above `value` (>= 0)."""
    return Decimal(isqrt(int(value.scaleb(2 * _PLACES)))).scaleb(-_PLACES)


def root_up(value: Decimal) -> Decimal:
    """The least decimal of 18 places whose square is not below `value` (>= 0)."""
    root = root_down(value)
    return root if root * root == value else root + Decimal(1).scaleb(-_PLACES)
