"""The streaming service on a real broker: records in, messages out, each once and in order, whatever dies."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.embedded import LedgerReader, open_ledger, open_reader
from infra.replay import replay_ledger
from infra.streams.messages import messages
from infra.streams.outflow import relay_name
from infra.streams.parts import noted_duty
from infra.streams.topics import (
    ACCOUNT_STATE,
    ACCOUNTS,
    LIQUIDATIONS,
    MARGIN_CALLS,
    OUTCOMES,
    OUTPUTS,
    PRICES,
    REJECTIONS,
    ensure,
)
from ledger.amounts import exact
from ledger.errors import LedgerUnreadable
from ledger.states import States
from tests.streams.clients import Cluster, Process, position_of, value_of, wait_until

# Now: a worker that has read everything lets deadlines pass by the wall clock.
TIME = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}Z"


def record(kind: str, name: str, /, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "id": name, "time": TIME, **fields}


def opening() -> list[dict[str, Any]]:
    """USD, BTC-USD at 10,000, and A, long 10 with 11,000 paid in."""
    return [
        record("asset", "a1", asset="USD", quantum="0.01"),
        record("instrument", "i1", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
               tick_size="0.01", lot_size="0.001"),
        record("account", "o1", account="A", margin_mode="cross"),
        record("deposit", "d1", account="A", asset="USD", amount="11000"),
        record("fill", "f1", account="A", trade_id="t1", instrument="BTC-USD", side="buy", size="10", price="10000"),
        record("price", "p1", instrument="BTC-USD", price="10000", source="feed")]


def stream(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """A market that wanders, and accounts that trade and are called."""
    dice = random.Random(seed)
    rows = [*opening()[:2], record("price", "p0", instrument="BTC-USD", price="10000", source="feed")]
    for number in range(20):
        rows += [record("account", f"o{number}", account=f"A{number}", margin_mode="cross"),
                 record("deposit", f"d{number}", account=f"A{number}", asset="USD", amount="3000")]
    mark = 10_000.0
    for number in range(count):
        mark *= 1 + dice.gauss(0, 0.004)
        if dice.random() < 0.3:
            rows.append(record("price", f"p-{number}", instrument="BTC-USD", price=f"{mark:.2f}", source="feed"))
        elif dice.random() < 0.1:
            rows.append(record("withdrawal", f"w-{number}", account=f"A{dice.randrange(20)}", asset="USD",
                               amount=f"{dice.randrange(1, 2000)}"))
        else:
            rows.append(record("fill", f"f-{number}", account=f"A{dice.randrange(20)}", trade_id=f"t-{number}",
                               instrument="BTC-USD", side=dice.choice(("buy", "sell")),
                               size=f"{dice.randrange(1, 40) / 10}", price=f"{mark:.2f}"))
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def worker(cluster: Cluster, folder: Path, *arguments: str) -> Process:
    return Process(cluster, "worker", "--ledger", str(folder / "desk-{shard}.db"), *arguments,
                   log=folder / "worker.log")


def asked(cluster: Cluster, folder: Path, command: str, *arguments: str, code: int) -> str:
    """What a command answers on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", command, "--bootstrap", cluster.bootstrap, "--prefix", cluster.prefix,
         "--ledger", str(folder / "desk-{shard}.db"), *arguments], capture_output=True, text=True, check=False)
    assert code == done.returncode, done.stderr
    return done.stdout


def end_of(folder: Path, shard: int = 0) -> int:
    try:
        with LedgerReader(folder / f"desk-{shard}.db") as reader:
            return reader.end()
    except LedgerUnreadable:
        return 0


def committed(cluster: Cluster, folder: Path, shard: int = 0) -> int:
    """The log position up to which the relay has published, as Kafka has it."""
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=relay_name(cluster.prefix, f"shard-{shard}"),
                             enable_auto_commit=False, isolation_level="read_committed")
    try:
        return consumer.committed(TopicPartition(cluster.prefix + MARGIN_CALLS, 0)) or 0
    finally:
        consumer.close()


