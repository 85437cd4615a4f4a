"""From what is on the topics to what is answered over HTTP: every window equals an offline reference."""

from pathlib import Path

import pytest

from streamapp.simulator.server import SimulatorSettings, walk_for
from tests.acceptance.comparison import arrivals, compare_finals, compare_late, compare_views
from tests.acceptance.generated import START_MS, encoded, generated_trades
from tests.acceptance.reference import MINUTE_MS, reference
from tests.fakes.processes import Streamapp, Topics, Worker, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(420)]

GROUP = "streamapp"


@pytest.mark.parametrize("native", ["auto", "off"])
def test_every_window_equals_the_reference_over_shuffled_and_late_trades(
    native: str, own_kafka: Topics, tmp_path: Path
) -> None:
    trades = list(generated_trades(seed=11, count=40_000, span_ms=200 * MINUTE_MS))
    with Worker(own_kafka.brokers, tmp_path, env={"STREAMAPP_NATIVE": native}) as worker:
        worker.until_ready()
        # the first part record by record, as it trickles in, the rest in large batches
        for size, part in ((50, trades[:2_000]), (len(trades), trades[2_000:])):
            for begin in range(0, len(part), size):
                own_kafka.produce("trades", map(encoded, part[begin : begin + size]))
        own_kafka.until_drained(GROUP, "trades", hint=lambda: worker.last_words)
        arrived = arrivals(own_kafka, "trades")
        expected = reference(arrived)
        assert len(arrived) == len(trades)
        assert all(expected.late.values()), "the run holds no late trade, so it proves nothing about lateness"

        for compared in (
            compare_views(worker, expected),
            compare_finals(own_kafka, expected),
            compare_late(own_kafka, expected),
        ):
            print(compared)
            assert not compared.differing, str(compared)
            assert compared.total > 1_000
        for table, late in expected.late.items():
            assert worker.metric("streamapp_late_records_total", table=table) == len(late)
        assert own_kafka.values("dead-letters") == []


def test_simulated_venue_through_bridge_and_kafka_equals_the_reference(own_kafka: Topics, tmp_path: Path) -> None:
    events = 4_000
    settings = SimulatorSettings(symbols=4, rate=2_000, seed=5, events=events, start_time_ms=START_MS, time_scale=400)
    venue = Streamapp(
        "venue",
        tmp_path,
        *("simulate", "--port", "0", "--symbols", "4", "--rate", "2000", "--seed", "5", "--events", str(events)),
        *("--start-time", str(START_MS), "--time-scale", "400"),
    )
    with venue, Worker(own_kafka.brokers, tmp_path) as worker:
        url = venue.line(r"^listening on (\S+)")
        worker.until_ready()
        environment = {"STREAMAPP_KAFKA_BROKERS": own_kafka.brokers}
        with Streamapp("bridge", tmp_path, "bridge", "--feed", "coinbase", "--url", url, env=environment) as bridge:
            until(
                "all trades on the topic",
                lambda: sum(own_kafka.ends("trades").values()) >= events,
                hint=lambda: bridge.last_words,
            )
            assert bridge.terminate() == 0
        own_kafka.until_drained(GROUP, "trades", "quotes")

        trades, quotes = arrivals(own_kafka, "trades"), arrivals(own_kafka, "quotes")
        walked = walk_for(settings, START_MS).take(events)
        assert sorted(
            (trade.symbol, trade.trade_id, trade.price, trade.size, trade.event_time) for trade in walked
        ) == (
            sorted(
                (t.value["symbol"], int(t.value["trade_id"]), t.value["price"], t.value["size"], t.value["event_time"])
                for t in trades
            )
        )
        assert quotes, "the venue sends a ticker with every fifth trade"
        compared = compare_views(worker, reference(trades, quotes))
        print(compared)
        assert not compared.differing, str(compared)
        assert compared.total > 100
        assert own_kafka.values("dead-letters") == []
