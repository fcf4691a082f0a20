"""Clients that are not ours: Kafka's own console tools in Java, and kcat where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.deploy import console
from infra.streams.topics import ACCOUNTS, CONTROL, MARGIN_CALLS, PRICES, REJECTIONS
from tests.streams.clients import WAIT_SECONDS, Cluster
from tests.streams.test_service import opening, record, worker


class JavaTools:
    """The console tools that come with Apache Kafka."""

    @staticmethod
    def send(cluster: Cluster, topic: str, lines: list[tuple[str, str]]) -> None:
        ask(console.command("producer", "--bootstrap-server", cluster.bootstrap, "--topic", cluster.prefix + topic,
                            "--reader-property", "parse.key=true", "--reader-property", "key.separator=|"), lines)

    @staticmethod
    def read(cluster: Cluster, topic: str, count: int) -> list[tuple[dict[str, str], str, dict[str, Any]]]:
        """(headers, key, value) of the first messages of a topic."""
        out = ask(console.command(
            "consumer", "--bootstrap-server", cluster.bootstrap, "--topic", cluster.prefix + topic,
            "--from-beginning", "--max-messages", str(count), "--isolation-level", "read_committed",
            "--formatter-property", "print.headers=true", "--formatter-property", "print.key=true",
            "--formatter-property", "key.separator=|", "--formatter-property", "headers.separator=;"))
        return [parsed(line.split("|", 2), pair=":", between=";") for line in out.splitlines()]


class Kcat:
    """kcat, over librdkafka."""

    @staticmethod
    def send(cluster: Cluster, topic: str, lines: list[tuple[str, str]]) -> None:
        ask(["kcat", "-b", cluster.bootstrap, "-P", "-t", cluster.prefix + topic, "-K", "|", "-X",
             "partitioner=murmur2_random"], lines)

    @staticmethod
    def read(cluster: Cluster, topic: str, count: int) -> list[tuple[dict[str, str], str, dict[str, Any]]]:
        """(headers, key, value) of the first messages of a topic."""
        out = ask(["kcat", "-q", "-b", cluster.bootstrap, "-C", "-t", cluster.prefix + topic, "-o", "beginning", "-c",
                   str(count), "-X", "isolation.level=read_committed", "-f", "%h|%k|%s\n"])
        return [parsed(line.split("|", 2), pair="=", between=",") for line in out.splitlines()]


def ask(command: list[str], lines: list[tuple[str, str]] | None = None) -> str:
    """What a client prints, fed with keys and values a line each."""
    done = subprocess.run(command, input="".join(f"{key}|{value}\n" for key, value in lines or ()), text=True,
                          capture_output=True, timeout=WAIT_SECONDS, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def parsed(parts: list[str], *, pair: str, between: str) -> tuple[dict[str, str], str, dict[str, Any]]:
    headers, key, value = parts
    found = [header.partition(pair) for header in headers.split(between)]
    return {name: text for name, _, text in found}, key, json.loads(value)


CLIENTS = [pytest.param(JavaTools, id="java"), pytest.param(Kcat, id="kcat", marks=pytest.mark.skipif(
    shutil.which("kcat") is None, reason="kcat is not installed (Debian, Ubuntu: apt-get install kcat)"))]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_is_not_ours_sends_records_and_reads_what_came_of_them(
        client: type[JavaTools | Kcat], cluster: Cluster, tmp_path: Path) -> None:
    rows = [*opening(), record("price", "p2", instrument="BTC-USD", price="9000", source="feed")]
    topics = {"asset": CONTROL, "instrument": CONTROL, "price": PRICES}
    for topic in (CONTROL, ACCOUNTS, PRICES):
        client.send(cluster, topic, [(row.get("account", row.get("instrument", "")), json.dumps(row)) for row in rows
                                     if topics.get(row["type"], ACCOUNTS) == topic])
    client.send(cluster, ACCOUNTS, [("A", "no record")])
    process = worker(cluster, tmp_path)
    try:
        ((headers, key, call),) = client.read(cluster, MARGIN_CALLS, 1)
        ((_, _, dead),) = client.read(cluster, REJECTIONS, 1)
    finally:
        assert 0 == process.stop()

    assert ("A", "A", "margin-call-issued", "1000", "900") == (
        key, call["account"], call["event"], call["margin_equity"], call["maintenance_margin"])
    assert (f"shard-0:{call['log_position']}", "clearing.margin-call-issued:1", "application/json") == (
        headers["ce_id"], headers["ce_type"], headers["content-type"])
    assert ("malformed", "no record") == (dead["reason"], dead["raw"])
