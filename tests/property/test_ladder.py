"""The liquidation ladder against brute force: every pool evaluated exactly at every price."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.amounts import ZERO, exact, round_down
from ledger.risk.margin import below, liquidatable
from projections.ladder import STEPS, Ladder, Rung, prices_around
from tests.property.crowd import NAMES, Crowd


def by_brute_force(crowd: Crowd, instrument: str, price: Decimal) -> tuple[int, Decimal, Decimal]:
    """(pools, long size, short size) that are liquidated at a price, asking everybody."""
    house, market = crowd.house, crowd.house.markets[instrument]
    house.markets[instrument] = market._replace(mark=price)
    pools, longs, shorts = 0, ZERO, ZERO
    for state in house.accounts.values():
        for pool in state.pools() if state.is_margined else ():
            sizes = [row.size for key, row in state.positions_of(pool) if key[0] == instrument]
            margin, lines = house.margin(state, pool), house.rules(state).thresholds
            begun = pool in state.liquidations or pool in state.due
            if sizes and not margin.unpriced and (below(margin, lines.stop) if begun else liquidatable(margin, lines)):
                pools += 1
                longs, shorts = (longs + sum(size for size in sizes if size > 0),
                                 shorts - sum(size for size in sizes if size < 0))
    house.markets[instrument] = market
    return pools, longs, shorts


@given(seed=st.integers(0, 2**32), accounts=st.sampled_from([3, 25]), instrument=st.sampled_from(NAMES),
       moves=st.lists(st.sampled_from(["0.99", "1.01", "0.9", "1.1"]), max_size=3),
       order=st.permutations(["0.0001", "0.3", "0.7", "0.9", "0.97", "1", "1.02", "1.2", "1.6", "40"]))
@example(seed=106, accounts=25, instrument="BTC-COIN", moves=[], order=["1", "0.3", "1", "1", "40"])
@settings(max_examples=12, deadline=None)
def test_the_ladder_is_what_asking_everybody_gives(seed: int, accounts: int, instrument: str, moves: list[str],
                                                   order: list[str]) -> None:
    crowd = Crowd(seed, accounts, vector_min=0)
    for factor in moves:
        crowd.tick(instrument, factor)
    market = crowd.house.markets[instrument]
    assert market.mark is not None
    with exact():
        prices = [max(round_down(market.mark * Decimal(factor), market.tick_size), market.tick_size)
                  for factor in order]
        expected = [by_brute_force(crowd, instrument, price) for price in prices]

    found = Ladder(crowd.house, instrument).rungs(prices)

    assert expected == [(rung.pools, rung.long_size, rung.short_size) for rung in found]
    assert crowd.house.markets[instrument] == market
    assert all(rung.notional == rung.long_notional + rung.short_notional for rung in found)


def test_a_rung_says_what_is_sold_and_what_is_bought_back_at_its_price() -> None:
    crowd = Crowd(1, 0, vector_min=0)
    for name, side in (("long", "buy"), ("short", "sell")):
        crowd.say("account", account=name, margin_mode="cross", rulebook="plain")
        crowd.say("deposit", account=name, asset="USD", amount="1000")
        crowd.say("fill", account=name, trade_id="t", instrument="BTC-USD", side=side, size="1", price="10000")

    down, here, up = Ladder(crowd.house, "BTC-USD").rungs([Decimal(8_000), Decimal(10_000), Decimal(12_000)])

    assert Rung(Decimal(8_000), Decimal(-20), 1, Decimal(1), Decimal(8_000), ZERO, ZERO, Decimal(8_000)) == down
    assert Rung(Decimal(10_000), ZERO, 0, ZERO, ZERO, ZERO, ZERO, ZERO) == here
    assert Rung(Decimal(12_000), Decimal(20), 1, ZERO, ZERO, Decimal(1), Decimal(12_000), Decimal(12_000)) == up


def test_prices_stand_at_steps_of_the_mark_on_ticks() -> None:
    market = Crowd(1, 0, vector_min=0).house.markets["SOL-USD"]

    found = prices_around(market)

    assert len(STEPS) == len(found)
    assert (Decimal(10), Decimal(20), Decimal(30)) == (found[0], found[len(found) // 2], found[-1])
