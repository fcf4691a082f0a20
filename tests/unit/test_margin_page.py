"""The page on margin tells the truth: its Python runs and gives what it says, its functions exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "margin.md").read_text("utf-8")


def test_the_python_of_the_page_gives_what_it_says() -> None:
    block = PAGE.partition("## 14. As a Python function")[2].partition("## 15.")[0]
    code = "\n".join(line[4:] for line in block.splitlines() if line.startswith("    ") or not line)
    names: dict[str, Any] = {}
    exec(code, names)
    pool = names["pool"]

    assert "# 1100, 610, 24.4, 'healthy'" in code
    assert (1100, 610) == (pool.margin_equity, pool.initial_margin)
    assert "24.4" == str(pool.maintenance_margin.normalize())


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(ledger\.risk\.\w+\.\w+)`", PAGE))))
def test_every_function_of_the_page_exists(name: str) -> None:
    module, _, function = name.rpartition(".")

    assert callable(getattr(importlib.import_module(module), function))


def test_the_variants_of_the_page_are_those_of_the_blocks() -> None:
    import ledger.risk.haircuts
    import ledger.risk.pool
    import ledger.risk.portfolio
    import ledger.risk.scenario
    import ledger.risk.schedule
    import ledger.risk.surroundings

    files = (ledger.risk.haircuts, ledger.risk.pool, ledger.risk.portfolio, ledger.risk.scenario, ledger.risk.schedule,
             ledger.risk.surroundings)
    texts = [Path(module.__file__ or "").read_text("utf-8") for module in files]
    variants = {name for text in texts for name in re.findall(r'variant: Literal\["([^"]+)"\]', text)}

    assert not {name for name in variants if f"`{name}`" not in PAGE}
