"""What a worker tells of itself: Prometheus metrics, and whether it lives and is ready, over HTTP.

`/metrics` is the text of Prometheus; `/livez` answers 200 while the worker's loop turns, `/readyz` while every shard
that it owns is read to its end but for a bounded lag and is being relayed, else 503 with the reason. This file never
reads a record and changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LOOP_SECONDS_MAX: Final = 30.0
LAG_MAX: Final = 10_000


class Vitals:
    """The figures of one worker; every shard's by its number."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter("clearing_records", "Records by outcome.", ["shard", "outcome"], registry=self.registry)
        self.position = Gauge("clearing_log_position", "Last position of the log.", ["shard"], registry=self.registry)
        self.lag = Gauge("clearing_stream_lag", "End of the partition less the ledger's position.",
                         ["shard", "topic", "partition"], registry=self.registry)
        self.relayed = Gauge("clearing_relay_position", "Log position published last.", ["shard"],
                             registry=self.registry)
        self.relay_lag = Gauge("clearing_relay_lag", "Log positions not published yet.", ["shard"],
                               registry=self.registry)
        self.batch_seconds = Histogram("clearing_batch_seconds", "Applying and committing a batch.", ["shard"],
                                       registry=self.registry)
        self.restarts = Counter("clearing_restarts", "Shards and relays that started anew after a fault.",
                                ["shard", "what"], registry=self.registry)
        self.owned = Gauge("clearing_shards_owned", "Shards that this worker runs.", registry=self.registry)
        self._turned = time.monotonic()
        self._lags: dict[int | str, int] = {}

    def turn(self, owned: int) -> None:
        """The loop turned."""
        self._turned = time.monotonic()
        self.owned.set(owned)

    def stands(self, shard: int | str, position: int, lags: dict[tuple[str, int], int]) -> None:
        """Where a shard stands."""
        self.position.labels(shard).set(position)
        for (topic, partition), lag in lags.items():
            self.lag.labels(shard, topic, partition).set(lag)
        self._lags[shard] = sum(lags.values())

    def published(self, shard: int | str, position: int, end: int) -> None:
        """Where a shard's relay stands."""
        self.relayed.labels(shard).set(position)
        self.relay_lag.labels(shard).set(max(0, end - position))

    def forget(self, shard: int | str) -> None:
        """A shard was let go."""
        self._lags.pop(shard, None)

    def why_not_live(self) -> str | None:
        """Why the worker is not alive, None where it is."""
        still = time.monotonic() - self._turned
        return f"the loop has not turned for {still:.0f} s" if still > LOOP_SECONDS_MAX else None

    def why_not_ready(self) -> str | None:
        """Why the worker is not ready, None where it is."""
        if (reason := self.why_not_live()) is not None:
            return reason
        behind = {shard: lag for shard, lag in self._lags.items() if lag > LAG_MAX}
        return f"records behind, by shard: {behind}" if behind else None


@contextmanager
def serve(vitals: Vitals, port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Answer on a port (0: any that is free) while this is open; the port."""
    checks: dict[str, Callable[[], str | None]] = {"/livez": vitals.why_not_live, "/readyz": vitals.why_not_ready}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(vitals.registry), CONTENT_TYPE_LATEST)
            elif path in checks:
                reason = checks[path]()
                self._answer(200 if reason is None else 503, ((reason or "ok") + "\n").encode(), "text/plain")
            else:
                self._answer(404, b"expected /metrics, /livez or /readyz\n", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line each."""

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
