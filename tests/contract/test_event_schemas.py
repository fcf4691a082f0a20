"""The events that readers rely on: the committed schema, the topics, and models that let nothing in or through."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from infra import reference
from ledger import events
from ledger.between_shards import BETWEEN
from ledger.commands import COMMANDS
from ledger.errors import REJECTIONS
from ledger.events import EVENTS, TOPICS, UPCASTS, Cause, Deposited, Event

HOW_TO_AGREE = """\
docs/events.json and docs/events.md differ from the models:
{differences}
If only words changed, or the event is new: run `make docs` and commit what it writes.
If the fields of an event changed that was ever recorded: a changed event needs a new TOPIC version, with an entry in
UPCASTS for the old one; then run `make docs`, and name the event in CHANGELOG.md."""


def models(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """All models of the module `ledger.events` below `root`."""
    for model in root.__subclasses__():
        if model.__module__ == events.__name__:
            yield model
        yield from models(model)


MODELS = sorted(set(models(BaseModel)), key=lambda model: model.__name__)
WITH_TOPIC = [model for model in MODELS if issubclass(model, Event) and "TOPIC" in vars(model)]


# --- the committed reference -------------------------------------------------------------------------------------


def test_committed_reference_agrees_with_the_models() -> None:
    differences = reference.differences()
    if differences:
        pytest.fail(HOW_TO_AGREE.format(differences="\n".join(differences)), pytrace=False)


def test_reference_names_every_event_record_and_rejection() -> None:
    page = reference.page_text()

    assert all(f"### {event.__name__}\n\n`{event.TOPIC}` - " in page for event in EVENTS)
    assert all(f"| `{kind}` |" in page for kind in (*COMMANDS, *BETWEEN))
    assert all(f"| `{reason}` | {meaning} |" in page for reason, meaning in REJECTIONS.items())


def test_links_of_the_page_lead_somewhere() -> None:
    page = reference.page_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)}

    assert set() == set(re.findall(r"\]\(#([^)]+)\)", page)) - headings


def test_schema_keeps_the_order_of_the_bytes_in_the_log() -> None:
    written = json.loads(reference.schema_text())

    assert sorted(TOPICS) == list(written)
    for topic, event in TOPICS.items():
        assert list(event.model_fields) == list(written[topic]["properties"])


def test_check_ends_with_3_where_the_files_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check", "--docs", str(tmp_path)]) == 3
    assert "clearing.deposited:1: a new event" in capsys.readouterr().err
    assert reference.main(["--docs", str(tmp_path)]) == 0
    assert reference.main(["--check", "--docs", str(tmp_path)]) == 0

    schemas = json.loads((tmp_path / "events.json").read_text(encoding="utf-8"))
    (tmp_path / "events.json").write_text(json.dumps(schemas), encoding="utf-8")

    assert reference.main(["--check", "--docs", str(tmp_path)]) == 3


@pytest.mark.parametrize(("spoil", "expected"), [
    (lambda schema: schema["properties"].pop("amount"), "amount added"),
    (lambda schema: schema["properties"].update(tip={"type": "string"}), "tip removed"),
    (lambda schema: schema["properties"].update(asset={"type": "integer"}), "asset changed"),
    (lambda schema: schema["required"].remove("amount"), "amount changed"),
    (lambda schema: schema["$defs"]["Cause"]["properties"].pop("line"), "Cause.line added"),
    (lambda schema: schema["properties"].update(time=schema["properties"].pop("time")), "fields in another order"),
    (lambda schema: schema.update(additionalProperties=True), "(additionalProperties) changed"),
    (lambda schema: schema.update(description="Money."), "wording only"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_summary_says_what_changed(
    spoil: Callable[[dict[str, Any]], object], expected: str, tmp_path: Path,
) -> None:
    reference.main(["--docs", str(tmp_path)])
    schemas = json.loads((tmp_path / "events.json").read_text(encoding="utf-8"))
    spoil(schemas["clearing.deposited:1"])
    (tmp_path / "events.json").write_text(json.dumps(schemas), encoding="utf-8")

    assert [f"clearing.deposited:1: {expected}"] == reference.differences(tmp_path)


# --- topics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_event_has_its_own_topic_with_a_version(event: type[Event]) -> None:
    assert "TOPIC" in vars(event)
    assert re.fullmatch(r"clearing\.[a-z-]+:[0-9]+", event.TOPIC)
    assert [event] == [other for other in WITH_TOPIC if vars(other)["TOPIC"] == event.TOPIC]


def test_catalogue_holds_every_event_once() -> None:
    assert {event.__name__ for event in WITH_TOPIC} == {event.__name__ for event in EVENTS}
    assert len(EVENTS) == len(set(EVENTS)) == len(TOPICS)


def test_every_event_without_a_topic_is_only_a_stem() -> None:
    stems = [model for model in MODELS if issubclass(model, Event) and model not in WITH_TOPIC]

    assert [] == [stem.__name__ for stem in stems if stem is not Event and not stem.__subclasses__()]


def test_facts_answer_records_that_exist() -> None:
    records = {*COMMANDS, *BETWEEN}
    assert set() == {event.ANSWERS for event in EVENTS} - records - {None, "*"}
    assert set() == records - {event.ANSWERS for event in EVENTS}


def test_every_past_topic_leads_to_a_present_one() -> None:
    for old in UPCASTS:
        assert old not in TOPICS
        seen = {old}
        topic = old
        while topic in UPCASTS:
            topic, _ = UPCASTS[topic]
            assert topic not in seen, f"the upcasts of {old} go in a circle"
            seen.add(topic)
        assert topic in TOPICS


# --- models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_is_frozen_and_forbids_extras(model: type[BaseModel]) -> None:
    assert (True, "forbid") == (model.model_config.get("frozen"), model.model_config.get("extra"))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_may_be_absent_is_absent_unless_given(model: type[BaseModel]) -> None:
    """Absent fields are left out of the log: one with another default would come back changed."""
    for name, field in model.model_fields.items():
        may_be_absent = type(None) in get_args(field.annotation)

        assert may_be_absent == (not field.is_required()), name
        assert field.is_required() or field.get_default() is None, name


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_event_says_what_it_is(event: type[Event]) -> None:
    assert inspect.cleandoc(event.__doc__ or "").split("\n")[0].endswith((".", ":"))


def deposited() -> str:
    event = Deposited(
        time=0, cause=Cause(source="test", type="deposit", id="d1", time=0), account="A1", asset="USD",
        amount=Decimal(5), balance=Decimal("12.5"))
    return event.model_dump_json(exclude_none=True)


def test_event_refuses_a_field_that_it_does_not_know() -> None:
    state = json.loads(deposited())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Deposited.model_validate_json(json.dumps(state | {"tip": "1"}))


def test_event_cannot_be_changed() -> None:
    event = Deposited.model_validate_json(deposited())
    with pytest.raises(ValidationError, match="frozen"):
        event.account = "A2"  # type: ignore[misc]


def test_event_reads_back_as_the_same_bytes() -> None:
    state = deposited()

    assert state == Deposited.model_validate_json(state).model_dump_json(exclude_none=True)
