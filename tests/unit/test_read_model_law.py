"""Read models against the ledger's own states, over one stream that has every type of record and of event."""

from __future__ import annotations

from ledger.between_shards import BETWEEN
from ledger.events import EVENTS, LiquidationOrderPlaced
from tests.unit.ledger_scenario import Scenario, rules
from tests.unit.read_model_law import hold_to_states


def whole_story() -> Scenario:
    """Every type of event, most of them under circumstances that make them hard."""
    s = Scenario()
    s.rulebook(rules("desk", oracle={"variant": "median:1", "max_age_seconds": 86400}))
    s.asset("USD")
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.instrument("BTC-USD")
    s.instrument("ETH-USD", contract_size="0.1")
    s.instrument("BTC-USD-I", base="BTC", quote="USD", contract_type="inverse", contract_size="100", lot="1")
    s.instrument("BTC-JAN", base="BTC", quote="USD")
    s.fund("50")
    s.fund("1000", kind="withdrawal")
    for name in ("A", "B", "C", "D", "M"):
        s.account(name, kind="liquidity-provider" if name == "M" else "client")
    s.account("H", position_mode="hedge")
    s.account("B", margin_mode="isolated")
    s.deposit("A", "USD", "10000", id="in-1")
    s.deposit("A", "USD", "500", id="in-2")
    s.deposit("A", "USD", "500", id="back", reverses="in-2")
    s.deposit("A", "BTC", "1")
    for name in ("B", "C", "D", "H"):
        s.deposit(name, "USD", "3000")
    s.deposit("M", "USD", "1000000")
    s.deposit("M", "BTC", "100")
    # Prices: a fill before any mark, several sources, late, a step, a gap.
    s.fill("D", "buy", "1", "200", instrument="ETH-USD")
    s.price("ETH-USD", "200", sequence=1)
    s.price("ETH-USD", "300", sequence=3)
    s.price("ETH-USD", "201", sequence=5)
    s.price("BTC-USD", "10000")
    s.price("BTC-USD", "10010", source="other")
    s.price("BTC-USD", "10020", source="third", kind="index")
    s.price("BTC-USD", "10001", time="2026-01-05T09:00:00Z")
    s.price("BTC-USD", "10002", source="slow", time="2026-01-05T09:30:00Z")
    s.price("BTC-USD-I", "10000")
    s.price("BTC-JAN", "10000")
    # Settings, trades in all modes, fees in other assets.
    s.send("account-settings", account="A", leverage="10")
    s.send("account-settings", account="A", instrument="BTC-USD", leverage="20", margin_mode="cross")
    s.send("account-settings", account="D", position_mode="net", margin_mode="isolated")
    s.fill("A", "buy", "1", "10000", trade_id="t1", fee="2", fee_asset="USD")
    s.fill("M", "sell", "1", "10000", trade_id="t1", fee="-0.5")
    s.fill("A", "buy", "10", "10000", instrument="BTC-USD-I", fee="0.00001")
    s.fill("M", "sell", "10", "10000", instrument="BTC-USD-I")
    s.fill("B", "buy", "1", "10000", fee="0.0001", fee_asset="BTC")
    s.fill("C", "buy", "2", "10000")
    s.fill("H", "buy", "1", "10000", position_side="long")
    s.fill("H", "sell", "2", "10000", position_side="short")
    s.fill("D", "sell", "0.5", "10000", instrument="BTC-JAN", margin_mode="cross")
    s.fill("A", "buy", "0.5", "10000", instrument="BTC-JAN", margin_mode="isolated")
    s.send("account-settings", account="A", leverage="5")
    s.send("account-settings", account="H", instrument="BTC-USD", leverage="8")
    # Orders, and margin moved.
    s.send("order", account="A", order_id="o1", instrument="BTC-USD", side="buy", remaining="1", price="9500")
    s.send("order", account="A", order_id="o1", instrument="BTC-USD", side="buy", remaining="0.5", price="9600")
    s.send("order", account="A", order_id="o2", instrument="ETH-USD", side="sell", remaining="3", price="210")
    s.send("order", account="A", order_id="o2", instrument="ETH-USD", side="sell", remaining="0", price="210")
    s.send("order", account="H", order_id="o3", instrument="BTC-USD", side="sell", remaining="1", price="9900",
           reduce_only=True)
    s.send("isolated-margin", account="B", instrument="BTC-USD", amount="50")
    s.send("isolated-margin", account="B", instrument="BTC-USD", amount="-20")
    s.send("isolated-margin", account="B", instrument="BTC-USD", amount="-100000")
    # Interest and funding, then holds and transfers that settle them.
    s.send("interest-rate", asset="BTC", borrow_rate="0.1", lend_rate="0.01")
    s.send("interest-rate", asset="USD", borrow_rate="0.2", lend_rate="0.02")
    s.funding("BTC-USD", "0.0001")
    s.funding("BTC-USD-I", "-0.0003")
    s.clock("10:30:00")
    s.withdraw("A", "USD", "100", id="w1", hold=True)
    s.withdraw("A", "USD", "40", id="w2", hold=True)
    s.withdraw("A", "USD", "30", id="w3", hold=True)
    s.withdraw("A", "USD", "5")
    s.withdraw("A", "USD", "500000")
    s.send("withdrawal-settled", account="A", withdrawal="w1")
    s.send("withdrawal-cancelled", account="A", withdrawal="w2")
    s.send("transfer", account="A", to_account="C", asset="USD", amount="7")
    s.send("transfer", account="A", to_account="C", asset="USD", amount="70000")
    # Halts, a daily settlement, an expiry, and what comes too late for it.
    s.send("halt", scope="A", what="withdrawals", reason="review", by="desk")
    s.send("halt", scope="A", what="withdrawals", reason="still", by="desk")
    s.withdraw("A", "USD", "1")
    s.send("halt", scope="BTC-JAN", what="new-risk", reason="end", by="desk")
    s.fill("A", "buy", "0.1", "10000", instrument="BTC-JAN", margin_mode="isolated")
    s.send("resume", scope="A", what="withdrawals", reason="done", by="desk")
    s.send("settlement", instrument="BTC-USD", price="10003.33", kind="daily")
    s.send("settlement", instrument="BTC-USD-I", price="10003", kind="daily")
    s.send("settlement", instrument="BTC-JAN", price="10003.33", kind="expiry")
    s.price("BTC-JAN", "10004")
    s.fill("A", "buy", "0.1", "10000", instrument="BTC-JAN")
    s.fill("A", "sell", "0.1", "10000", instrument="BTC-JAN")
    fall(s)
    return s


