"""Where a figure that falls between two prices turns negative, to the finest price there is.

The figure is asked at prices, never assumed: a guess by the straight line and one by the inverse (1 / price) are
exact where the figure has that shape, and halving ends the search where it has neither. This file knows no margin.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from ledger.amounts import FINEST, divide_down, round_down

Figure = Callable[[Decimal], Decimal]
# Three guesses a round, one of which halves; prices have at most 30 digits, about a hundred bits.
_ROUNDS_MAX = 160


def crossing(figure: Figure, *, near: Decimal, near_value: Decimal, far: Decimal, far_value: Decimal) -> Decimal:
    """The price where `figure` is still >= 0 and, a finest step (10^-18) further towards `far`, no longer.

    `near_value` >= 0 > `far_value` are the figure at the two ends. Where it crosses more than once in between, one
    of the crossings. Rounding: towards `near`.
    """
    step = FINEST if far > near else -FINEST
    for _ in range(_ROUNDS_MAX):
        for guess in (_straight, _inverse, _halfway):
            if abs(far - near) <= FINEST:
                return near
            price = _between(guess(near, near_value, far, far_value), near, far)
            value = figure(price)
            if value < 0:
                far, far_value = price, value
                continue
            near, near_value = price, value
            beyond = figure(near + step)
            if beyond < 0:
                return near
            near, near_value = near + step, beyond
    raise ArithmeticError(f"no price found between {near} and {far}")


def _straight(near: Decimal, near_value: Decimal, far: Decimal, far_value: Decimal) -> Decimal:
    fall = near_value - far_value
    return divide_down(near * fall + (far - near) * near_value, fall, FINEST)


def _inverse(near: Decimal, near_value: Decimal, far: Decimal, far_value: Decimal) -> Decimal:
    """The zero of a + c / price through both ends."""
    below = far * (near_value - far_value) + (near - far) * near_value
    above = near * far * (near_value - far_value)
    return divide_down(above, below, FINEST) if below > 0 else near


def _halfway(near: Decimal, near_value: Decimal, far: Decimal, far_value: Decimal) -> Decimal:
    """The middle by size where the ends are far apart, else the plain middle."""
    low, high = min(near, far), max(near, far)
    if low > 0 and high > low * 4:
        digits = (low.adjusted() + high.adjusted()) // 2
        middle = Decimal(1).scaleb(digits)
        if low < middle < high:
            return middle
    return round_down((low + high) / 2, FINEST)


def _between(price: Decimal, near: Decimal, far: Decimal) -> Decimal:
    low, high = min(near, far) + FINEST, max(near, far) - FINEST
    return near if low > high else min(max(price, low), high)
