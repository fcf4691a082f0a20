"""What every store is held to, and what the ledger over it promises: whole commits, rows that others can read.

The same tests run on every store; another is one more entry of `STORES`. The second part is about files: what the
stock eventsourcing recorder reads, what is refused at open, and that no byte can change unseen.
"""

from __future__ import annotations

import json
import os
import sqlite3
import types
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import pytest
from eventsourcing.persistence import (
    InfrastructureFactory,
    IntegrityError,
    JSONTranscoder,
    ProcessRecorder,
    StoredEvent,
)
from eventsourcing.popo import POPOProcessRecorder
from eventsourcing.sqlite import SQLiteDatastore, SQLiteProcessRecorder
from eventsourcing.utils import Environment
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from infra.embedded import LedgerReader, in_memory, open_ledger
from infra.replay import replay_ledger
from infra.store.address import PostgresAddress
from infra.store.commit import Commit, Head, InboxKey, SourcePosition, Store
from infra.store.mapper import EventMapper
from infra.store.sqlite import SQLiteRecorder, file_uri
from infra.venue import SimulatedVenue
from ledger.encoding import decode, encode
from ledger.errors import LedgerLocked, LedgerUnreadable
from ledger.events import EVENTS, Event, Recorded
from tests.property.records_strategy import (
    Deposits,
    ListsAsset,
    ListsInstrument,
    Mumbles,
    Opens,
    Prices,
    Step,
    Stream,
    Trades,
    delivered,
    lines_of,
)

# --- the contract ------------------------------------------------------------------------------------------------


def recorder(module: str, **where: str) -> Store:
    """A store as the application would construct it."""
    factory = InfrastructureFactory.construct(Environment("ledger", {
        "PERSISTENCE_MODULE": module, "ORIGINATOR_ID_TYPE": "text", **where}))
    found: Any = factory.process_recorder()
    return found  # type: ignore[no-any-return]


def on_postgres(request: pytest.FixtureRequest, _: Path) -> Store:
    address: PostgresAddress = request.getfixturevalue("shard_address")
    return recorder("infra.store.postgres:Factory", POSTGRES_DSN=address.dsn, POSTGRES_SCHEMA=address.shard)


STORES: Final[dict[str, Callable[[pytest.FixtureRequest, Path], Store]]] = {
    "memory": lambda _, __: recorder("infra.store.memory:Factory"),
    "SQLite": lambda _, folder: recorder("infra.store.sqlite:Factory", SQLITE_DBNAME=file_uri(f"{folder}/ledger.db")),
    "PostgreSQL": on_postgres}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = STORES[request.param](request, tmp_path)
    yield opened
    opened.close()


def row(stream: str, version: int, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream, version, "clearing.clock-moved:1", state)


def commit(expected: int, events: int, *, inbox: Sequence[tuple[InboxKey, int]] = (),
           positions: Sequence[tuple[SourcePosition | None, SourcePosition]] = (), end: int | None = None) -> Commit:
    last = expected + events if end is None else end
    return Commit(expected, Head(last, last * 10, b"frontier%d" % last, bytes([last]) * 32),
                  b"".join(bytes([expected + number + 1]) * 32 for number in range(events)), inbox, positions)


def at(offset: int, *, epoch: int = 0, partition: int = 0) -> SourcePosition:
    return SourcePosition("records.jsonl", partition, offset, epoch)


KEYS: Final[list[InboxKey]] = [("records.jsonl", "id", "r1"), ("records.jsonl", "id", "r2"), ("kafka", "at", "0:7")]


def contents(store: Store) -> tuple[object, ...]:
    """All that a store holds."""
    return ([(found.id, found.originator_id, found.originator_version, found.topic, found.state)
             for found in store.select_notifications(1, 1_000)],
            store.head(), store.leaves(), list(store.inbox()), dict(store.source_positions()))


def begin(store: Store) -> None:
    """Two events in one commit, with all that moves along."""
    store.insert_events([row("clock", 1), row("account:a", 1, b'{"a":"\xc3\xa9"}')], commit=commit(
        0, 2, inbox=[(KEYS[0], 1), (KEYS[1], 2)], positions=[(None, at(3))]))


