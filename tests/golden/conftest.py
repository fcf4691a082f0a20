"""Keeps what became of each vector, and prints the table when all tests are done."""

from __future__ import annotations

import pytest

from tests.golden.suite import Case, Outcome, report

VECTOR = "vector"
OUTCOMES: list[Outcome] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather what the tests noted of themselves: they may have run in other processes."""
    if report.when == "call":
        for name, noted in report.user_properties:
            if name == VECTOR and isinstance(noted, list | tuple):
                system, ident, kind, result, reason = noted
                OUTCOMES.append(Outcome(Case(system, ident, kind, {}), result, reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the vector suite, where any of it was run."""
    if OUTCOMES:
        terminalreporter.section("vectors")
        for line in report(OUTCOMES):
            terminalreporter.write_line(line)
