"""The README tells the truth: it names every command, its files exist, and its calculator example answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from infra.calculator import answer
from infra.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name: str) -> None:
    assert f"clearing {name}" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_of_the_readme_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_calculator_example_of_the_readme_answers() -> None:
    example = re.search(r"echo '(\{.*\})' \| clearing margin -", README)

    assert example is not None
    figures = json.loads(answer(example[1].encode()).model_dump_json())
    # 1,000 - 500 of profit lost; 1 % of 9,500.
    assert ("500", "95", "healthy") == (figures["margin_equity"], figures["maintenance_margin"], figures["status"])
