"""kill -9 of the worker while it works, the disk kept and lost: nothing is missing, nothing counted twice."""

import random
import time
from pathlib import Path

import pytest

from streamapp.kafka.topics import BUILTIN_TOPICS
from tests.acceptance.comparison import arrivals, compare_finals, compare_late, compare_views
from tests.acceptance.generated import encoded, generated_trades
from tests.acceptance.reference import MINUTE_MS, reference
from tests.fakes.processes import Topics, Worker, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

GROUP = "streamapp"
EVENTS = 200_000
SEED = 2
#: per life, records merged before the kill, summed over the five tables that read trades
LEAST_MERGED, MOST_MERGED = 5_000, 220_000
#: small fetches and frequent checkpoints: kills fall into more phases, and there is work left for all of them
SLOWLY = {"STREAMAPP_POLL_MAX_RECORDS": "1000", "STREAMAPP_COMMIT_INTERVAL_MS": "50"}


def test_six_kills_leave_every_window_equal_to_the_reference(own_kafka: Topics, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    began = time.monotonic()
    worker = Worker(own_kafka.brokers, tmp_path, env=SLOWLY)
    own_kafka.create(*BUILTIN_TOPICS(own_kafka.settings))
    own_kafka.produce("trades", map(encoded, generated_trades(SEED, EVENTS, 150 * MINUTE_MS)))
    with worker:
        lives = [False] * 3 + [True] * 3
        draw.shuffle(lives)
        for number, disk_is_lost in enumerate(lives, start=1):
            wanted = draw.randrange(LEAST_MERGED, MOST_MERGED)
            until(
                f"{wanted} records merged",
                lambda wanted=wanted: worker.applied >= wanted,
                hint=lambda: worker.last_words,
            )
            worker.kill()
            done, end = (
                sum(places.values()) for places in (own_kafka.committed(GROUP, "trades"), own_kafka.ends("trades"))
            )
            print(f"kill {number}: {done} of {end} committed, disk {'lost' if disk_is_lost else 'kept'}")
            assert done < end == EVENTS, "the run was over before the kill"
            if disk_is_lost:
                worker.lose_disk()
            worker.start()
        own_kafka.until_drained(GROUP, "trades", hint=lambda: worker.last_words)
        own_kafka.until_drained(GROUP, "streamapp-candles_1m-final")

        expected = reference(arrivals(own_kafka, "trades"))
        comparisons = [compare_views(worker, expected)]
        # the changelog alone, replayed into an empty store
        signals = {key: worker.get(f"/v1/tables/signals/keys/{key}")["value"] for key in worker.keys("signals")}
        assert worker.terminate() == 0
        worker.lose_disk()
        worker.start()
        worker.until_ready()
        comparisons += [
            compare_views(worker, expected),
            compare_finals(own_kafka, expected),
            compare_late(own_kafka, expected),
        ]
        assert worker.metric("streamapp_restore_records_total", table="candles_1m") > 0
        assert worker.applied == 0, "everything had been committed"
        assert signals == {key: worker.get(f"/v1/tables/signals/keys/{key}")["value"] for key in worker.keys("signals")}
        letters = own_kafka.values("dead-letters")
    for compared in comparisons:
        print(compared)
    print(
        f"{EVENTS} events, {len(lives)} kills: {comparisons[0].total} windows compared over HTTP, "
        f"{sum(len(compared.differing) for compared in comparisons)} differ; {time.monotonic() - began:.0f} s"
    )
    assert [compared.differing for compared in comparisons] == [[], [], [], []]
    assert comparisons[0].total > 3_000
    assert letters == []
