"""Kafka's own console clients, the Java ones that come with the broker: what they send and read owes nothing to us.

`python -m infra.deploy.console producer --topic T` sends each line of standard input, `... consumer --topic T
--from-beginning` prints what is there; all other options are those of `kafka-console-producer.sh` and
`kafka-console-consumer.sh`. The cluster is that of KAFKA_BOOTSTRAP_SERVERS. This file reads no message itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from infra.deploy.broker import NoKafka, find_java, jars

TOOLS: Final = {"producer": "org.apache.kafka.tools.ConsoleProducer",
                "consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer"}
_SERVER: Final = "--bootstrap-server"


def command(tool: str, *options: str) -> list[str]:
    """How one of the tools is started. NoKafka where there is no Java, or its jars cannot be had."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    servers = [_SERVER, named] if named and _SERVER not in options else []
    return [find_java(), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*", TOOLS[tool],
            *servers, *options]


def main(arguments: Sequence[str]) -> int:
    """Become the tool; 2 where it is none of the two or cannot be started."""
    tool, *options = arguments or [""]
    if tool not in TOOLS:
        print(f"expected {' or '.join(TOOLS)}, then the options of that tool, came {tool!r}", file=sys.stderr)
        return 2
    try:
        found = command(tool, *options)
    except NoKafka as fault:
        print(fault, file=sys.stderr)
        return 2
    os.execv(found[0], found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
