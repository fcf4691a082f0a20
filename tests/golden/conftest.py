"""Keeps what became of each vector, and prints the table when all tests are done."""

from __future__ import annotations

import pytest

from tests.golden.suite import Outcome, report

OUTCOMES: list[Outcome] = []


@pytest.fixture
def outcomes() -> list[Outcome]:
    """Where the vector tests put what became of each case."""
    return OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the vector suite, where any of it was run."""
    if OUTCOMES:
        terminalreporter.section("vectors")
        for line in report(OUTCOMES):
            terminalreporter.write_line(line)
