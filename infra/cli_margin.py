"""The commands about margin that need no ledger: the calculator, what-if tables, and the shipped rulebooks.

This file never computes a figure: it reads the command line, calls, and prints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli_console import AsCsv, AsJson, CommandFault, Output, Part, remark, show, stdout_console

_GRID: Final = {"move %": "move", "status": "status", "margin equity": "margin_equity", "IM": "initial_margin",
                "MM": "maintenance_margin", "ratio": "margin_ratio", "free collateral": "free_collateral"}


def margin(
        file: Annotated[str, typer.Argument(
            metavar="FILE", help="A portfolio in JSON; - is standard input.", show_default=False)],
        as_table: Annotated[bool, typer.Option("--table", help="Print tables and sentences, not JSON.")] = False,
        what_if: Annotated[list[str] | None, typer.Option(
            "--what-if", metavar="MARK=PERCENT", help="Move a mark first, such as BTC-USD=-10%; * is every mark. "
            "May be given more than once.")] = None,
        grid: Annotated[bool, typer.Option("--grid", help="Print a table of moves from -50 to +50 %.")] = False,
        mark: Annotated[str, typer.Option(
            "--mark", metavar="MARK", help="Which mark --grid and --plot move; * is every mark.")] = "*",
        plot: Annotated[Path | None, typer.Option(
            "--plot", metavar="FILE", help="Draw status and ratio over the moves of --grid into a .png or .svg file.",
            show_default=False)] = None,
        as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
        csv: AsCsv = False) -> None:
    """Calculate the margin of a portfolio; nothing is recorded.

    \b
    Example: echo '{"rulebook": "house", "account": {"collateral": {"USD": "1000"}, "positions":
    [{"instrument": "BTC-USD", "signed_size": "1", "entry_price": "10000"}]},
    "marks": {"BTC-USD": "9500"}}' | clearing margin -
    """
    from infra.calculator import REQUEST_BYTES_MAX, BadInput, answer, read_question
    from infra.streams.records import open_input
    from infra.what_if import grid as grid_of
    from infra.what_if import moved, read_move

    if (grid or plot) and what_if:
        raise CommandFault(f"expected {'--grid' if grid else '--plot'} or --what-if, came both; leave one out")
    if (csv and not grid) or (mark != "*" and not (grid or plot)):
        raise CommandFault("--csv and --mark say how --grid prints; add --grid, or leave them out")
    with open_input(file) as stream:
        raw = stream.read(REQUEST_BYTES_MAX + 1)
    try:
        if plot:
            _plot(plot, raw, mark)
        if grid:
            rows = grid_of(raw, mark)
            show(Output(json=as_json or not (as_table or csv), csv=csv),
                 [Part("grid", rows, tuple(_GRID.values()), _GRID, "")])
        if grid or plot:
            return
        if what_if:
            read_question(raw)
            found = moved(raw, [read_move(text) for text in what_if])
        else:
            found = answer(raw)
    except BadInput as fault:
        raise CommandFault(f"{file}: " + f"\nError: {file}: ".join(map(str, fault.faults))) from None
    if not as_table:
        typer.echo(found.model_dump_json(indent=2))
        return
    _print(found.model_dump())


def _plot(path: Path, raw: bytes, mark: str) -> None:
    """Draw the grid; CommandFault says what is missing."""
    from infra.calculator import read_question, rulebook_of
    from infra.margin_plot import STEPS, SUFFIXES, Lines, draw
    from infra.what_if import fine_grid

    if path.suffix not in SUFFIXES:
        raise CommandFault(f"expected a file name that ends in {' or '.join(SUFFIXES)}, came {path}")
    rules = rulebook_of(read_question(raw))
    lines = Lines(rules.thresholds.warning, rules.thresholds.call, rules.thresholds.liquidation)
    rows = fine_grid(raw, mark, STEPS)
    try:
        draw(path, rows, mark=mark, unit=rules.valuation_asset, lines=lines,
             title=f"Margin under rulebook {rules.name} {rules.version}")
    except ImportError:
        raise CommandFault("drawing needs matplotlib, which is not installed: pip install 'clearing-ledger[plot]'"
                           ) from None
    except OSError as fault:
        raise CommandFault(f"expected to write {path}: {fault.strerror or fault}") from None
    remark(f"Drawn into {path}.")


def _print(document: dict[str, Any]) -> None:
    positions = [{"pool": pool["pool"], **row} for pool in document["pools"] for row in pool["positions"]]
    figures = {"pool": "pool", "status": "status", "account equity": "account_equity",
               "margin equity": "margin_equity", "IM": "initial_margin", "MM": "maintenance_margin",
               "ratio": "margin_ratio", "free collateral": "free_collateral", "withdrawable": "withdrawable"}
    show(Output(), [
        Part("pools", [*document["pools"], {"pool": "all", **document}], (), figures, ""),
        Part("positions", positions, (), {
            "pool": "pool", "instrument": "instrument", "size": "signed_size", "mark": "mark", "notional": "notional",
            "unrealised PnL": "unrealised_pnl", "IM": "initial_margin", "MM": "maintenance_margin",
            "liquidation price": "liquidation_price", "bankruptcy price": "bankruptcy_price"}, "No positions."),
        Part("exposures", document["exposures"], (), {
            "underlying": "underlying", "net delta": "net_delta", "net notional": "net_notional",
            "gross notional": "gross_notional"}, "")])
    for sentence in document["explanation"]:
        stdout_console().print(sentence, soft_wrap=True)


def rulebooks(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the rulebooks that come with the package.

    \b
    Example: clearing rulebooks
    """
    from ledger.protocol_rulebook import protocol, protocol_names
    from ledger.rulebook import shipped, shipped_versions

    rows: list[dict[str, Any]] = [
        {"name": book.name, "version": book.version, "kind": "rulebook", "valuation_asset": book.valuation_asset,
         "title": book.title} for place in shipped_versions() if (book := shipped(*place)) is not None]
    # A protocol's accounts are not our pools: its rules are data for its own functions, and no ledger runs under them.
    rows += [{"name": own.name, "version": own.version, "kind": "protocol", "valuation_asset": None,
              "title": own.title} for name in protocol_names() if (own := protocol(name)) is not None]
    fields = ("name", "version", "kind", "valuation_asset", "title")
    show(Output(json=as_json, csv=as_csv), [Part("rulebooks", rows, fields, {
        "name": "name", "version": "version", "kind": "kind", "valued in": "valuation_asset", "title": "title"},
        "No rulebooks.")])


def rulebook(
        name: Annotated[str, typer.Argument(
            metavar="NAME", help="The name of a rulebook, such as house or house-2.", show_default=False)],
        version: Annotated[int | None, typer.Option(
            "--version", metavar="N", help="Which version; the latest unless told, of house the default.")] = None,
        as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False) -> None:
    """Print a rulebook whole, as JSON that (but for a protocol's) a `rulebook` record and the calculator take.

    \b
    Example: clearing rulebook binance-usdm
    """
    from ledger.protocol_rulebook import protocol, protocol_names
    from ledger.rulebook import named, shipped, shipped_names

    found = shipped(name, version) or (named(name) if version is None else None) or protocol(name, version)
    if found is None:
        names = [*shipped_names(), *protocol_names()]
        wanted = f"version {version} of {name!r}" if name in names else repr(name)
        raise CommandFault(f"expected one of {', '.join(names)}, came {wanted}")
    typer.echo(json.dumps(found.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False))
