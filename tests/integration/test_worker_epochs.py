"""What a replaced owner writes late: nobody believes it, and the owner says again what is true."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamapp.state.entry import CHECKPOINT_KEY, Entry, data_key
from streamapp.state.epochs import EPOCH_KEY, epoch_number
from tests.fakes.processes import WAIT_S, Topics, Worker, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(8)]
MENDED = "streamapp_mended_keys_total"
ENV = {"STREAMAPP_CHANGELOG_WATCH_MS": "100"}


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> UserApp:
    return UserApp(Topics(kafka), tmp_path)


def counts(worker: Worker) -> dict[str, list[int]]:
    return {key: [item["value"]["count"] for item in worker.windows("candles", f"x:{key}")] for key in KEYS}


def append(brokers: str, topic: str, late: list[tuple[int, bytes, bytes | None, Any]]) -> None:
    """Records as the client of a process that has just woken up sends them."""
    producer = Producer({"bootstrap.servers": brokers})
    for partition, key, raw, headers in late:
        producer.produce(topic, raw, key, partition=partition, headers=headers)
    assert producer.flush(WAIT_S) == 0


def epochs_of(messages: list[Any]) -> list[int]:
    return [epoch_number(message.value()[-4:]) for message in messages if message.key() == EPOCH_KEY]


def test_late_records_of_a_replaced_owner_change_nothing_whatever_is_lost_afterwards(app: UserApp) -> None:
    changelog = f"{app.id}-candles-changelog"
    with app.worker(env=ENV) as worker:
        worker.until_ready()
        app.send(*(trade(key, START + minute * MINUTE) for minute in range(2) for key in KEYS))
        app.drained(worker)
        old = app.topics.read(changelog)
        assert worker.terminate() == 0

        worker.start().until_ready()  # the next owner, of the next epoch
        app.send(*(trade(key, START + MINUTE + 1) for key in KEYS))
        app.drained(worker)
        truth = counts(worker)
        assert truth == {key: [1, 2] for key in KEYS}
        partitions = {m.partition() for m in old}
        for partition in partitions:
            claims = epochs_of([m for m in app.topics.read(changelog) if m.partition() == partition])
            assert claims == [1, 2]

        # all of it once more: values, checkpoints; and deletions, and windows that the owner has never seen
        late = [(m.partition(), m.key(), m.value(), m.headers()) for m in old]
        epoch = next(m.headers() for m in old if m.key() == CHECKPOINT_KEY)
        first = {m.partition(): m for m in old if m.key() not in (CHECKPOINT_KEY, EPOCH_KEY)}
        for partition, message in first.items():
            late.append((partition, message.key(), None, epoch))
            late.append((partition, data_key("x:GHOST", START), message.value(), None))
        append(app.topics.brokers, changelog, late)
        until("the owner to say it again", lambda: worker.metric(MENDED, table="candles") >= len(KEYS))
        ghosts = len(first)
        values = len({(m.partition(), m.key()) for m in old if m.key() not in (CHECKPOINT_KEY, EPOCH_KEY)})
        checkpoints = len({m.partition() for m in old if m.key() == CHECKPOINT_KEY})
        until(
            "all of it",
            lambda: worker.metric(MENDED, table="candles") == values + ghosts + checkpoints,
            hint=lambda: worker.last_words,
        )
        assert counts(worker) == truth

        # what compaction leaves: the last record of each key; it has to be the truth, in the name of the owner
        last = {(m.partition(), m.key()): m for m in app.topics.read(changelog)}
        for (_, key), message in last.items():
            if key in (CHECKPOINT_KEY, EPOCH_KEY):
                continue
            assert (message.value() is None) == (key == data_key("x:GHOST", START))
            if message.value() is not None:
                assert epoch_number(message.value()[-4:]) == 2
                Entry.decode(message.value())

        worker.kill()
        worker.lose_disk()
        worker.start().until_ready()
        assert counts(worker) == truth
        app.send(*(trade(key, START + MINUTE + 2) for key in KEYS))
        app.drained(worker)
        assert counts(worker) == {key: [1, 3] for key in KEYS}


def test_late_records_that_nobody_mended_are_found_by_the_next_owner(app: UserApp) -> None:
    changelog = f"{app.id}-candles-changelog"
    with app.worker(env=ENV) as worker:
        worker.until_ready()
        app.send(*(trade(key, START) for key in KEYS))
        app.drained(worker)
        old = [m for m in app.topics.read(changelog) if m.key() != EPOCH_KEY]
        assert worker.terminate() == 0
        worker.start().until_ready()
        app.send(*(trade(key, START + 1) for key in KEYS))
        app.drained(worker)
        worker.kill()
        append(app.topics.brokers, changelog, [(m.partition(), m.key(), m.value(), m.headers()) for m in old])
        worker.lose_disk()

        worker.start().until_ready()
        assert counts(worker) == {key: [2] for key in KEYS}
        until("the owner to say it again", lambda: worker.metric(MENDED, table="candles") >= len(KEYS))
        assert worker.metric("streamapp_records_applied_total", table="candles") == 0, "nothing is counted again"
