"""Fixtures of the acceptance tests."""

from collections.abc import Iterator

import pytest

from streamapp.local.broker import EmbeddedKafka
from tests.fakes.processes import Topics


@pytest.fixture
def own_kafka() -> Iterator[Topics]:
    """A Kafka of the test's own: the built-in application's topics have fixed names, and a test needs them empty."""
    with EmbeddedKafka() as broker:
        yield Topics(broker.bootstrap)
