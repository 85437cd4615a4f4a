"""The driver for users' own apps."""

from datetime import timedelta
from typing import Any

import pytest

from streamapp import Candle, Count, StreamApp, Trade, tumbling
from streamapp.agents.signals import Signals
from streamapp.errors import ConfigurationError, UnknownKeyError
from streamapp.testing import Driver

MINUTE = 60_000
START = 1_790_000_040_000


def trade(price: float, time: int, trade_id: str = "1") -> Trade:
    return Trade(
        venue="x",
        symbol="BTC-USD",
        price=price,
        size=1.0,
        side="buy",
        trade_id=trade_id,
        event_time=time,
        ingest_time=time,
    )


@pytest.fixture
def driver() -> Driver:
    app = StreamApp("prices")
    trades = app.topic("trades", value_type=Trade)
    candles = app.window_table(
        "candles", source=trades, window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10)), aggregate=Candle()
    )
    app.latest_table("signals", source=candles, aggregate=Signals(baseline=3, least_z=2.0))
    return Driver(app)


def test_driver_reads_what_was_sent(driver: Driver) -> None:
    driver.send("trades", trade(100, START), key="x:BTC-USD")
    driver.send("trades", trade(90, START + 1), key="x:BTC-USD")
    value = driver.get("candles", "x:BTC-USD")
    assert (value["open"], value["low"], value["close"], value["count"]) == (100, 90, 90, 2)


def test_driver_closes_windows_by_event_time_and_sets_late_records_aside(driver: Driver) -> None:
    driver.send("trades", trade(100, START), key="k")
    driver.send("trades", trade(101, START + MINUTE + 10_000), key="k")
    assert [final.start for final in driver.finals("candles")] == [START]
    driver.send("trades", trade(1, START + 5), key="k")
    assert [late["missed"] for late in driver.late("candles")] == [[START]]
    assert driver.windows("candles", "k")[0].value["count"] == 1


@pytest.mark.parametrize("keep_disk", [True, False])
def test_driver_restart_loses_nothing(driver: Driver, keep_disk: bool) -> None:
    for minute in range(5):
        driver.send("trades", trade(100 + minute, START + minute * MINUTE), key="k")
    before = driver.windows("candles", "k")
    driver.restart(keep_disk=keep_disk)
    assert driver.windows("candles", "k") == before
    driver.send("trades", trade(7, START + 5 * MINUTE), key="k")
    assert len(driver.windows("candles", "k")) == 6


def test_driver_passes_final_records_on_to_the_tables_that_read_them(driver: Driver) -> None:
    for minute, price in enumerate([101, 99, 102, 150, 100]):
        driver.send("trades", trade(100, START + minute * MINUTE), key="k")
        driver.send("trades", trade(price, START + minute * MINUTE + 1), key="k")
    driver.send("trades", trade(100, START + 6 * MINUTE), key="k")
    assert driver.get("signals", "k")["kind"] == "price_move"


def test_driver_collects_dead_letters(driver: Driver) -> None:
    driver.send("trades", b"{", key="k")
    driver.send("trades", {"venue": "x"}, key="k")
    driver.send("trades", trade(1, START))
    assert [letter.reason for letter in driver.dead_letters] == ["undecodable", "wrong_schema", "missing_key"]
    with pytest.raises(UnknownKeyError):
        driver.get("candles", "k")


def test_driver_names_the_topics_when_nobody_reads_one(driver: Driver) -> None:
    with pytest.raises(ConfigurationError, match="trades"):
        driver.send("quotes", b"{}")


@pytest.mark.parametrize(("key", "said"), [("sequence", "got null"), (lambda _: "", "a key of text, got ''")])
def test_record_without_a_key_is_a_dead_letter_and_no_key_called_none(key: Any, said: str) -> None:
    app = StreamApp("devices")
    app.latest_table("counts", source=app.topic("trades", value_type=Trade), key=key, aggregate=Count())
    driver = Driver(app)
    driver.send("trades", trade(1, START))
    [letter] = driver.dead_letters
    assert letter.reason == "key_failed"
    assert said in letter.error


def test_keys_made_by_a_function_are_told_as_such() -> None:
    app = StreamApp("devices")
    trades = app.topic("trades", value_type=Trade)
    app.latest_table("by_id", source=trades, key="trade_id", aggregate=Count())
    app.latest_table("by_side", source=trades, key=lambda record: record.side, aggregate=Count())
    forms = [table.definition.key_form for table in app.engine.tables.values()]
    assert forms == ["the record's trade_id", "made from the record"]
