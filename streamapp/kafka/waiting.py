"""Waiting for a Kafka that is still starting, for processes that are started together with it."""

import asyncio
import logging
import random

from streamapp.clock import Clock, SystemClock
from streamapp.errors import BrokerUnavailableError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.settings import Settings

log = logging.getLogger(__name__)

_ONE_TRY_MS = 2_000
#: upper bound of the random pause between two tries
_PAUSE_MAX_S = 1.0


async def kafka_answers(settings: Settings, *, clock: Clock | None = None) -> str:
    """Wait until the cluster answers, for at most `kafka_start_timeout_ms`.

    Returns:
        The cluster's id.

    Raises:
        BrokerUnavailableError: it did not answer in time.
    """
    clock = clock or SystemClock()
    deadline_ms = clock.monotonic_ms() + settings.kafka_start_timeout_ms
    quick = settings.model_copy(
        update={
            "kafka_request_timeout_ms": min(
                _ONE_TRY_MS, settings.kafka_request_timeout_ms, settings.kafka_start_timeout_ms
            )
        }
    )
    tries = 0
    while True:
        try:
            await _any_listens(quick)
            return await KafkaAdmin(quick, clock=clock).cluster_id()
        except BrokerUnavailableError as problem:
            tries += 1
            if clock.monotonic_ms() >= deadline_ms:
                raise BrokerUnavailableError(
                    settings.kafka_brokers,
                    f"expected Kafka to answer at {settings.kafka_brokers} within {settings.kafka_start_timeout_ms} ms "
                    f"(STREAMAPP_KAFKA_START_TIMEOUT_MS), got no answer in {tries} tries; the last: {problem}",
                ) from problem
            if tries == 1:
                log.info(
                    "waiting for Kafka at %s, %d ms at most", settings.kafka_brokers, settings.kafka_start_timeout_ms
                )
            await asyncio.sleep(random.uniform(0, _PAUSE_MAX_S))


async def _any_listens(settings: Settings) -> None:
    """See that some broker accepts connections; asked before the client is, which logs every refusal as an error."""
    for broker in settings.broker_list:
        host, _, port = broker.rpartition(":")
        try:
            async with asyncio.timeout(settings.kafka_request_timeout_ms / 1000):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return
    raise BrokerUnavailableError(settings.kafka_brokers, f"nobody accepts connections at {settings.kafka_brokers}")
