"""Fixtures that every tier shares."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """`host:port` of a real Kafka: the one of STREAMAPP_TEST_BROKERS, else an embedded one for the whole session.

    Tests share it, so each uses topics and groups of names of its own.
    """
    given = os.environ.get("STREAMAPP_TEST_BROKERS")
    if given:
        yield given
        return
    from streamapp.local.broker import EmbeddedKafka

    with EmbeddedKafka() as broker:
        yield broker.bootstrap
