"""Figures: what a benchmark measured, beside its peers, as a table and as JSON.

A sample is one run of ours with its peers measured right after it; the ratio of a figure is the median over runs of
(ours / first peer), so that neighbours on the machine weigh on both alike. It never measures anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
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
    """A line a figure and one a peer; `ours / peer` says how many times the peer's value ours is."""
    shown = Table(title="Figures", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("figure, and beside it")
    for name in ("value", "unit", "ours / peer"):
        shown.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    for row in figures:
        shown.add_row(f"[bold]{row.name}[/bold]", f"[bold]{number(row.value)}[/bold]", row.unit)
        for at, (peer, value) in enumerate(row.beside.items()):
            ratio = row.value / value if at or row.ratio is None else row.ratio
            shown.add_row(f"  {peer}", number(value), row.unit, number(ratio))
        remarks = [f"{row.runs} {'run' if row.runs == 1 else 'runs'}"]
        if row.runs > 1:
            remarks[0] += f" from {number(row.min)} to {number(row.max)}"
        remarks += [f"{name} {value if isinstance(value, str) else number(value)}" for name, value in row.also.items()]
        shown.add_row(f"  [dim]{', '.join(remarks)}[/dim]", end_section=True)
    return shown


def number(value: float) -> str:
    """A figure for the eye: three or four digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.2e}"
