"""Figures: what a benchmark measured, beside its peers, as a table and as JSON.

A sample is one run of ours with its peers measured right after it; the ratio of a figure is the median over runs of
(ours / first peer), so that neighbours on the machine weigh on both alike. It never measures anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Sample:
    """One run: our value, the peers' values of the same run (the first is the one compared with), and remarks."""

    value: float
    beside: Mapping[str, float] = field(default_factory=dict)
    also: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """The median over runs of a benchmark."""

    name: str
    value: float
    unit: str
    beside: Mapping[str, float]
    ratio: float | None
    min: float
    max: float
    runs: int
    also: Mapping[str, float | str]

    def as_json(self) -> dict[str, Any]:
        """The row of `bench.json`."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "beside": dict(self.beside),
                "ratio": self.ratio, "min": self.min, "max": self.max, "runs": self.runs, "also": dict(self.also)}


def figure(name: str, unit: str, samples: Sequence[Sample]) -> Figure:
    """The figure of at least one sample; remarks are those of the last run."""
    values = [sample.value for sample in samples]
    peers = list(samples[0].beside)
    beside = {peer: median(sample.beside[peer] for sample in samples) for peer in peers}
    ratio = median(sample.value / sample.beside[peers[0]] for sample in samples) if peers else None
    return Figure(name, median(values), unit, beside, ratio, min(values), max(values), len(samples),
                  samples[-1].also)


def table(figures: Sequence[Figure]) -> Table:
    """One line a figure and one a peer; `ours / peer` says how many times the peer's value ours is."""
    shown = Table(title="Figures", title_justify="left")
    for name in ("figure", "value", "min", "max"):
        shown.add_column(name, justify="left" if name == "figure" else "right", no_wrap=True)
    shown.add_column("unit")
    shown.add_column("beside")
    shown.add_column("its value", justify="right", no_wrap=True)
    shown.add_column("ours / peer", justify="right", no_wrap=True)
    for row in figures:
        lines = [(peer, number(value), f"{row.value / value:.3g} x") for peer, value in row.beside.items()]
        first, *others = lines or [("", "", "")]
        if lines and row.ratio is not None:
            first = (*first[:2], f"{row.ratio:.3g} x")
        shown.add_row(row.name, number(row.value), number(row.min), number(row.max), row.unit, *first,
                      end_section=not others and not row.also)
        for at, other in enumerate(others):
            shown.add_row("", "", "", "", "", *other, end_section=at == len(others) - 1 and not row.also)
        if row.also:
            shown.add_row("", "", "", "", "", "[dim]" + ", ".join(
                f"{name} {value if isinstance(value, str) else number(value)}" for name, value in row.also.items())
                + "[/dim]", "", "", end_section=True)
    return shown


def number(value: float) -> str:
    """A figure for the eye: three or four digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.2e}"
