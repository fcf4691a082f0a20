"""Which prices a market takes, what mark they make, and when a mark is too old to liquidate on.

Variant `last:1`: the mark is the last accepted price. Variant `median:1`: it is the median of the last prices of all
sources that are fresh, the mean of the middle two where their number is even; of one source, its price. A price older
than the last accepted of its source is `late`; one further from the mark than the maximum step is a `step`, unless
the mark itself had grown stale by then, since a market that really moved while its feed was down must find back. This
file keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ledger.amounts import NANOSECONDS, WirePositive, plain, rfc3339


class OracleRule(BaseModel):
    """Maximum age of a mark in seconds, and maximum step of a price as a fraction of the mark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["last:1", "median:1"]
    max_age_seconds: int = Field(strict=True, gt=0)
    max_step: WirePositive

    def is_stale(self, *, mark_time: int, now: int) -> bool:
        """Whether a mark of `mark_time` is too old at log time `now` (ns); age is never below zero."""
        return now - mark_time > self.max_age_seconds * NANOSECONDS


def fault_of_price(rule: OracleRule, *, price: Decimal, time: int, last_time: int | None, mark: Decimal | None,
                   mark_time: int) -> tuple[Literal["late", "step"], str] | None:
    """Why a price is not taken, with a sentence; None where it is. `last_time` is that of the price's source."""
    if last_time is not None and time < last_time:
        return "late", f"expected a time not before {rfc3339(last_time)}, the source's last, came {rfc3339(time)}"
    if mark is None or rule.is_stale(mark_time=mark_time, now=time):
        return None
    if abs(price - mark) > rule.max_step * mark:
        return "step", (f"expected a price within {plain(rule.max_step * 100)} % of the mark {plain(mark)}, "
                        f"came {plain(price)}")
    return None


def mark_of(rule: OracleRule, prices: Iterable[tuple[int, Decimal]]) -> Decimal:
    """The mark that the last (time, price) of each source make, the price just taken being the last of them.

    Fresh are those within the rule's maximum age of the latest. Exact.
    """
    rows = list(prices)
    if rule.variant == "last:1" or len(rows) == 1:
        return rows[-1][1]
    latest = max(time for time, _ in rows)
    fresh = sorted(price for time, price in rows if not rule.is_stale(mark_time=time, now=latest))
    middle = len(fresh) // 2
    return fresh[middle] if len(fresh) % 2 else (fresh[middle - 1] + fresh[middle]) / 2
