"""The accounts' exact states by id: those in use as they are, all others as bytes, so that memory has a bound.

An account that is asked for is read from its bytes. Where more are in use than there is room for, those that were not
asked for longest go back, a few each time that another comes, so that no record pays for many. Order is that of
opening, whatever is in use. What is read is what was put: nobody can tell which form an account had, but by the time
it takes. This file decides nothing.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import islice
from typing import Final

from pydantic_core import from_json, to_json

from ledger.account import AccountState
from ledger.state_codec import codec

# Exact states in use at most: one of three positions takes about 3 KB, as bytes a tenth of it.
IN_USE_MAX: Final = 200_000
# How many go back to bytes for each that comes into use while there is no room: more than one, so that half the room
# is empty again before the other half is full.
BACK_FOR_EACH: Final = 2

# An account by id, as it is kept: exact, or its row.
KeptAccount = tuple[str, AccountState | bytes]

_WRITE, _READ, _ = codec(AccountState)
# Stands for a row that is behind its state.
_BEHIND: Final = b""


def row_of(state: AccountState) -> bytes:
    """An account's state as one line of JSON."""
    return to_json(_WRITE(state))


def _state_of(row: bytes) -> AccountState:
    state: AccountState = _READ(from_json(row))
    return state


class Accounts(Mapping[str, AccountState]):
    """The states by account id; `room`: how many may be in use."""

    def __init__(self, *, room: int = IN_USE_MAX) -> None:
        self._half = max(1, room // 2)
        # In use of late, and before that: what is asked for again comes to the first, the rest goes back.
        self._recent: dict[str, AccountState] = {}
        self._earlier: dict[str, AccountState] = {}
        # Whose turn it is to go back, of the latter.
        self._going: Iterator[str] = iter(())
        # Every account in the order of opening.
        self._rows: dict[str, bytes] = {}

    # --- one account ---------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> AccountState:
        state = self._recent.get(name)
        return self._fetch(name) if state is None else state

    def __setitem__(self, name: str, state: AccountState) -> None:
        self._rows[name] = _BEHIND
        if name in self._recent:
            self._recent[name] = state
        else:
            self._earlier.pop(name, None)
            self._use(name, state)

    def keep(self, name: str, row: bytes) -> None:
        """An account as bytes, to be read when it is asked for. ValueError: it is known already."""
        if name in self._rows:
            raise ValueError(f"expected an account once, came {name!r} again")
        self._rows[name] = row

    def _fetch(self, name: str) -> AccountState:
        state = self._earlier.pop(name, None)
        if state is None:
            state = _state_of(self._rows[name])
        self._use(name, state)
        return state

    def _use(self, name: str, state: AccountState) -> None:
        for going in islice(self._going, BACK_FOR_EACH):
            goes = self._earlier.pop(going, None)
            if goes is not None and self._rows[going] == _BEHIND:
                self._rows[going] = row_of(goes)
        self._recent[name] = state
        if len(self._recent) >= self._half:
            self._recent, self._earlier = {}, self._recent
            self._going = iter(list(self._earlier))

    # --- all of them ---------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def values(self) -> ValuesView[AccountState]:
        """All states; to look at them brings none into use."""
        return _States(self)

    def items(self) -> ItemsView[str, AccountState]:
        """All ids and states; to look at them brings none into use."""
        return _Items(self)

    def kept(self) -> list[KeptAccount]:
        """All accounts as they are kept now; what comes later changes none of them."""
        return [(name, self._in_use(name) or row) for name, row in self._rows.items()]

    def holders(self, instrument: str) -> list[str]:
        """Who holds a position on an instrument, in the order of opening."""
        found, text = [], to_json(instrument)
        for name, row in self._rows.items():
            state = self._in_use(name)
            # Who holds it has its name in the row; who has it there otherwise is read in vain.
            if state is None and text in row:
                state = _state_of(row)
            if state is not None and any(key[0] == instrument for key in state.positions):
                found.append(name)
        return found

    def seen(self) -> Iterator[tuple[str, AccountState]]:
        """Each account, read where it is kept as bytes."""
        for name, row in self._rows.items():
            yield name, self._in_use(name) or _state_of(row)

    def _in_use(self, name: str) -> AccountState | None:
        return self._recent.get(name) or self._earlier.get(name)


class _States(ValuesView[AccountState]):
    _mapping: Accounts

    def __iter__(self) -> Iterator[AccountState]:
        return (state for _, state in self._mapping.seen())


class _Items(ItemsView[str, AccountState]):
    _mapping: Accounts

    def __iter__(self) -> Iterator[tuple[str, AccountState]]:
        return self._mapping.seen()
