"""Fixtures that every tier shares."""

import os
from collections.abc import Iterator

import pytest

from tests.fakes.ports import unused_port

TEST_BROKERS = "STREAMAPP_TEST_BROKERS"


def pytest_configure() -> None:
    """Keep a developer's own environment and `streamapp.toml` out of the tests, and of the processes they start."""
    for name in [name for name in os.environ if name.startswith("STREAMAPP_") and name != TEST_BROKERS]:
        del os.environ[name]
    os.environ["STREAMAPP_CONFIG"] = os.devnull


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """`host:port` of a real Kafka: the one of STREAMAPP_TEST_BROKERS, else an embedded one for the whole session.

    Tests share it, so each uses topics and groups of names of its own.
    """
    given = os.environ.get(TEST_BROKERS)
    if given:
        yield given
        return
    from streamapp.local.broker import EmbeddedKafka

    with EmbeddedKafka() as broker:
        yield broker.bootstrap


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    return unused_port()