def test_new_store_is_empty(store: Store) -> None:
    assert ([], None, b"", [], {}) == contents(store)
    assert {} == dict(store.settings())
    assert {} == dict(store.known(KEYS))


def test_snapshot_is_whole_once_its_first_part_is_there_and_moves_no_other_table(store: Store) -> None:
    begin(store)
    before = contents(store)
    assert [] == list(store.snapshots())
    store.drop_snapshots()
    for position in (1, 2):
        store.put_snapshot_part(position, 1, b"old")
        store.put_snapshot_part(position, 1, b"one%d" % position)
        store.put_snapshot_part(position, 2, b"two")
        assert [1][:position - 1] == list(store.snapshots())
        store.put_snapshot_part(position, 0, b"\x00")
    assert [1, 2] == sorted(store.snapshots())
    assert [b"\x00", b"one1", b"two"] == list(store.snapshot_parts(1))

    store.drop_snapshots(keep=2)

    assert [2] == list(store.snapshots())
    assert [b"\x00", b"one2", b"two"] == list(store.snapshot_parts(2))
    store.drop_snapshots()
    assert [] == list(store.snapshots())
    assert before == contents(store)


def test_commit_brings_events_inbox_positions_leaves_and_head(store: Store) -> None:
    begin(store)

    assert ([(1, "clock", 1, "clearing.clock-moved:1", b"{}"),
             (2, "account:a", 1, "clearing.clock-moved:1", b'{"a":"\xc3\xa9"}')],
            Head(2, 20, b"frontier2", b"\x02" * 32), b"\x01" * 32 + b"\x02" * 32, [(KEYS[0], 1), (KEYS[1], 2)],
            {("records.jsonl", 0): at(3)}) == contents(store)


def test_later_commits_follow_on(store: Store) -> None:
    begin(store)
    store.insert_events([row("clock", 2)], commit=commit(2, 1, inbox=[(KEYS[2], 3)], positions=[
        (at(3), at(4)), (None, at(9, partition=1))]))

    assert [1, 2, 3] == [found.id for found in store.select_notifications(1, 10)]
    assert Head(3, 30, b"frontier3", b"\x03" * 32) == store.head()
    assert b"".join(bytes([number]) * 32 for number in (1, 2, 3)) == store.leaves()
    assert {("records.jsonl", 0): at(4), ("records.jsonl", 1): at(9, partition=1)} == dict(store.source_positions())
    assert [(KEYS[2], 3), (KEYS[0], 1), (KEYS[1], 2)] == list(store.inbox())


def test_a_batch_of_duplicates_moves_positions_alone(store: Store) -> None:
    begin(store)
    before = contents(store)
    store.insert_events([], commit=commit(2, 0, positions=[(at(3), at(8))]))

    assert before[:4] == contents(store)[:4]
    assert {("records.jsonl", 0): at(8)} == dict(store.source_positions())


def test_positions_may_move_before_there_is_any_event(store: Store) -> None:
    store.insert_events([], commit=commit(0, 0, positions=[(None, at(1))]))

    assert {("records.jsonl", 0): at(1)} == dict(store.source_positions())


REFUSED: Final[dict[str, tuple[list[StoredEvent], Commit]]] = {
    "the log has moved on": ([row("clock", 2)], commit(1, 1)),
    "positions would leave a gap": ([row("clock", 2)], commit(3, 1)),
    "the head is not where the events end": ([row("clock", 2)], commit(2, 1, end=4)),
    "a version is taken": ([row("clock", 2), row("account:a", 1)], commit(2, 2)),
    "a version comes twice": ([row("clock", 2), row("clock", 2)], commit(2, 2)),
    "an id is spent": ([row("clock", 2)], commit(2, 1, inbox=[(KEYS[2], 3), (KEYS[1], 3)])),
    "an id is spent twice at once": ([row("clock", 2)], commit(2, 1, inbox=[(KEYS[2], 3), (KEYS[2], 3)])),
    "a position was moved by another": ([row("clock", 2)], commit(2, 1, positions=[(at(2), at(5))])),
    "a position is not new": ([row("clock", 2)], commit(2, 1, positions=[(None, at(5))])),
    "a position is not there": ([row("clock", 2)], commit(2, 1, positions=[(at(1, partition=4), at(5, partition=4))])),
    "a position has another epoch": ([row("clock", 2)], commit(2, 1, positions=[(at(3, epoch=1), at(5, epoch=1))])),
    "one position of two was moved": ([row("clock", 2)], commit(2, 1, positions=[
        (None, at(5, partition=1)), (at(2), at(5))])),
    "only positions, one of them stale": ([], commit(2, 0, positions=[(at(2), at(5))])),
}


