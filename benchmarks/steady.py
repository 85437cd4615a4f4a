"""A load of trades at a steady rate: `python -m benchmarks.steady BROKERS TOPIC RATE SECONDS [KEYS [LINGER_MS]]`.

A few instruments trade often and most of them seldom; with KEYS above 0 that many instruments trade equally often instead.
Every millisecond it sends what has become due, so a pause is made up for. It says `started`, with the instant by
`time.perf_counter`, which all processes of a machine share; and once a second how many records it has sent, how many of them
the broker has acknowledged, and how far it fell behind in that second. It ends with an error as soon as a record was not
delivered.
"""

import sys
import time

import numpy as np

from benchmarks.peers.marks import mark
from benchmarks.producer import BulkProducer
from benchmarks.topics import SYMBOLS, symbol, trade

_TICK_S = 0.001
_PACE_S = 1.0
_CONNECT_TIMEOUT_S = 30.0
_FLUSH_TIMEOUT_S = 30.0
#: above this rate a little patience of the producer saves the broker a request per record
_LINGER_ABOVE = 30_000
_EVEN_LINGER_MS = 5


def main(
    brokers: str, topic: str, rate: float, seconds: float, even_keys: int = 0, linger_ms: int | None = None
) -> None:
    """Send; returns when everything is acknowledged.

    Raises:
        DeliveryError: a record was not delivered.
    """
    # many keys are few records of each partition at a time: without patience a broker is asked for each of them
    if linger_ms is None:
        linger_ms = _EVEN_LINGER_MS if even_keys else 2 if rate > _LINGER_ABOVE else 0
    producer = BulkProducer(brokers, topic, linger_ms=linger_ms, compression="none")
    producer.connect(_CONNECT_TIMEOUT_S)
    chance = np.random.default_rng(2)
    if even_keys:
        chosen = chance.integers(even_keys, size=10_000).tolist()
    else:
        chosen = np.minimum(chance.exponential(SYMBOLS / 4, 10_000).astype(int), SYMBOLS - 1).tolist()
    names = [symbol(index) for index in range(even_keys or SYMBOLS)]
    keys = [name.encode() for name in names]
    total, sent, behind = int(rate * seconds), 0, 0
    begin = time.perf_counter()
    said = 0.0
    mark("started", at=begin)
    while sent < total:
        due = min(int((time.perf_counter() - begin) * rate), total)
        behind = max(behind, due - sent)
        now_ms = time.time_ns() // 1_000_000
        while sent < due:
            index = chosen[sent % 10_000]
            value = trade(names[index], 100.0 + sent % 17, 1.0, now_ms, sent)
            producer.send(keys[index], value, now_ms)
            sent += 1
        producer.poll()
        if time.perf_counter() - said > _PACE_S:
            mark("pace", sent=sent, delivered=producer.delivered, behind=behind)
            behind, said = 0, time.perf_counter()
        time.sleep(_TICK_S)
    producer.flush(_FLUSH_TIMEOUT_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), *map(int, sys.argv[5:]))