def sol(s: Scenario, at: str, price: str) -> None:
    """A mark of SOL-USD once log time has come to it."""
    s.clock(at)
    s.price("SOL-USD", price)


def fall(s: Scenario) -> None:
    """Calls of each end, liquidations that fill and fall short: SOL-USD falls, of which each account holds 1,000.

    Each has 11 USD a coin and bought at 100; 2 % of the notional must stay.
    """
    s.instrument("SOL-USD")
    sol(s, "10:40:00", "100")
    for name in ("E", "F", "G", "J"):
        s.account(name)
        s.deposit(name, "USD", "10200")
        s.deposit(name, "USD", "800", id=f"more-{name}")
        s.fill(name, "buy", "1000", "100", instrument="SOL-USD")
    s.deposit("J", "BTC", "0.002")
    sol(s, "10:41:00", "92")
    sol(s, "10:42:00", "91.2")
    s.deposit("E", "USD", "1500")
    sol(s, "10:43:00", "92")
    sol(s, "10:44:00", "91.2")
    s.deposit("J", "USD", "800", reverses="more-J")
    s.deposit("nobody", "USD", "1")
    s.send("halt", scope="SOL-USD", what="liquidations", reason="odd prices", by="desk")
    s.send("resume", scope="SOL-USD", what="liquidations", reason="true", by="desk")
    s.clock("11:44:00")
    order = s.last(LiquidationOrderPlaced)
    s.send("liquidation-result", account=order.account, liquidation_order_id=order.order_id, result="rejected")
    order = s.last(LiquidationOrderPlaced)
    s.send("liquidation-result", account="J", liquidation_order_id=order.order_id, result="expired")
    s.fill(order.account, "sell", "1", "90", instrument="SOL-USD", liquidation_order_id=order.order_id)
    s.send("liquidation-result", account=order.account, liquidation_order_id=order.order_id, result="filled")
    order = s.last(LiquidationOrderPlaced)
    s.send("liquidation-result", account=order.account, liquidation_order_id=order.order_id, result="filled")
    sol(s, "11:45:00", "88")
    for _ in range(8):
        if not s.house.open_orders:
            break
        name = next(iter(s.house.open_orders))
        order = next(row for row in s.events(LiquidationOrderPlaced) if row.order_id == name)
        left = s.state(order.account).liquidations[order.pool].orders[name].remaining
        s.fill(order.account, order.side, str(left), "86", instrument=order.instrument,
               liquidation_order_id=name)
    s.clock("12:45:00")


def test_read_models_say_what_the_states_say_after_every_event() -> None:
    s = whole_story()

    hold_to_states(s.log, cuts=(10, 50, 77))


def test_the_story_has_every_event() -> None:
    # What shards send each other has no place in a ledger that keeps the whole: tests/unit/test_between_shards.py.
    missing = {event.__name__ for event in EVENTS if event.ANSWERS not in BETWEEN} - {
        type(row.event).__name__ for row in whole_story().log}

    assert set() == missing