@pytest.mark.parametrize("why", REFUSED)
def test_commit_is_refused_whole(store: Store, why: str) -> None:
    begin(store)
    before = contents(store)
    events, refused = REFUSED[why]
    with pytest.raises(IntegrityError):
        store.insert_events(events, commit=refused)

    assert before == contents(store)
    # Nothing of the refused commit is in the way of the next.
    store.insert_events([row("clock", 2)], commit=commit(2, 1, inbox=[(KEYS[2], 3)], positions=[(at(3), at(4))]))
    assert 3 == len(store.select_notifications(1, 10))


def test_a_writer_of_an_older_epoch_is_refused_once_a_newer_one_has_written(store: Store) -> None:
    begin(store)
    store.insert_events([row("clock", 2)], commit=commit(2, 1, positions=[(at(3), at(3, epoch=1))]))
    with pytest.raises(IntegrityError, match="moved by another writer"):
        store.insert_events([row("clock", 3)], commit=commit(3, 1, positions=[(at(3), at(4))]))

    assert {("records.jsonl", 0): at(3, epoch=1)} == dict(store.source_positions())


def test_known_finds_what_is_spent_among_any_number_of_keys(store: Store) -> None:
    keys: list[InboxKey] = [(f"source {number % 3}", ("id", "at", "price", "conflict")[number % 4],
                             f"{number}\x1f'\"%_é😀") for number in range(3_000)]
    store.insert_events([row("clock", 1)], commit=commit(0, 1, inbox=[(key, number) for number, key in enumerate(
        keys) if number % 2]))
    found = store.known(iter([*keys, *keys]))

    assert {key: number for number, key in enumerate(keys) if number % 2} == dict(found)
    assert {} == dict(store.known([]))
    assert sorted((key, number) for number, key in enumerate(keys) if number % 2) == list(store.inbox())


def test_notifications_come_in_pages_in_log_order(store: Store) -> None:
    store.insert_events([row("clock", version) for version in range(1, 51)], commit=commit(0, 50))

    assert list(range(1, 51)) == [found.id for found in store.select_notifications(1, 100)]
    assert [11, 12, 13] == [found.id for found in store.select_notifications(11, 3)]
    assert [50] == [found.id for found in store.select_notifications(50, 3)]
    assert [] == list(store.select_notifications(51, 3))


def test_settings_are_kept(store: Store) -> None:
    store.put_settings({"format": "1", "é": "'"})

    assert {"format": "1", "é": "'"} == dict(store.settings())


# --- a ledger ----------------------------------------------------------------------------------------------------

OPENING: Final[list[Step]] = [
    *(ListsAsset(asset, quantum, True) for asset, quantum in (("USD", "0.01"), ("BTC", "0.00000001"))),
    ListsInstrument("BTC-USD"), Prices("BTC-USD", "1", "a", None, 0, 0, 0),
    Opens("ann", "cross", "net", "client", None), Opens("é-dora", "isolated", "hedge", "client", None),
    Deposits(0, "USD", "1000"), Deposits(1, "USD", "1000"), Mumbles("{\"type\":\"fill\"}"), Mumbles("\udcff\udcfe")]


def trade(account: int, side: str) -> Trades:
    return Trades(account, "BTC-USD", side, "1.4", "1", "0.25", None, None, None, None, 0, 1)


