"""Seeded trades for the measurements, produced as fast as the broker takes them."""

import random
import time

import orjson
from confluent_kafka import Producer

from streamapp.kafka.config import confluent_config
from streamapp.settings import Settings


def produce_trades(settings: Settings, count: int, *, symbols: int = 200, step_ms: int = 1, seed: int = 1) -> None:
    """Fill `trades` with `count` trades of a random walk, event times `step_ms` apart and ending about now."""
    chance = random.Random(seed)
    producer = Producer(
        {
            **confluent_config(settings),
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
        }
    )
    names = [f"S{index:04d}-USD" for index in range(symbols)]
    prices = [100 + chance.random() * 1000 for _ in names]
    begin = time.time_ns() // 1_000_000 - count * step_ms
    for number in range(count):
        index = min(int(chance.expovariate(1) * symbols / 4), symbols - 1)
        prices[index] *= 1 + chance.gauss(0, 1e-4)
        moment = begin + number * step_ms
        value = orjson.dumps(
            {
                "venue": "bench",
                "symbol": names[index],
                "price": round(prices[index], 4),
                "size": round(chance.random(), 6),
                "side": "buy" if number & 1 else "sell",
                "trade_id": str(number),
                "sequence": number,
                "event_time": moment,
                "ingest_time": moment,
            }
        )
        while True:
            try:
                producer.produce("trades", value, f"bench:{names[index]}".encode())
                break
            except BufferError:
                producer.poll(0.1)
        if number % 5_000 == 0:
            producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the broker did not take all trades within 60 s")
