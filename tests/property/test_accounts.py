"""Accounts in use and accounts as bytes: nobody can tell which is which, and no more are in use than there is room for.

Held to a plain dict of states, and whole ledgers with hardly any room to the same ledger with plenty.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from infra.shard import Shard
from infra.venue import SimulatedVenue
from ledger.account import AccountState, Position
from ledger.accounts import Accounts
from ledger.snapshot import hash_of_states
from projections import book as books
from projections.book import Book
from tests.property.records_strategy import Stream, delivered, lines_of, memory_ledger, streams
from tests.property.test_snapshot import opened_over

NAMES: Final = ("ann", 'b"o\\b', "é-dora", "0", "\u2028", "eve", "fay", "gus")
INSTRUMENTS: Final = ("BTC-USD", "BTC", 'X"Y-USD', "ann")

states = st.builds(
    lambda name, cents, held: AccountState(
        name, 1, "client", "cross", "net", None, None, {"cross": {"USD": Decimal(cents) / 100}},
        {(instrument, "cross", "net"): Position(Decimal(size), Decimal(1), Decimal(0)) for instrument, size in held}),
    st.sampled_from(NAMES), st.integers(1, 10 ** 20),
    st.lists(st.tuples(st.sampled_from(INSTRUMENTS), st.integers(1, 9)), unique_by=lambda row: row[0], max_size=3))
steps = st.lists(max_size=60, elements=st.one_of(
    st.tuples(st.just("put"), states), st.tuples(st.just("ask"), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(("look", "store")), st.just(""))))


@given(steps=steps, room=st.integers(2, 6))
def test_accounts_are_a_mapping_whatever_is_in_use(steps: list[tuple[str, AccountState | str]], room: int) -> None:
    accounts, expected = Accounts(room=room), dict[str, AccountState]()
    for step, what in steps:
        if isinstance(what, AccountState):
            accounts[what.account] = expected[what.account] = what
        elif step == "ask":
            assert expected.get(what) == accounts.get(what)
            assert (what in expected) == (what in accounts)
        elif step == "look":
            assert list(expected.items()) == list(accounts.items())
            assert list(expected.values()) == list(accounts.values())
            for instrument in INSTRUMENTS:
                assert [name for name, state in expected.items()
                        if any(key[0] == instrument for key in state.positions)] == accounts.holders(instrument)
        else:
            kept, accounts = accounts.kept(), Accounts(room=room)
            for name, row in kept:
                if isinstance(row, bytes):
                    accounts.keep(name, row)
                else:
                    accounts[name] = row
        assert len(accounts._recent) + len(accounts._earlier) <= room
    assert expected == accounts
    assert (len(expected), list(expected)) == (len(accounts), list(accounts))


def test_asking_for_whom_nobody_opened_is_a_key_error_and_keeping_one_twice_is_refused() -> None:
    accounts = Accounts()
    with pytest.raises(KeyError):
        accounts["ann"]
    assert accounts.get("ann") is None
    accounts.keep("ann", b"[]")
    with pytest.raises(ValueError, match="'ann' again"):
        accounts.keep("ann", b"[]")


def ledger_with(room: int, stream: Stream) -> Shard:
    shard = memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None)
    shard.house.accounts = Accounts(room=room)
    return shard


@settings(max_examples=10, phases=[Phase.generate], deadline=None)
@given(stream=streams(wild=None), share=st.integers(0, 10))
def test_the_same_log_with_room_for_two_accounts(stream: Stream, share: int) -> None:
    records = delivered(lines_of(stream))
    cut = len(records) * share // 10
    roomy = ledger_with(1_000, stream)
    list(roomy.ingest(records, batch_size=7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(books, "SYNCED_MAX", 1)
        tight = ledger_with(2, stream)
        list(tight.ingest(records[:cut], batch_size=7))
        tight.snapshots.take()
        # A start reads nobody but who is asked for.
        second = opened_over(tight.store, venue=stream.venue)
        second.house.accounts._half = 1
        list(second.ingest(records[cut:], batch_size=3))
    assert second.notice is None
    assert roomy.root == second.root
    assert hash_of_states(roomy.house) == hash_of_states(second.house)
    assert roomy.house.accounts == second.house.accounts
