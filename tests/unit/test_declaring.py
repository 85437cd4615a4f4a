"""What does not fit together is said where a table is declared, and not by each record."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamapp import Candle, Fold, StreamApp, Sum, Trade, tumbling
from streamapp.errors import ConfigurationError


class Reading(BaseModel):
    value: float
    at: int

    @property
    def doubled(self) -> float:
        return 2 * self.value


def declare(model: Any = Trade, **options: Any) -> None:
    app = StreamApp("declaring")
    given = {"aggregate": Candle(), "window": tumbling(timedelta(minutes=1)), **options}
    app.window_table("table", source=app.topic("records", value_type=model), **given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "lastest"}, r"start= takes 'earliest' or 'latest', got 'lastest'"),
        ({"time": "evnt_time"}, r"time= names 'evnt_time', which no record of records has; Trade has .*event_time"),
        ({"key": "simbol"}, r"key= names 'simbol'.*Trade has .*symbol"),
        ({"aggregate": Sum("prize")}, r"Sum\('prize'\) names 'prize'.*Trade has .*price"),
        ({"aggregate": {"all": Sum("prize")}}, r"names 'prize'"),
        ({"aggregate": Fold(0, lambda state, _: state, reads=("prize",))}, r"names 'prize'"),
        ({"model": Reading, "aggregate": Sum("value")}, r"time= names 'event_time'.*Reading has value, at"),
    ],
)
def test_names_that_no_record_has_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"table table: .*{said}"):
        declare(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": "latest"},
        {"key": "symbol"},
        {"key": lambda record: record.anything},
        {"model": Reading, "time": "at", "aggregate": Sum("doubled")},
        {"model": dict, "aggregate": Fold(0, lambda state, _: state)},
    ],
)
def test_names_that_a_record_may_have_are_taken(options: dict[str, Any]) -> None:
    declare(**options)


def test_closed_windows_that_nobody_is_told_of_are_no_source() -> None:
    app = StreamApp("declaring")
    window, trades = tumbling(timedelta(minutes=1)), app.topic("trades", value_type=Trade)
    table = app.window_table("table", source=trades, aggregate=Candle(), window=window, publish_final=False)
    with pytest.raises(ConfigurationError, match="table table keeps its closed windows to itself"):
        app.window_table("second", source=table, aggregate=Sum("value"), window=window)


@pytest.mark.parametrize("kind", ["Table", "GlobalTable", "SetTable", "SetGlobalTable"])
def test_tables_of_fausts_own_are_refused_with_what_to_declare(kind: str) -> None:
    app = StreamApp("declaring")
    with pytest.raises(ConfigurationError, match=rf"{kind} 'seen': expected app.latest_table.*Fold"):
        getattr(app, kind)("seen")
