"""An application with something for every tool of an agent, and a call of each tool."""

from typing import Any

from tests.fakes.processes import Worker
from tests.fakes.user_apps import CANDLES, MINUTE, START, UserApp, trade

MODULE = f"""{CANDLES}
from streamapp.agents.signals import Signals

app.latest_table("signals", source=candles, aggregate=Signals())
"""
KEYS = [f"x:S{number}" for number in range(8)]


def calls(key: str = KEYS[0], *others: str) -> dict[str, dict[str, Any]]:
    """Tool -> arguments that it has an answer to, in the order of the tools."""
    return {
        "list_tables": {},
        "describe_table": {"table": "candles"},
        "get_current": {"table": "candles", "keys": [key, *others]},
        "get_windows": {"table": "candles", "key": key, "max_points": 2},
        "get_top": {"table": "candles", "by": "close", "limit": 3},
        "find_keys": {"query": "s"},
        "compare": {"table": "candles", "keys": [key, *others]},
        "get_signals": {},
        "get_feed_health": {},
        "summarize_state": {"budget_tokens": 300},
        "wait_for": {"table": "candles", "key": key, "condition": "close > 0"},
    }


def fill(app: UserApp, worker: Worker) -> None:
    """Three minutes of all keys: `x:S{n}` closes at 100 + n, 101 + n and 102 + n."""
    app.send(*(trade(f"S{n}", START + m * MINUTE, price=100.0 + n + m) for m in range(3) for n in range(len(KEYS))))
    app.drained(worker)
