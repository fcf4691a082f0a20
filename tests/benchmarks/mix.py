"""The mix: the records that every ingest figure is measured on, as bytes of JSON, the same for the same seed.

70 % fills, 15 % prices, 10 % cash (deposits, withdrawals), 5 % the rest (funding, clocks, fund movements, account
openings); accounts by Zipf 1.0, ids random. Each account trades three instruments of twenty, around a position that
it keeps, so that the book keeps its size; prices wander by 0.05 % a tick. It never looks at a ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Any, Final

START: Final = datetime(2024, 1, 2, tzinfo=UTC)
STEP: Final = timedelta(milliseconds=1)
INSTRUMENTS: Final = ("BTC-USD", "ETH-USD", *(f"C{n:02}-USD" for n in range(18)))
POSITIONS_EACH: Final = 3
# A collateral asset beside the valuation asset: whose mark moves these balances too.
COLLATERAL: Final = "BTC"
PRICE_SOURCE: Final = "oracle"

# Records of each kind in ten thousand.
SHARES: Final = {"fill": 7_000, "price": 1_500, "deposit": 600, "withdrawal": 400,
                 "funding": 125, "clock": 125, "fund-movement": 125, "account": 125}


class Mix:
    """An endless stream of records; `opening` first, which sets the book up, then `take`."""

    def __init__(self, accounts: int, seed: int = 20_190_924) -> None:
        self.random = Random(seed)
        self.time = START
        self.accounts = [f"A{number:07}" for number in range(accounts)]
        # Who is busy has nothing to do with who was opened first.
        self.random.shuffle(self.accounts)
        self.weights = list(accumulate(1 / rank for rank in range(1, accounts + 1)))
        self.opened = 0
        self.marks = {name: 10_000 / (1 + place) ** 1.5 for place, name in enumerate(INSTRUMENTS)}
        self.sequences = dict.fromkeys(INSTRUMENTS, 0)
        # (account, instrument) -> lots held, and lots that it returns to
        self.held: dict[tuple[str, str], int] = {}
        self.kept: dict[tuple[str, str], int] = {}
        self.traded: dict[str, list[str]] = {}

    def opening(self) -> Iterator[bytes]:
        """Assets, instruments, first prices, and every account with its collateral and its three positions."""
        yield self._record("asset", asset="USD", quantum="0.01")
        yield self._record("asset", asset=COLLATERAL, quantum="0.00000001", pricing_instrument="BTC-USD")
        for name in INSTRUMENTS:
            yield self._record("instrument", instrument=name, base=name.removesuffix("-USD"), quote="USD",
                               contract_type="linear", tick_size="0.0001", lot_size="0.001")
            yield self._price(name)
        yield self._record("fund-movement", fund="insurance", asset="USD", amount="10000000", kind="contribution")
        for account in self.accounts:
            yield from self._opening_of(account)

    def _opening_of(self, account: str) -> Iterator[bytes]:
        yield self._record("account", account=account, margin_mode="cross")
        notional = self.random.lognormvariate(9.0, 1.2)
        collateral = 3 * notional / min(25.0, self.random.lognormvariate(1.6, 0.8)) + 10
        if self.random.random() < 0.2:
            amount = collateral / 2 / self.marks["BTC-USD"]
            collateral /= 2
            yield self._record("deposit", account=account, asset=COLLATERAL, amount=f"{amount + 1e-6:.6f}")
        yield self._record("deposit", account=account, asset="USD", amount=f"{collateral:.2f}")
        self.traded[account] = self.random.sample(INSTRUMENTS, POSITIONS_EACH)
        for instrument in self.traded[account]:
            lots = max(10, int(notional / self.marks[instrument] * 1_000))
            self.kept[account, instrument] = self.random.choice((lots, -lots))
            yield self._fill(account, instrument, self.kept[account, instrument])

    def take(self, count: int) -> list[bytes]:
        """The next records of the mix."""
        return list(map(self._next, self.random.choices(list(SHARES), list(SHARES.values()), k=count)))

    def _next(self, kind: str) -> bytes:
        match kind:
            case "price":
                return self._price(self.random.choice(INSTRUMENTS))
            case "funding":
                rate = self.random.uniform(-0.0001, 0.0001)
                return self._record(kind, instrument=self.random.choice(INSTRUMENTS), rate=f"{rate:.8f}")
            case "clock":
                return self._record(kind)
            case "fund-movement":
                return self._record(kind, fund="insurance", asset="USD", amount=self._cash(), kind="contribution")
            case "account":
                self.opened += 1
                return self._record(kind, account=f"N{self.opened:07}", margin_mode="cross")
        account = self.random.choices(self.accounts, cum_weights=self.weights)[0]
        if kind != "fill":
            return self._record(kind, account=account, asset="USD", amount=self._cash())
        instrument = self.random.choice(self.traded[account])
        held, kept = self.held[account, instrument], self.kept[account, instrument]
        lots = max(1, abs(kept) * self.random.randrange(1, 30) // 1_000)
        back = 1 if held < kept else -1
        return self._fill(account, instrument, lots * (back if self.random.random() < 0.7 else -back))

    def _fill(self, account: str, instrument: str, lots: int) -> bytes:
        self.held[account, instrument] = self.held.get((account, instrument), 0) + lots
        price = self.marks[instrument] * self.random.uniform(0.9998, 1.0002)
        return self._record(
            "fill", account=account, trade_id=f"T{self.random.getrandbits(64):016x}", instrument=instrument,
            side="buy" if lots > 0 else "sell", size=f"{abs(lots) / 1_000:.3f}", price=f"{price:.4f}",
            fee=f"{abs(lots) / 1_000 * price * 0.0001:.2f}", liquidity=self.random.choice(("maker", "taker")))

    def _price(self, instrument: str) -> bytes:
        self.marks[instrument] *= 1 + self.random.gauss(0, 0.0005)
        self.sequences[instrument] += 1
        return self._record("price", instrument=instrument, price=f"{self.marks[instrument]:.4f}",
                            source=PRICE_SOURCE, sequence=self.sequences[instrument])

    def _cash(self) -> str:
        return f"{self.random.lognormvariate(3, 1) + 0.01:.2f}"

    def _record(self, kind: str, /, **fields: Any) -> bytes:
        self.time += STEP
        # A sequenced price goes without an id; all others have a random one, as venues give them.
        name = {} if "sequence" in fields else {"id": f"{self.random.getrandbits(128):032x}"}
        fields = {"type": kind, **name, "time": f"{self.time:%Y-%m-%dT%H:%M:%S.%f}Z", **fields}
        return json.dumps(fields, separators=(",", ":")).encode()