BUSY: Final = Stream(
    [*OPENING, trade(0, "buy"), trade(1, "sell"), *(Prices("BTC-USD", factor, "a", None, 0, 0, 5) for factor in (
        "0.999", "0.995", "0.99", "1.01", "1.02", "0.8"))], venue=True)


def fill_ledger(path: Path) -> tuple[int, bytes]:
    """A small ledger with a bit of everything; (events, root)."""
    with open_ledger(path, venue=SimulatedVenue()) as shard:
        list(shard.ingest(delivered(lines_of(BUSY)), batch_size=5))
        return shard.house.position, shard.root


def rows_in(path: Path) -> list[tuple[int, str, int, str, bytes]]:
    with LedgerReader(path) as reader:
        return reader.rows(0, 10_000)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "a ledger%20?.db"
    fill_ledger(path)
    return path


def change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(file_uri(str(path)), uri=True)
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_stock_sqlite_recorder_reads_every_row_unaltered(ledger: Path) -> None:
    expected = rows_in(ledger)
    datastore = SQLiteDatastore(file_uri(str(ledger)), originator_id_type="text")
    stock = SQLiteProcessRecorder(datastore)
    require_stock_reads(stock, expected)
    datastore.close()


def test_stock_recorder_in_memory_reads_every_row_unaltered() -> None:
    shard = in_memory(venue=SimulatedVenue())
    list(shard.ingest(delivered(lines_of(BUSY))))
    ours: Any = shard.store
    stock = POPOProcessRecorder()
    stock._stored_events, stock._stored_events_index = ours._stored_events, ours._stored_events_index
    require_stock_reads(stock, [(found.id, str(found.originator_id), found.originator_version, found.topic, found.state)
                                for found in shard.store.select_notifications(1, 10_000)])


def require_stock_reads(stock: ProcessRecorder, expected: Sequence[tuple[int, str, int, str, bytes]]) -> None:
    """By log and by stream, forwards and backwards, whole and in parts."""
    assert len(expected) > 30
    assert len(expected) == stock.max_notification_id()
    assert expected == [(found.id, found.originator_id, found.originator_version, found.topic, found.state)
                        for found in stock.select_notifications(1, 10_000)]
    for stream in {name for _, name, _, _, _ in expected}:
        wanted = [(name, version, topic, state) for _, name, version, topic, state in expected if name == stream]

        assert list(range(1, len(wanted) + 1)) == [version for _, version, _, _ in wanted]
        for found, part in ((stock.select_events(stream), wanted),
                            (stock.select_events(stream, desc=True), wanted[::-1]),
                            (stock.select_events(stream, gt=1, lte=3), wanted[1:3]),
                            (stock.select_events(stream, desc=True, limit=1), wanted[-1:])):
            assert part == [(event.originator_id, event.originator_version, event.topic, event.state)
                            for event in found]


