"""The peer TigerBeetle: transfers a second of a running server through its own Python client, one request a batch.

Only where `TIGERBEETLE_ADDRESS` names a server (`3000`, `127.0.0.1:3000`) and the package `tigerbeetle` is installed.
A transfer moves an amount between two accounts and knows no margin. It never starts a server.
"""

from __future__ import annotations

import time
from importlib import import_module
from random import Random
from typing import Any, Final

ADDRESS: Final = "TIGERBEETLE_ADDRESS"
CLUSTER: Final = 0
ACCOUNTS: Final = 10_000
REQUEST_MAX: Final = 8_189
LEDGER = CODE = 1


def transfers(address: str, batch_size: int, count: int) -> float:
    """Transfers a second between accounts chosen at random, each batch answered before the next is sent."""
    try:
        client_library: Any = import_module("tigerbeetle")
    except ImportError as fault:
        raise RuntimeError(f"{ADDRESS} is set: expected the package tigerbeetle to be installed") from fault
    random = Random(count)
    with client_library.ClientSync(cluster_id=CLUSTER, replica_addresses=address) as client:
        names = [client_library.id() for _ in range(ACCOUNTS)]
        for start in range(0, ACCOUNTS, REQUEST_MAX):
            client.create_accounts([client_library.Account(id=name, ledger=LEDGER, code=CODE)
                                    for name in names[start:start + REQUEST_MAX]])
        started = time.perf_counter()
        for start in range(0, count, batch_size):
            batch = []
            for _ in range(min(batch_size, count - start)):
                debit, credit = random.sample(names, 2)
                batch.append(client_library.Transfer(id=client_library.id(), debit_account_id=debit,
                                                     credit_account_id=credit, amount=1, ledger=LEDGER, code=CODE))
            client.create_transfers(batch)
        return count / (time.perf_counter() - started)
