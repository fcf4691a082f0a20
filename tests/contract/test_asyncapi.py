"""The AsyncAPI document: as committed, whole, true of what is sent, and what counts as a change that breaks clients."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from infra.streams import asyncapi
from infra.streams.messages import messages
from infra.streams.topics import ACCOUNT_STATE, INPUTS, OUTPUTS
from ledger.commands import COMMANDS
from ledger.events import MarginCallIssued
from tests.unit.ledger_scenario import desk, long_account


def test_committed_document_agrees_with_the_models() -> None:
    assert asyncapi.FILE.read_text("utf-8") == asyncapi.text(), "run `make docs`, and read what it says of clients"


def test_every_topic_and_every_record_type_is_in_it() -> None:
    channels = asyncapi.document()["channels"]

    assert {*INPUTS, *OUTPUTS} == set(channels)
    assert sorted(COMMANDS) == sorted(kind for name in INPUTS for kind in channels[name]["messages"])


def test_a_margin_call_has_the_fields_that_the_document_says() -> None:
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "9000")
    (recorded,) = [recorded for recorded in s.log if isinstance(recorded.event, MarginCallIssued)]
    call, state = list(messages(recorded, "shard-0", s.state("A")))

    payload = asyncapi.document()["channels"]["margin-calls.v1"]["messages"]["margin-call-issued"]["payload"]
    assert set(payload["required"]) <= json.loads(call.value).keys() <= {*payload["properties"], "issued_at"}
    of_state = asyncapi.document()["channels"][ACCOUNT_STATE]["messages"]["account-state"]["payload"]
    assert json.loads(state.value).keys() == of_state["properties"].keys()


def gone(document: dict[str, Any]) -> None:
    del document["channels"]["outcomes.v1"]["messages"]["withdrawn"]


def without_field(document: dict[str, Any]) -> None:
    del document["channels"]["margin-calls.v1"]["messages"]["margin-call-issued"]["payload"]["properties"]["deadline"]


def required(document: dict[str, Any]) -> None:
    document["channels"]["accounts.v1"]["messages"]["fill"]["payload"]["required"].append("liquidity")


@pytest.mark.parametrize(("change", "said"), [
    (gone, "outcomes.v1: the message withdrawn is gone"),
    (without_field, "margin-calls.v1: margin-call-issued.deadline is gone"),
    (required, "accounts.v1: fill.liquidity is required now"),
])
def test_what_a_client_could_stumble_over_is_named(change: Any, said: str) -> None:
    new = copy.deepcopy(asyncapi.document())
    change(new)

    assert [said] == asyncapi.breaking(asyncapi.document(), new)


def test_an_optional_field_more_breaks_nobody() -> None:
    new = copy.deepcopy(asyncapi.document())
    new["channels"]["accounts.v1"]["messages"]["fill"]["payload"]["properties"]["note"] = {"type": "string"}

    assert [] == asyncapi.breaking(asyncapi.document(), new)