def test_commits_reach_the_disk_before_they_are_acknowledged(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.db") as shard:
        assert isinstance(shard.store, SQLiteRecorder)
        with shard.store.datastore.transaction(commit=True) as cursor:
            cursor.execute("PRAGMA synchronous")
            assert 2 == cursor.fetchone()[0]
            cursor.execute("PRAGMA journal_mode")
            assert "wal" == cursor.fetchone()[0]


# --- what is refused at open -------------------------------------------------------------------------------------


def test_unknown_topic_is_refused_with_its_name(ledger: Path) -> None:
    change(ledger, "UPDATE stored_events SET topic = 'clearing.alien-landed:1' WHERE rowid = 7")
    with pytest.raises(LedgerUnreadable, match=r"clearing\.alien-landed:1"), open_ledger(ledger):
        pass


def test_topic_is_never_imported() -> None:
    with pytest.raises(LedgerUnreadable, match="os:system"):
        decode("os:system", b"{}")


def test_newer_format_is_refused(ledger: Path) -> None:
    change(ledger, "UPDATE ledger_settings SET value = '2' WHERE name = 'format'")
    with pytest.raises(LedgerUnreadable, match="expected a ledger of format 1, came format '2'; a newer version"), (
            open_ledger(ledger)):
        pass


def test_second_writer_is_refused_with_the_name_of_the_first(ledger: Path) -> None:
    with open_ledger(ledger) as shard:
        with pytest.raises(LedgerLocked, match=f"process {os.getpid()} on .+ since 2"), open_ledger(ledger):
            pass
        root = shard.root
    with open_ledger(ledger) as shard:
        assert root == shard.root


def test_reader_needs_no_lock(ledger: Path) -> None:
    with open_ledger(ledger) as shard:
        assert shard.house.position == len(rows_in(ledger))


def test_a_writer_that_slipped_past_the_lock_cannot_commit(ledger: Path) -> None:
    with open_ledger(ledger) as shard:
        lock = Path(f"{ledger}.lock")
        lock.unlink()
        with open_ledger(ledger) as other:
            list(other.ingest(delivered(lines_of(BUSY)[:1], source="another")))
        before = rows_in(ledger)
        with pytest.raises(IntegrityError, match="expected the log to end at"):
            list(shard.ingest(delivered(lines_of(BUSY)[:1], source="a third")))

        assert before == rows_in(ledger)


@pytest.mark.parametrize("content", [b"", b"no ledger", b"SQLite format 3\x00" + bytes(84), b"{}\n" * 5_000],
                         ids=["empty", "a few bytes", "a bare header", "records"])
def test_what_is_no_ledger_is_refused_or_new(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    if content:
        with pytest.raises(LedgerUnreadable, match="thing"), open_ledger(path):
            pass
        assert content == path.read_bytes()
    else:
        with open_ledger(path) as shard:
            assert 0 == shard.house.position


# --- no byte changes unseen --------------------------------------------------------------------------------------


def require_noticed(path: Path, root: bytes) -> None:
    """A changed file cannot be opened as if nothing was: it is refused in words; replay says where."""
    with pytest.raises(LedgerUnreadable) as refused, open_ledger(path):
        pass

    assert str(refused.value)
    report = replay_ledger(path)
    assert report.differences
    assert root.hex() != report.root


def flipped(state: bytes, at_byte: int, bit: int) -> bytes:
    return state[:at_byte] + bytes([state[at_byte] ^ 1 << bit]) + state[at_byte + 1:]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    return path, fill_ledger(path)[1]


ROWS_SAMPLED: Final = 12


@pytest.mark.parametrize("seed", range(ROWS_SAMPLED))
@pytest.mark.parametrize("column", ["state", "topic", "originator_id", "originator_version"])
def test_one_changed_byte_of_any_row_is_noticed(original: tuple[Path, bytes], tmp_path: Path, column: str,
                                                seed: int) -> None:
    source, root = original
    path = tmp_path / "ledger.db"
    path.write_bytes(source.read_bytes())
    random = Random(f"{column} {seed}")
    stored = rows_in(path)
    position, stream, version, topic, state = random.choice(stored)
    value: object
    if column == "originator_version":
        value = version ^ 1 << random.randrange(3)
    else:
        before = {"state": state, "topic": topic.encode(), "originator_id": stream.encode()}[column]
        after = flipped(before, random.randrange(len(before)), random.randrange(7))
        value = after if column == "state" else after.decode(errors="replace")
    try:
        change(path, f"UPDATE stored_events SET {column} = ? WHERE rowid = ?", value, position)
    except sqlite3.IntegrityError:
        return  # the version of another row: the file itself refuses
    require_noticed(path, root)


@pytest.mark.parametrize("statement", [
    "DELETE FROM stored_events WHERE rowid = (SELECT MAX(rowid) FROM stored_events)",
    "DELETE FROM stored_events WHERE rowid = 5",
    "DELETE FROM stored_events",
    "INSERT INTO stored_events SELECT originator_id, 1000, topic, state FROM stored_events WHERE rowid = 5",
    "UPDATE stored_events SET state = CAST(state AS TEXT) WHERE rowid = 5",
    "UPDATE stored_events SET state = x'' WHERE rowid = 5",
    "UPDATE stored_events SET state = (SELECT state FROM stored_events WHERE rowid = 2) WHERE rowid = 1",
], ids=["last row gone", "a row gone", "all rows gone", "a row more", "state as text", "state empty",
        "state of another"])
def test_rows_taken_added_or_swapped_are_noticed(original: tuple[Path, bytes], tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(original[0].read_bytes())
    change(path, statement)
    with pytest.raises(LedgerUnreadable), open_ledger(path):
        pass


@pytest.mark.parametrize("statement", [
    "UPDATE ledger_head SET root = zeroblob(32)",
    "UPDATE ledger_head SET position = position + 1",
    "UPDATE ledger_head SET log_time = log_time + 1",
    "UPDATE ledger_head SET frontier = zeroblob(8)",
    "DELETE FROM ledger_head",
], ids=["root", "position", "log time", "frontier", "no head"])
def test_a_changed_head_is_noticed(original: tuple[Path, bytes], tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(original[0].read_bytes())
    change(path, statement)
    with pytest.raises(LedgerUnreadable), open_ledger(path):
        pass


# --- every event -------------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)

NUMBERS: Final = ["0", "-1", "12.5", "0.000000000000000001", "123456789012345678901234567890.123456789012345678901"]
TEXTS: Final = ["a", "é😀", "\"\\/", "null", "\u2028"]


def values_of(annotation: Any, turn: int) -> Any:
    """A value of a field, different ones for different turns."""
    origin = get_origin(annotation)
    if origin is Annotated:
        first, marker = get_args(annotation)[:2]
        return values_of(first, turn) if "_Time" not in type(marker).__name__ else 1_569_348_000_000_000_000 + turn
    if origin is Literal:
        return get_args(annotation)[turn % len(get_args(annotation))]
    if origin in (Union, types.UnionType):
        given_types = [kind for kind in get_args(annotation) if kind is not type(None)]
        return values_of(given_types[turn % len(given_types)], turn)
    if origin is list:
        return [values_of(get_args(annotation)[0], turn + number) for number in range(turn % 3)]
    if origin is dict:
        return {TEXTS[number]: values_of(get_args(annotation)[1], turn + number) for number in range(turn % 3)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return instance(annotation, turn)
    simple: dict[Any, Any] = {str: TEXTS[turn % len(TEXTS)], int: turn, bool: bool(turn % 2), Any: {"x": ["1", None]},
                              Decimal: Decimal(NUMBERS[turn % len(NUMBERS)])}
    return simple[annotation]


def instance(model: type[Model], turn: int) -> Model:
    """An instance of a model: on even turns with all that may be absent, on odd ones without."""
    return model.model_validate({
        name: values_of(field.rebuild_annotation(), turn + number)
        for number, (name, field) in enumerate(model.model_fields.items()) if field.is_required() or not turn % 2})


@pytest.mark.parametrize("turn", range(6))
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.TOPIC)
def test_stored_event_of_every_type_loads(kind: type[Event], turn: int) -> None:
    event = instance(kind, turn)
    mapper = EventMapper(JSONTranscoder())
    stored = mapper.to_stored_event(Recorded(9, "a stream", 3, event))
    loaded: Recorded = mapper.to_domain_event(stored)

    assert event == loaded.event
    assert type(event) is type(loaded.event)
    assert ("a stream", 3) == (loaded.originator_id, loaded.originator_version)
    assert stored.state == encode(decode(kind.TOPIC, stored.state))
    assert json.dumps(json.loads(stored.state), separators=(",", ":"), ensure_ascii=False).encode() == stored.state


@settings(max_examples=200)
@given(kind=st.sampled_from(EVENTS), state=st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode),
                                                     st.sampled_from([b"null", b"[]", b"{}", b"{\"time\":1}"])))
def test_state_that_is_none_is_refused_with_topic_and_field(kind: type[Event], state: bytes) -> None:
    with pytest.raises(LedgerUnreadable, match=kind.TOPIC):
        decode(kind.TOPIC, state)


def test_a_field_that_the_catalogue_does_not_know_is_refused() -> None:
    state = encode(instance(EVENTS[1], 0))
    with pytest.raises(LedgerUnreadable, match=r"clearing.clock-moved:1: shoe_size"):
        decode("clearing.clock-moved:1", state[:-1] + b",\"shoe_size\":44}")

