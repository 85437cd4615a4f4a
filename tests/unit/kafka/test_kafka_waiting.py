"""Processes that start together with Kafka wait for it, and not for ever."""

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import BrokerUnavailableError
from streamapp.kafka import waiting
from streamapp.kafka.waiting import kafka_answers
from streamapp.settings import Settings


class ScriptedAdmin:
    """Answers after a number of refusals; each refusal costs the time of one try."""

    refusals = 0
    asked = 0

    def __init__(self, settings: Settings, *, clock: ManualClock) -> None:
        self.try_ms = settings.kafka_request_timeout_ms
        self.clock = clock

    async def cluster_id(self) -> str:
        type(self).asked += 1
        if type(self).asked <= self.refusals:
            self.clock.advance(self.try_ms)
            raise BrokerUnavailableError("127.0.0.1:1", "refused")
        return "cluster"


async def listens(settings: Settings) -> None:
    """Somebody does."""


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedAdmin]:
    scripted = type("Scripted", (ScriptedAdmin,), {})
    monkeypatch.setattr(waiting, "KafkaAdmin", scripted)
    monkeypatch.setattr(waiting, "_any_listens", listens)
    monkeypatch.setattr(waiting, "_PAUSE_MAX_S", 0.0)
    return scripted


async def test_kafka_that_comes_up_in_time_is_waited_for(admin: type[ScriptedAdmin]) -> None:
    admin.refusals = 3
    found = await kafka_answers(Settings.model_construct(kafka_start_timeout_ms=60_000), clock=ManualClock())
    assert (found, admin.asked) == ("cluster", 4)


async def test_kafka_that_never_answers_is_given_up_after_the_waiting_time(admin: type[ScriptedAdmin]) -> None:
    admin.refusals = 1_000
    clock = ManualClock()
    with pytest.raises(BrokerUnavailableError, match="within 10000 ms"):
        await kafka_answers(Settings.model_construct(kafka_start_timeout_ms=10_000), clock=clock)
    assert admin.asked == 5
    assert clock.monotonic_ms() == 10_000


async def test_kafka_client_is_not_started_while_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(waiting, "KafkaAdmin", lambda *_, **__: pytest.fail("asked"))
    settings = Settings.model_construct(kafka_brokers=f"127.0.0.1:{free_port}", kafka_start_timeout_ms=1)
    with pytest.raises(BrokerUnavailableError, match="nobody accepts connections"):
        await kafka_answers(settings)