def wait_for_quiet(cluster: Cluster, folder: Path, records: int) -> None:
    """Until every record that was sent is in the log, and everything is published."""
    def is_done() -> bool:
        try:
            with LedgerReader(folder / "desk-0.db") as reader:
                rows = reader.ask("SELECT COALESCE(SUM(next_offset), 0) FROM stream_position")
                published = reader.ask("SELECT COALESCE(MAX(position), 0) FROM relay_position")
                return int(rows[0][0]) >= records and int(published[0][0]) == reader.end()
        except LedgerUnreadable:
            return False

    wait_until(is_done, f"{records} records applied and published", log=folder / "worker.log")


def expected_of(ledger: str | Path, shard: str, topic: str, prefix: str = "") -> list[tuple[int, bytes]]:
    """(log position, value) of every message that the log says for a topic, in log order."""
    states, found = States(), []
    with open_reader(ledger) as reader, exact():
        duty = noted_duty(reader.settings())
        for recorded in reader.log():
            states.fold(recorded)
            if not duty.tells(recorded, prefix):
                continue
            kind, _, account = recorded.originator_id.partition(":")
            for message in messages(recorded, shard, states.accounts.get(account) if kind == "account" else None):
                if message.topic == topic:
                    found.append((recorded.position, message.value))
    return found


def require_published_exactly(cluster: Cluster, path: Path) -> None:
    """A reader of committed messages sees each message of the log once, in log order."""
    for topic in OUTPUTS:
        wanted = expected_of(path, "shard-0", topic)
        enough = len(wanted)
        seen = cluster.read(topic, until=lambda found, enough=enough: len(found) >= enough)  # type: ignore[misc]
        assert wanted == [(position_of(row), row.value) for row in seen], topic


