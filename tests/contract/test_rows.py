"""Rows of the log: ordinary eventsourcing rows that load for ever, one of every type; strangers are refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteDatastore, SQLiteProcessRecorder
from pydantic import BaseModel

from infra.embedded import in_memory, open_ledger
from infra.store.sqlite import file_uri
from infra.streams.records import Place, read
from ledger.encoding import decode, encode
from ledger.errors import LedgerLocked, LedgerUnreadable
from ledger.events import EVENTS, TOPICS, Event
from projections.merkle import leaf_hash, root_of

LISTING = (b'{"type":"asset","id":"a%d","time":"2019-09-24T18:00:00Z","asset":"USD\xc3\xa9 %d","quantum":"0.01"}')


def example(annotation: Any) -> Any:
    """A value of a field's type as the JSON of the log has it."""
    if get_origin(annotation) is not None and annotation.__class__.__name__ == "_LiteralGenericAlias":
        return get_args(annotation)[0]
    arguments = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is list:
        return [example(arguments[0])]
    if get_origin(annotation) is dict:
        return {"K": example(arguments[1]) if arguments[1] is not Any else 1}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return body(annotation)
    if annotation is str:
        return "text"
    if annotation is int:
        return 7
    if annotation is bool:
        return True
    return example(arguments[0]) if arguments else "1.25"


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Every field of a model filled, optional ones too."""
    filled = {}
    for name, field in model.model_fields.items():
        pattern = model.model_json_schema()["properties"][name]
        shapes = [pattern, *pattern.get("anyOf", [])]
        if any(shape.get("format") == "date-time" for shape in shapes):
            filled[name] = "2019-09-24T18:00:00.5Z"
        elif any("pattern" in shape for shape in shapes):
            filled[name] = "1.25"
        else:
            filled[name] = example(field.annotation)
    return filled


@pytest.mark.parametrize("kind", EVENTS, ids=[kind.__name__ for kind in EVENTS])
def test_a_stored_event_of_every_type_loads_and_is_written_the_same_again(kind: type[Event]) -> None:
    event = kind.model_validate_json(json.dumps(body(kind)))
    state = encode(event)

    loaded = decode(kind.TOPIC, state)

    assert event == loaded
    assert state == encode(loaded)
    assert list(kind.model_fields) == list(json.loads(state))


def test_an_unknown_topic_is_refused_with_its_name() -> None:
    with pytest.raises(LedgerUnreadable, match=r"clearing\.unheard-of:1"):
        decode("clearing.unheard-of:1", b"{}")


def test_a_topic_is_never_imported_from_a_row() -> None:
    assert "os:system" not in TOPICS
    with pytest.raises(LedgerUnreadable, match="os:system"):
        decode("os:system", b'"true"')


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of thirty events, written in batches of seven."""
    path = tmp_path / "ledger.db"
    with open_ledger(path) as shard:
        list(shard.ingest((read(Place("f", line=number), LISTING % (number, number)) for number in range(30)),
                          batch_size=7))
    return path


def test_the_stock_recorder_reads_every_row_unaltered(ledger: Path) -> None:
    connection = sqlite3.connect(ledger)
    rows = connection.execute("SELECT rowid, originator_id, originator_version, topic, state FROM stored_events "
                              "ORDER BY rowid").fetchall()
    connection.close()
    stock = SQLiteProcessRecorder(SQLiteDatastore(file_uri(str(ledger)), originator_id_type="text"))
    try:
        notifications = [(found.id, found.originator_id, found.originator_version, found.topic, found.state)
                         for found in stock.select_notifications(1, 1_000)]
        by_stream = [stock.select_events(stream) for _, stream, *_ in rows]
    finally:
        stock.datastore.close()

    assert rows == notifications
    assert [[StoredEvent(*row[1:])] for row in rows] == by_stream
    assert list(range(1, 31)) == [row[0] for row in rows]
    assert all(state.decode().startswith("{") for *_, state in rows)


def test_the_root_is_that_of_the_rows_as_stored(ledger: Path) -> None:
    connection = sqlite3.connect(ledger)
    rows = connection.execute("SELECT rowid, originator_id, originator_version, topic, state FROM stored_events "
                              "ORDER BY rowid").fetchall()
    stored = connection.execute("SELECT root FROM ledger_head").fetchone()[0]
    leaves = b"".join(row[0] for row in connection.execute("SELECT hashes FROM merkle_leaves ORDER BY first_position"))
    connection.close()
    expected = [leaf_hash(*row) for row in rows]

    assert b"".join(expected) == leaves
    assert root_of(expected) == stored


def test_commits_are_durable_and_readers_do_not_block_them(ledger: Path) -> None:
    with (open_ledger(ledger) as shard,
          shard.house.recorder.datastore.transaction(commit=False) as cursor):  # type: ignore[attr-defined]
        cursor.execute("PRAGMA synchronous")
        synchronous = cursor.fetchone()[0]
        cursor.execute("PRAGMA journal_mode")
        journal = cursor.fetchone()[0]

    assert (2, "wal") == (synchronous, journal)


def test_a_newer_format_is_refused(ledger: Path) -> None:
    connection = sqlite3.connect(ledger)
    connection.execute("UPDATE ledger_settings SET value = '2' WHERE name = 'format'")
    connection.commit()
    connection.close()

    with pytest.raises(LedgerUnreadable, match="format"), open_ledger(ledger):
        pass


def test_a_second_writer_is_refused_with_the_name_of_the_first(ledger: Path) -> None:
    with open_ledger(ledger), pytest.raises(LedgerLocked, match=r"process \d+ on .* since"), open_ledger(ledger):
        pass


def test_a_failed_writer_writes_no_more() -> None:
    shard = in_memory()
    with pytest.raises(AttributeError):
        shard.apply([None])  # type: ignore[list-item]

    with pytest.raises(Exception, match="open the ledger again"):
        shard.apply([read(Place("f", line=1), LISTING % (1, 1))])
