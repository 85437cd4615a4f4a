"""Which way a batch is merged, chosen by the test instead of by its size."""

from typing import Any, Literal

import pytest

from streamapp.state import grouping, lanes
from streamapp.windows.reductions import NotByArraysError

Lane = Literal["records", "arrays", "expressions"]
NEVER = 1 << 60


def use_lane(monkeypatch: pytest.MonkeyPatch, lane: Lane, least: int = 1) -> None:
    """Merge batches from `least` records or merges on in this way, as far as it can be done with them."""
    monkeypatch.setattr(lanes, "ARRAYS_MIN_RECORDS", NEVER if lane == "records" else least)
    monkeypatch.setattr(lanes, "EXPRESSIONS_MIN_MERGES", NEVER if lane == "records" else least)
    if lane == "expressions":
        monkeypatch.setattr(grouping, "_by_arrays", _not_by_arrays)


def _not_by_arrays(*_: Any) -> None:
    raise NotByArraysError
