"""A book built over many accounts at once holds what one that followed them holds: same rows, same nominations."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.amounts import exact
from projections.book import Book
from tests.property.crowd import NAMES, Crowd


def ends(book: Book) -> dict[str, tuple[list[float], list[float]]]:
    """The ends of all ranges by factor."""
    for factor in book._pools.factors.values():
        factor.low.merge_recent(book._pools.tokens)
        factor.high.merge_recent(book._pools.tokens)
    return {name: (factor.low.keys.tolist(), factor.high.keys.tolist())
            for name, factor in book._pools.factors.items()}


@given(seed=st.integers(0, 2**32), accounts=st.sampled_from([1, 12, 30]), ageing=st.booleans(),
       lends=st.booleans(), funds=st.booleans())
@settings(max_examples=6, deadline=None)
def test_a_book_built_at_once_is_the_book_that_followed(seed: int, accounts: int, ageing: bool, lends: bool,
                                                        funds: bool) -> None:
    crowd = Crowd(seed, accounts, vector_min=0, ageing=ageing)
    if lends:
        crowd.say("interest-rate", asset="USD", borrow_rate="0.5", lend_rate="0.01")
        crowd.wait(10**6)
    if funds:
        crowd.say("funding", instrument=NAMES[0], rate="0.001")
    crowd.trade(accounts)
    house, followed = crowd.house, crowd.book

    built, one_by_one = Book(), Book()
    with exact():
        built.rules_changed(house)
        one_by_one._reset()
        one_by_one._house = house
        one_by_one._dirty.update(dict.fromkeys(house.accounts))
        one_by_one._arm(house)

        assert built.places() == one_by_one.places() == followed.places()
        for account, pool in built.places():
            assert built.figures(account, pool) == one_by_one.figures(account, pool)
        assert ends(built) == ends(one_by_one)
