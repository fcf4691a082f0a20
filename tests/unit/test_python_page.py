"""The page on margin from Python: every line of it runs and gives what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_every_line_of_the_page_gives_what_it_says() -> None:
    told: list[str] = []
    example = doctest.DocTestParser().get_doctest(PAGE.read_text("utf-8"), {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(verbose=False).run(example, out=told.append)

    assert [] == told
    assert 30 < result.attempted
