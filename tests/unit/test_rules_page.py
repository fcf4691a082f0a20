"""The page of rules, docs/rules.md: every test that it names exists, and every test of the rules is named on it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "rules.md"
# `path::name`, as pytest takes it.
_NAMED: Final = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")
RULE_FILES: Final = [f"tests/unit/test_{name}.py" for name in (
    "identity", "time_and_order", "account_figures", "calls", "liquidation", "edge_accounts", "records_of_accounts",
    "records_of_markets")]


def named() -> list[tuple[str, str]]:
    """(file, test) of every test that the page names, in its order."""
    return _NAMED.findall(PAGE.read_text("utf-8"))


@cache
def rule_tests(path: str) -> dict[str, str]:
    """Name and docstring of each test of a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    """docs/rules.md: a rule is only held by a test that is there."""
    missing = [f"{path}::{name}" for path, name in named()
               if not (ROOT / path).is_file() or name not in rule_tests(path)]

    assert [] == missing


@pytest.mark.parametrize("path", RULE_FILES)
def test_every_test_of_the_rules_stands_on_the_page(path: str) -> None:
    """docs/rules.md: whoever reads the page sees all that holds a rule."""
    on_page = {name for file, name in named() if file == path}

    assert [] == [name for name in rule_tests(path) if name not in on_page]


@pytest.mark.parametrize("path", RULE_FILES)
def test_every_test_of_the_rules_says_which_rule_it_holds(path: str) -> None:
    """Each docstring quotes its section: `Semantics 4: ...`."""
    rule = re.compile(r"^(Semantics [1-7]|Contracts [12]|Issue 2)[^:]*: ")

    assert [] == [name for name, text in rule_tests(path).items() if not rule.match(text)]


def test_every_rule_of_the_page_names_a_test() -> None:
    """docs/rules.md: a row without a test is a rule that nothing holds."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    rules = [row for row in rows if row != "| rule | held by |"]

    assert rules
    assert [] == [row for row in rules if not _NAMED.search(row)]
