"""kill -9 of the bridge: no trade twice in the topic, and each trade that is not there lies in a published gap."""

import asyncio
import os
from collections import defaultdict

import pytest

from streamapp.kafka.admin import KafkaAdmin
from streamapp.settings import Settings
from tests.fakes.bridge_runs import clean_topics, command, read_topics

pytestmark = pytest.mark.integration

KILLS = 3
TRADES_BETWEEN = 2_000


async def _until_trades(admin: KafkaAdmin, partitions: int, count: int) -> None:
    tps = [("trades", partition) for partition in range(partitions)]
    async with asyncio.timeout(60):
        while sum((await admin.end_offsets(tps)).values()) < count:  # noqa: ASYNC110 - only the broker knows
            await asyncio.sleep(0.05)


async def test_bridge_killed_three_times_stores_no_trade_twice_and_publishes_every_gap(kafka):
    settings = Settings(kafka_brokers=kafka)
    await clean_topics(settings)
    admin = KafkaAdmin(settings)
    env = {**os.environ, "STREAMAPP_KAFKA_BROKERS": kafka}
    faults = ("--duplicates", "0.02", "--reorder", "0.02", "--gaps", "0.002", "--malformed", "0.001")
    async with command(
        "simulate", "--port", "0", "--symbols", "3", "--rate", "3000", "--seed", "5", *faults, env=env
    ) as simulator:
        url = await simulator.line(r"listening on (ws://\S+)")
        arguments = ("bridge", "--feed", "coinbase", "--url", url, "--symbols", "BTC-USD,ETH-USD,SOL-USD")
        stored = 0
        for _ in range(KILLS):
            async with command(*arguments, env=env) as bridge:
                stored += TRADES_BETWEEN
                await _until_trades(admin, settings.partitions, stored)
                await bridge.kill()
            tps = [("trades", partition) for partition in range(settings.partitions)]
            stored = sum((await admin.end_offsets(tps)).values())
        async with command(*arguments, env=env) as bridge:
            await _until_trades(admin, settings.partitions, stored + TRADES_BETWEEN)
            assert await bridge.terminate() == 0
        assert await simulator.terminate() == 0

    topics = await read_topics(kafka)
    ids = defaultdict(list)
    for record in topics["trades"]:
        ids[record.key].append(int(record.value["trade_id"]))
    gaps = defaultdict(set)
    for record in topics["feed-status"]:
        if record.value["state"] == "gap":
            gaps[record.key].update(range(record.value["sequence_expected"], record.value["sequence_got"]))

    assert set(ids) == {"coinbase:BTC-USD", "coinbase:ETH-USD", "coinbase:SOL-USD"}
    for key, numbers in ids.items():
        assert len(numbers) == len(set(numbers)), f"{key}: stored twice"
        missing = set(range(min(numbers), max(numbers) + 1)) - set(numbers)
        assert missing, "three kills must have cost something, or this shows nothing"
        assert missing <= gaps[key], f"{key}: missing without a gap: {sorted(missing - gaps[key])[:10]}"
    states = [record.value["state"] for record in topics["feed-status"] if record.value["symbol"] is None]
    assert states[-1] == "disconnected"
    assert topics["dead-letters"], "the broken frames"
