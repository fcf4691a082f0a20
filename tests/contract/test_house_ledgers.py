"""The ledgers of a service with a house, held against each other: what is under way shows, what has come does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.embedded import open_ledger
from infra.replay import replay_ledger
from infra.streams.parts import shards_of
from tests.unit.test_between_shards import Service, opened, ruin


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two shards and their house, in files; the fund holds 1,500."""
    with ExitStack() as stack:
        made = opened(lambda shard: stack.enter_context(open_ledger(tmp_path / f"desk-{shard}.db")))
        made.send("fund-movement", "m", fund="insurance", asset="USD", amount="1500", kind="contribution")
        yield made


def differences(folder: Path) -> list[tuple[str, str]]:
    """(kind, what came) of what the ledgers do not agree on, but for trades: their other sides are not sent here."""
    words = [word for shard in shards_of(2) for word in ("--ledger", str(folder / f"desk-{shard}.db"))]
    result = CliRunner().invoke(app, ["reconcile", *words, "--json"])
    return [(row["kind"], row["came"]) for row in json.loads(result.stdout)["differences"] if row["kind"] != "trade"]


def test_a_claim_shows_until_its_answer_has_come(service: Service, tmp_path: Path) -> None:
    ruin(service, "A", "B")
    assert [("claim", "none"), ("claim", "none")] == differences(tmp_path)
    service.deliver()
    # The house has paid, and the account has not heard of it.
    assert [("fund", "500"), ("claim", "0"), ("claim", "none")] == differences(tmp_path)
    service.settle()

    assert [] == differences(tmp_path)
    assert [] == [row for shard in shards_of(2) for row in replay_ledger(tmp_path / f"desk-{shard}.db").differences]


def test_a_transfer_shows_until_it_has_arrived_or_is_back(service: Service, tmp_path: Path) -> None:
    service.send("transfer", "t1", account="A", to_account="B", asset="USD", amount="300")
    service.send("transfer", "t2", account="B", to_account="Z", asset="USD", amount="7")
    assert [("transfer", "307")] == differences(tmp_path)
    service.deliver()
    assert [("transfer", "7")] == differences(tmp_path)
    service.deliver()
    # Turned away, and on its way back.
    assert [("transfer", "7")] == differences(tmp_path)
    service.settle()

    assert [] == differences(tmp_path)


def test_a_ledger_opened_again_keeps_its_part(service: Service, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "other.db") as shard:
        shard.keep("house", {"part": "house", "shard": "house"})
    with open_ledger(tmp_path / "other.db") as shard:
        assert "house" == shard.house.part
