"""The vector suite: numbers that venues published or test, each against what the engine says of the same inputs.

A vector file holds the cases of one system. `tests/golden/adapters/SYSTEM.py` names for each kind of case the
function that puts its inputs into the engine's types and reads the result, or `NOT_SUPPORTED`. This file finds,
runs and compares; it knows no formula.
"""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_DOWN,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    ROUND_UP,
    Context,
    Decimal,
    InvalidOperation,
)
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ledger.amounts import exact

VECTORS: Final = Path(__file__).parent / "vectors"
Result = Literal["passed", "failed", "not supported"]
Adapter = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_ROUNDINGS: Final = {
    "half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN, "half_down": ROUND_HALF_DOWN, "down": ROUND_DOWN,
    "up": ROUND_UP, "up_to_tick": ROUND_CEILING, "ceiling": ROUND_CEILING, "floor": ROUND_FLOOR, "truncate": ROUND_DOWN}
_WIDE: Final = Context(prec=1_000)


def NOT_SUPPORTED(case: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stands where an adapter would: the kind is known and not computed, for the reason given in `docs/margin.md`."""
    raise NotImplementedError(f"{case.get('kind')} is not supported")


class Case(NamedTuple):
    """One case of one system, as its file gives it."""

    system: str
    id: str
    kind: str
    content: Mapping[str, Any]


class Outcome(NamedTuple):
    """What became of a case; `reason` is empty where it passed."""

    case: Case
    result: Result
    reason: str


def folder() -> Path:
    """The folder of vector files: `GOLDEN_VECTORS`, else our own copy."""
    return Path(os.environ.get("GOLDEN_VECTORS") or VECTORS)


def cases(where: Path | None = None) -> list[Case]:
    """Every case of every `*.json` in the folder, by file name and place in it."""
    found = []
    paths = sorted((where or folder()).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"expected vector files (*.json) in {where or folder()}, found none")
    for path in paths:
        for index, row in enumerate(json.loads(path.read_text("utf-8"), parse_float=Decimal)):
            found.append(Case(path.stem, str(row.get("id", index)), str(row.get("kind")), row))
    return found


def adapters(system: str) -> Mapping[str, Adapter] | None:
    """The adapter of each kind of a system; None where nobody has written one for the system."""
    name = f"tests.golden.adapters.{system.replace('-', '_')}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        return None
    kinds: Mapping[str, Adapter] = module.KINDS
    return kinds


def run(case: Case) -> Outcome:
    """Run one case. A kind that no adapter names fails; so does an adapter that raises."""
    kinds = adapters(case.system)
    if kinds is None:
        return Outcome(case, "not supported", f"no adapter for {case.system}")
    adapter = kinds.get(case.kind)
    if adapter is None:
        return Outcome(case, "failed", f"unknown kind {case.kind!r}")
    if adapter is NOT_SUPPORTED:
        return Outcome(case, "not supported", f"{case.kind} is not a pure function of its inputs, or not built yet")
    try:
        with exact():
            computed = adapter(case.content)
    except Exception as fault:  # one case that cannot be run must not hide the others
        return Outcome(case, "failed", f"{type(fault).__name__}: {fault}")
    faults = list(differences(case.content, computed))
    return Outcome(case, "failed", "; ".join(faults)) if faults else Outcome(case, "passed", "")


# --- comparison --------------------------------------------------------------------------------------------------


def differences(case: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterable[str]:
    """Where the computed values are not those expected, within the case's own tolerance, else exactly."""
    given = case.get("tolerance") or {}
    # A plain number is the absolute distance that the source itself allows.
    tolerance = dict(given) if isinstance(given, Mapping) else {"abs": given}
    if isinstance(case.get("rounding"), str):
        tolerance.setdefault("rounding", case["rounding"])
    elif isinstance(case.get("rounding"), Mapping):
        tolerance = {**case["rounding"], **tolerance}
    for key, value in case["expected"].items():
        if key not in computed:
            yield f"{key}: expected {_shown(value)}, came nothing"
        else:
            yield from _compare(key, value, computed[key], _Measure.of(tolerance, key))


class _Measure(NamedTuple):
    """How near is near enough, for one key: absolute, relative, or after rounding to decimals. All None: exactly."""

    absolute: Decimal | None
    relative: Decimal | None
    decimals: int | None
    places: tuple[int, ...]
    rounding: str

    @classmethod
    def of(cls, tolerance: Mapping[str, Any], key: str) -> _Measure:
        def named(name: str) -> Any:
            by_key = tolerance.get(f"{name}_by_key")
            if by_key and key in by_key:
                return by_key[key]
            return tolerance.get(name)

        absolute, relative, decimals = named("abs"), named("rel"), named("decimals")
        places = (tolerance.get("decimals_list") or {}).get(key, ())
        rounding = _ROUNDINGS[tolerance.get("rounding", "half_up")]
        return cls(None if absolute is None else Decimal(absolute), None if relative is None else Decimal(relative),
                   None if decimals is None else int(decimals), tuple(map(int, places)), rounding)

    def near(self, expected: Decimal, came: Decimal) -> bool:
        if expected == came:
            return True
        if self.absolute is not None and abs(expected - came) <= self.absolute:
            return True
        if self.relative is not None and abs(expected - came) <= self.relative * abs(expected):
            return True
        if self.decimals is None:
            return False
        unit = Decimal(1).scaleb(-self.decimals)
        return expected.quantize(unit, self.rounding, _WIDE) == came.quantize(unit, self.rounding, _WIDE)


def _compare(path: str, expected: Any, came: Any, measure: _Measure) -> Iterable[str]:
    if isinstance(expected, Mapping) and isinstance(came, Mapping):
        for key, value in expected.items():
            if key not in came:
                yield f"{path}.{key}: expected {_shown(value)}, came nothing"
            else:
                yield from _compare(f"{path}.{key}", value, came[key], measure)
        extra = sorted(set(map(str, came)) - set(map(str, expected)))
        if extra:
            yield f"{path}: expected no {', '.join(extra)}"
    elif isinstance(expected, list) and isinstance(came, list | tuple):
        if len(expected) != len(came):
            yield f"{path}: expected {len(expected)} values, came {len(came)}"
            return
        for index, (one, other) in enumerate(zip(expected, came, strict=True)):
            own = measure._replace(decimals=measure.places[index]) if index < len(measure.places) else measure
            yield from _compare(f"{path}[{index}]", one, other, own)
    elif not _same(expected, came, measure):
        yield f"{path}: expected {_shown(expected)}, came {_shown(came)}"


def _same(expected: Any, came: Any, measure: _Measure) -> bool:
    if expected is None or isinstance(expected, bool) or came is None or isinstance(came, bool):
        return expected is came
    one, other = _number(expected), _number(came)
    if one is not None and other is not None:
        return measure.near(one, other)
    return bool(expected == came)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, float):
        raise TypeError(f"a figure of the engine is never a float, came {value!r}")
    try:
        return Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        return None


def _shown(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


# --- the report --------------------------------------------------------------------------------------------------


def report(outcomes: Iterable[Outcome]) -> list[str]:
    """A table by system and kind, a line a system, and the line of all."""
    rows: dict[tuple[str, str], Counter[Result]] = {}
    systems: dict[str, Counter[Result]] = {}
    for outcome in outcomes:
        for counts in (rows.setdefault((outcome.case.system, outcome.case.kind), Counter()),
                       systems.setdefault(outcome.case.system, Counter())):
            counts[outcome.result] += 1
    width = max((len(kind) for _, kind in rows), default=4)
    lines = [f"{'system':<13} {'kind':<{width}} {'passed':>7} {'failed':>7} {'not supported':>14}"]
    lines += [f"{system:<13} {kind:<{width}} {counts['passed']:>7} {counts['failed']:>7} "
              f"{counts['not supported']:>14}" for (system, kind), counts in sorted(rows.items())]
    lines += [f"vectors {system}: {_tally(counts)}" for system, counts in sorted(systems.items())]
    lines.append(f"vectors: {_tally(sum(systems.values(), Counter()))}")
    return lines


def _tally(counts: Counter[Result]) -> str:
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['not supported']} not supported"
