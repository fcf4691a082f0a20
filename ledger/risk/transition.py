"""Risk that may not worsen: what an account below its initial margin may still do, and which account is riskier.

Variant `not-riskier:1`. Ratios are compared by cross-multiplication. This file knows three figures and nothing of
how they came about.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

Verdict = Literal["success", "newly_undercollateralized", "still_undercollateralized"]


class Risk(NamedTuple):
    """What an account has and what it needs, in one asset; the figures of parts add up to those of the whole."""

    equity: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal

    @property
    def meets_initial(self) -> bool:
        """Whether risk may be added; equality is enough."""
        return self.equity >= self.initial_margin

    @property
    def meets_maintenance(self) -> bool:
        """Whether equity covers maintenance margin; equality is enough."""
        return self.equity >= self.maintenance_margin

    @property
    def liquidatable(self) -> bool:
        """Whether it is past the line; debt without positions is bad debt and not liquidatable."""
        return self.maintenance_margin > 0 and self.maintenance_margin > self.equity


def compare_risk(first: Risk, second: Risk) -> int:
    """1 where the first is riskier, -1 where the second is, 0 where they are alike.

    Formula:  the lower equity / maintenance margin is riskier, cross-multiplied; of equals the greater maintenance
              margin, and without any maintenance margin the lower equity.
    Source:   dYdX v4, `margin.Risk.Cmp`.
    """
    left = second.equity * first.maintenance_margin
    right = first.equity * second.maintenance_margin
    if left == right:
        if not first.maintenance_margin and not second.maintenance_margin:
            left, right = second.equity, first.equity
        else:
            left, right = first.maintenance_margin, second.maintenance_margin
    return (left > right) - (left < right)


def transition(before: Risk, after: Risk) -> Verdict:
    """Whether a change is allowed: it ends at or above initial margin, or `without_worsening` lets it pass."""
    return "success" if after.meets_initial else without_worsening(before, after)


def without_worsening(before: Risk, after: Risk) -> Verdict:
    """Whether a change that ends below initial margin leaves the account no riskier than it was.

    It passes where maintenance margin does not rise and equity / maintenance margin does not fall; where neither
    state has maintenance margin, only where equity strictly rises; where one of them has, never. What fails is
    `newly` or `still` undercollateralised by the state before.
    Source: dYdX v4, `IsValidStateTransitionForUndercollateralizedSubaccount`.
    """
    failed: Verdict = "newly_undercollateralized" if before.meets_initial else "still_undercollateralized"
    if after.maintenance_margin > before.maintenance_margin:
        return failed
    if not after.maintenance_margin or not before.maintenance_margin:
        neither = not after.maintenance_margin and not before.maintenance_margin
        return "success" if neither and after.equity > before.equity else failed
    return failed if compare_risk(after, before) > 0 else "success"
