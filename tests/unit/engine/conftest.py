"""What all tests of the engine need."""

import pytest

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()
