"""The engine against the numbers of the venues, case by case; and the comparison itself, which could hide a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from tests.golden.suite import Case, cases, differences, report, run


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.system}-{case.kind}-{case.id}") for case in cases()])
def test_vector(case: Case, record_property: Callable[[str, object], None]) -> None:
    outcome = run(case)
    record_property("vector", [case.system, case.id, case.kind, outcome.result, outcome.reason])
    if outcome.result == "not supported":
        pytest.skip(outcome.reason)

    assert outcome.result == "passed", outcome.reason


@pytest.mark.parametrize(("tolerance", "expected", "came", "equal"), [
    ({}, "1.0", Decimal("1.00"), True),
    ({}, "1.0", Decimal("1.0000000001"), False),
    ({"abs": "0"}, "1", Decimal("1.1"), False),
    ({"abs": "0.1"}, "1", Decimal("1.1"), True),
    ({"rel": "0.01"}, "100", Decimal("101"), True),
    ({"rel": "0.01"}, "100", Decimal("101.1"), False),
    ({"decimals": 2, "rounding": "half_up"}, "1.01", Decimal("1.005"), True),
    ({"decimals": 2, "rounding": "down"}, "1.00", Decimal("1.009"), True),
    ({"decimals": 2, "rounding": "down"}, "1.01", Decimal("1.009"), False),
    ({"decimals": 2, "rounding": "up_to_tick"}, "1.01", Decimal("1.0000001"), True),
    ({"decimals_by_key": {"figure": 1}}, "1.2", Decimal("1.249"), True),
    ({"decimals_by_key": {"another": 1}}, "1.2", Decimal("1.249"), False),
    ({"decimals_list": {"figure": [3, 1]}}, ["1.234", "1.2"], [Decimal("1.2341"), Decimal("1.249")], True),
    ({"decimals_list": {"figure": [3, 3]}}, ["1.234", "1.2"], [Decimal("1.2341"), Decimal("1.249")], False),
    ({}, None, None, True),
    ({}, None, Decimal(0), False),
    ({}, True, True, True),
    ({}, True, Decimal(1), False),
    ({}, ["a"], ["a", "b"], False),
    ({}, {"a": "1"}, {"a": Decimal(1)}, True),
    ({}, {"a": "1"}, {"a": Decimal(1), "b": Decimal(2)}, False),
])
def test_comparison_keeps_to_the_tolerance(tolerance: Mapping[str, Any], expected: Any, came: Any, equal: bool) -> None:
    found = list(differences({"expected": {"figure": expected}, "tolerance": tolerance}, {"figure": came}))

    assert equal == (not found), found


def test_a_figure_that_is_not_computed_is_a_difference() -> None:
    assert list(differences({"expected": {"figure": "1"}}, {})) == ["figure: expected '1', came nothing"]


def test_a_case_of_an_unknown_kind_fails() -> None:
    outcome = run(Case("binance", "made-up", "no-such-kind", {"expected": {}}))

    assert (outcome.result, outcome.reason) == ("failed", "unknown kind 'no-such-kind'")
    assert report([outcome])[-2:] == ["vectors binance: 0 passed, 1 failed, 0 not supported",
                                      "vectors: 0 passed, 1 failed, 0 not supported"]
