"""A picture of an account over moves of its marks: its margin ratio and status above, equity and margins below.

For the eye: figures become floats here and go nowhere else. This file never computes a figure and never decides
anything; it is the only one that knows matplotlib, which is an optional package (`clearing-ledger[plot]`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES: Final = (".png", ".svg")
# Close enough for the eye, and the steps of the table are among them.
STEPS: Final = tuple(sorted({*map(Decimal, range(-50, 51, 2)), *map(Decimal, (-15, -5, 5, 15))}))
_COLOURS: Final = {"healthy": "#2a7f4f", "warning": "#c9a400", "margin-call": "#d9720b", "liquidation": "#b3261e",
                   "bankrupt": "#5b1a5e", "unpriced": "#7a7a7a"}
# A ratio far above all lines says nothing more, and would press them flat.
_RATIO_OF_WARNING_MAX: Final = 3.0


class Lines(NamedTuple):
    """The lines of the margin ratio."""

    warning: Decimal
    call: Decimal
    liquidation: Decimal


class Span(NamedTuple):
    """A run of moves with one status, from and to in percent, half-way to its neighbours."""

    status: str
    start: float
    end: float


def spans(rows: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The runs of one status in rows of the grid, in order; between two runs the edge is half-way."""
    moves = [float(row["move"]) for row in rows]
    edges = [moves[0], *((low + high) / 2 for low, high in pairwise(moves)), moves[-1]]
    found = []
    place = 0
    for status, run in groupby(rows, key=lambda row: str(row["status"])):
        count = len(list(run))
        found.append(Span(status, edges[place], edges[place + count]))
        place += count
    return found


def draw(path: Path, rows: Sequence[Mapping[str, Any]], *, mark: str, unit: str, lines: Lines, title: str) -> None:
    """Write the picture of rows of the grid to a .png or .svg file. ImportError: matplotlib is not installed."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "clearing", "font.size": 10}):
        figure = Figure(figsize=(9, 7), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _shade((above, below), rows)
        _ratio(above, rows, lines)
        _amounts(below, rows, unit)
        above.set_title(title, fontsize=11)
        below.set_xlabel(f"move of {'every mark' if mark == '*' else mark} in %")
        below.set_xlim(float(rows[0]["move"]), float(rows[-1]["move"]))
        # Neither a date nor a version, so that the same question gives the same bytes.
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def _shade(panels: Sequence[Axes], rows: Sequence[Mapping[str, Any]]) -> None:
    for panel in panels:
        for span in spans(rows):
            panel.axvspan(span.start, span.end, color=_COLOURS[span.status], alpha=0.14, linewidth=0)
        panel.axvline(0, color="#444444", linewidth=0.8, linestyle=":")
        panel.grid(color="#cccccc", linewidth=0.4)


def _ratio(panel: Axes, rows: Sequence[Mapping[str, Any]], lines: Lines) -> None:
    top = float(lines.warning) * _RATIO_OF_WARNING_MAX
    known = [(float(row["move"]), float(row["margin_ratio"])) for row in rows if row["margin_ratio"] is not None]
    panel.plot([move for move, _ in known], [ratio for _, ratio in known], color="#1b1b1b", linewidth=1.8)
    lowest = min([0.0, *(ratio for _, ratio in known)])
    panel.set_ylim(max(lowest, -top / 2) - top * 0.03, top)
    # Side by side, since the lines lie close to each other.
    for name, line, status, place in (("warning", lines.warning, "warning", 1.0),
                                      ("call", lines.call, "margin-call", 0.87),
                                      ("liquidation", lines.liquidation, "liquidation", 0.77)):
        panel.axhline(float(line), color=_COLOURS[status], linewidth=1, linestyle="--")
        panel.annotate(f"{name} {line}", (place, float(line)), xycoords=("axes fraction", "data"), xytext=(-4, 2),
                       textcoords="offset points", ha="right", va="bottom", fontsize=8, color=_COLOURS[status])
    panel.set_ylabel("margin ratio")
    panel.legend(handles=list(_patches(rows)), loc="upper left", fontsize=8, title="status", title_fontsize=8)


def _patches(rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    from matplotlib.patches import Patch

    found = {str(row["status"]) for row in rows}
    for status, colour in _COLOURS.items():
        if status in found:
            yield Patch(color=colour, alpha=0.4, label=status)


def _amounts(panel: Axes, rows: Sequence[Mapping[str, Any]], unit: str) -> None:
    moves = [float(row["move"]) for row in rows]
    for key, colour, style in (("margin_equity", "#1b1b1b", "-"), ("initial_margin", "#1f5fa8", "-."),
                               ("maintenance_margin", "#b3261e", "--")):
        panel.plot(moves, [float(row[key]) for row in rows], color=colour, linestyle=style, linewidth=1.5,
                   label=key.replace("_", " "))
    panel.set_ylabel(unit)
    panel.ticklabel_format(axis="y", style="plain", useOffset=False)
    panel.legend(loc="upper left", fontsize=8)