def test_a_tick_becomes_a_margin_call_with_its_reasons(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(opening())
    process = worker(cluster, folder, "--metrics-port", "0")
    wait_until(lambda: end_of(folder) >= 6, "the opening is applied", log=folder / "worker.log")

    tick = json.dumps(record("price", "p2", instrument="BTC-USD", price="9000", source="feed")).encode()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    cluster.send_raw(PRICES, tick, key="BTC-USD", headers=[("traceparent", trace)])
    (message,) = cluster.read(MARGIN_CALLS, until=bool)

    call, headers = value_of(message), dict(message.headers)
    assert trace == headers["traceparent"]
    assert (b"A", "A", "cross", "1000", "900") == (
        message.key, call["account"], call["pool"], call["margin_equity"], call["maintenance_margin"])
    assert {"call_id", "issued_at", "deadline", "call_amount", "call_asset", "eligible", "cure_level", "margin_ratio",
            "trigger", "marks", "positions", "rulebook", "consequence", "message"} <= call.keys()
    assert b"clearing.margin-call-issued:1" == headers["ce_type"]
    assert f"shard-0:{call['log_position']}".encode() == headers["ce_id"]
    cluster.send_all([record("deposit", "d2", account="A", asset="USD", amount="500")])
    ends = cluster.read(MARGIN_CALLS, until=lambda found: len(found) == 2)
    cluster.send_all([record("price", "p3", instrument="BTC-USD", price="8000", source="feed")])
    orders = cluster.read(LIQUIDATIONS, until=lambda found: len(found) >= 2)
    assert "margin-call-met" == value_of(ends[-1])["event"]
    assert "traceparent" not in dict(ends[-1].headers)
    assert ["liquidation-started", "liquidation-order-placed"] == [value_of(row)["event"] for row in orders]
    (address,) = re.findall(r"metrics on (http://\S+)/metrics", (folder / "worker.log").read_text())

    def figures() -> str:
        told: str = urlopen(f"{address}/metrics").read().decode()
        return told

    wait_until(lambda: 'clearing_stream_lag{' in figures(), "the lag is told")
    (applied,) = re.findall(r'clearing_records_total{outcome="applied",shard="0"} ([0-9]+)', figures())
    # Its own clock records are applied as well.
    assert int(applied) >= 9
    assert "clearing_shards_owned 1.0" in figures()
    assert (b"ok\n", b"ok\n") == (urlopen(f"{address}/livez").read(), urlopen(f"{address}/readyz").read())
    assert 0 == process.stop()
    assert [] == replay_ledger(folder / "desk-0.db").differences


def test_poison_is_recorded_and_published_and_the_stream_goes_on(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(opening())
    poison = [b"", b"{", b"\xff\xfe\x00", b'{"type": "fill"}', b'{"type":"deposit","id":"d1","id":"d9"}',
              json.dumps(record("deposit", "x1", account="A", asset="USD", amount="1e3")).encode(),
              json.dumps(record("deposit", "x2", account="Z", asset="USD", amount="1")).encode(),
              json.dumps({**record("deposit", "x3", account="A", asset="USD", amount="1"),
                          "time": "2099-01-01T00:00:00Z"}).encode()]
    for value in poison:
        cluster.send_raw(ACCOUNTS, value, key="A")
    framed = json.dumps(record("deposit", "c1", account="A", asset="USD", amount="2")).encode()
    cluster.send_raw(ACCOUNTS, b"\x00\x00\x00\x00\x2a" + framed, key="A")
    event = {"specversion": "1.0", "id": "e", "source": "venue", "type": "deposit",
             "data": record("deposit", "c2", account="A", asset="USD", amount="3.10")}
    cluster.send_raw(ACCOUNTS, json.dumps(event).encode(), key="A",
                     headers=[("content-type", b"application/cloudevents+json; charset=utf-8")])
    cluster.send_all([record("withdrawal", "w1", account="A", asset="USD", amount="9005.10")])
    process = worker(cluster, folder)

    dead = cluster.read(REJECTIONS, until=lambda found: len(found) >= len(poison))
    (outcome,) = cluster.read(OUTCOMES, until=bool)

    assert len(poison) == len(dead)
    assert {"malformed", "unknown-account", "time-ahead"} == {value_of(row)["reason"] for row in dead}
    assert [6 - 3 + n for n in range(len(poison))] == [value_of(row)["record"]["offset"] for row in dead]
    assert ("applied", "2000") == (value_of(outcome)["outcome"], value_of(outcome)["balance"])
    assert 0 == process.stop()


def test_killed_at_any_moment_every_message_goes_out_once_and_in_order(cluster: Cluster, folder: Path) -> None:
    """SIGKILL ten times: the log goes on, and readers of committed messages see nothing of it."""
    rows = stream(3_000)
    dice = random.Random(11)
    process = worker(cluster, folder)
    for start in range(0, len(rows), 300):
        cluster.send_all(rows[start:start + 300])
        time.sleep(dice.uniform(0.3, 1.5))
        process.kill()
        process = worker(cluster, folder)
    wait_for_quiet(cluster, folder, len(rows))
    assert 0 == process.stop()

    require_published_exactly(cluster, folder / "desk-0.db")
    assert [] == replay_ledger(folder / "desk-0.db").differences
    with LedgerReader(folder / "desk-0.db") as reader:
        spent = [row[0] for row in reader.ask("SELECT record_key FROM inbox WHERE kind = 'id' AND source <> 'clock'")]
    assert sorted({row["id"] for row in rows}) == sorted(spent)


def test_a_relay_that_is_frozen_and_wakes_is_fenced(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(stream(300))
    process = worker(cluster, folder, "--no-relay")
    wait_until(lambda: end_of(folder) > 300, "the stream is applied", log=folder / "worker.log")
    first = Process(cluster, "relay", "--ledger", str(folder / "desk-{shard}.db"), log=folder / "relay-1.log")
    wait_until(lambda: committed(cluster, folder) > 0, "the first relay publishes", log=folder / "relay-1.log")
    first.freeze()
    second = Process(cluster, "relay", "--ledger", str(folder / "desk-{shard}.db"), log=folder / "relay-2.log")
    cluster.send_all(stream(300, seed=8)[43:])
    wait_until(lambda: committed(cluster, folder) == end_of(folder) > 400, "the second relay publishes all",
               log=folder / "relay-2.log")
    first.thaw()
    cluster.send_all([record("deposit", "last", account="A1", asset="USD", amount="1")])

    assert 2 == first.process.wait(40)
    assert "start it again" in (folder / "relay-1.log").read_text()
    # The client of the woken one may have asked for a new epoch on its way out, and so have fenced its successor too:
    # then whoever watches over relays starts another, and nothing is published twice.
    with suppress(subprocess.TimeoutExpired):
        assert 2 == second.process.wait(3)
        second = Process(cluster, "relay", "--ledger", str(folder / "desk-{shard}.db"), log=folder / "relay-3.log")
    wait_until(lambda: committed(cluster, folder) == end_of(folder), "all is published", log=folder / "relay-3.log")
    assert 0 == second.stop()
    assert 0 == process.stop()
    require_published_exactly(cluster, folder / "desk-0.db")


def test_a_topic_that_was_made_anew_stops_the_worker(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(stream(100))
    process = worker(cluster, folder)
    wait_for_quiet(cluster, folder, 143)
    assert 0 == process.stop()
    (standing,) = json.loads(asked(cluster, folder, "status", "--json", code=0))
    assert (0, 0, None, True) == (standing["stream_lag"], standing["relay_lag"], standing["owner"],
                                  standing["position"] == standing["relayed"] == end_of(folder))
    cluster.admin.delete_topics([cluster.prefix + ACCOUNTS])
    wait_until(lambda: cluster.prefix + ACCOUNTS not in cluster.admin.list_topics(), "the topic is gone")
    ensure(cluster.admin, cluster.prefix, 1)

    again = worker(cluster, folder)

    assert 2 == again.process.wait(40)
    assert "it was made anew" in (folder / "worker.log").read_text()
    amiss = [row for row in json.loads(asked(cluster, folder, "doctor", "--json", code=1)) if not row["ok"]]
    assert ["shard 0", f"shard 0: {cluster.prefix}{ACCOUNTS}[0]"] == [row["name"] for row in amiss]
    assert "must not read on" in amiss[1]["remedy"]


def test_a_ledger_restored_from_an_older_backup_is_not_published_on(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(stream(100))
    process = worker(cluster, folder)
    wait_for_quiet(cluster, folder, 143)
    assert 0 == process.stop()
    (folder / "desk-0.db").unlink()
    with open_ledger(folder / "desk-0.db"):
        pass

    relay = Process(cluster, "relay", "--ledger", str(folder / "desk-{shard}.db"), log=folder / "relay.log")

    assert 2 == relay.process.wait(40)
    assert "restored from an older backup" in (folder / "relay.log").read_text()


def test_the_log_is_that_of_its_records_in_the_order_they_were_read(cluster: Cluster, folder: Path) -> None:
    """The order of arrival over partitions is a fact that the log records; the rest follows from it."""
    rows = stream(500)
    cluster.send_all(rows)
    process = worker(cluster, folder)
    wait_for_quiet(cluster, folder, len(rows))
    process.process.send_signal(signal.SIGINT)
    assert 0 == process.process.wait(15)

    report = replay_ledger(folder / "desk-0.db")
    with LedgerReader(folder / "desk-0.db") as reader:
        causes = [recorded.event.cause for recorded in reader.log() if recorded.event.ANSWERS is not None]
    offsets: dict[tuple[str, int | None], list[int | None]] = {}
    for cause in causes:
        if cause.source != "clock":
            offsets.setdefault((cause.source, cause.partition), []).append(cause.offset)
    assert [] == report.differences
    assert 3 == len(offsets)
    # Each partition whole and in its own order; how they interleave is what the log alone knows.
    assert all(found == list(range(len(found))) for found in offsets.values())
    assert len(rows) == sum(map(len, offsets.values()))


def test_account_state_is_compacted_by_account_and_tells_the_last_state(cluster: Cluster, folder: Path) -> None:
    cluster.send_all(opening())
    process = worker(cluster, folder)

    states = cluster.read(ACCOUNT_STATE, until=lambda found: len(found) >= 3)

    last = value_of(states[-1])
    assert {b"A"} == {row.key for row in states}
    assert [position_of(row) for row in states] == sorted(position_of(row) for row in states)
    assert ("healthy", {"cross": {"USD": "11000"}}) == (last["status"], last["balances"])
    assert [("BTC-USD", "10")] == [(row["instrument"], row["signed_size"]) for row in last["positions"]]
    assert 0 == process.stop()
