"""The pace of fetches: what is postponed, and what never is."""

import asyncio
import time
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

from streamapp.engine.pacing import Pace, PacedFetches

_PACE_S = 0.05
_MOST = 1_000
_TIMEOUT_S = 10.0


class RoutinesSide:
    """What of a fetcher the pace sees: the stock `_notify`, and the future that its routine waits for."""

    def __init__(self) -> None:
        self._wait_consume_future = asyncio.get_running_loop().create_future()
        self._notify: Any = Fetcher._notify.__get__(self)

    def ask_again(self) -> "asyncio.Future[None]":
        """What the routine does each time round."""
        self._wait_consume_future = asyncio.get_running_loop().create_future()
        return self._wait_consume_future


async def test_question_after_a_small_answer_waits_for_its_pace() -> None:
    fetcher = RoutinesSide()
    pace = PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    pace.took(100)
    asked, begin = fetcher._wait_consume_future, time.monotonic()
    for _ in range(4):  # once for each partition of an answer
        fetcher._notify(asked)
    assert not asked.done()
    await asyncio.wait_for(asked, _TIMEOUT_S)
    assert time.monotonic() - begin >= _PACE_S * 0.9


async def test_question_after_much_and_after_nothing_is_not_postponed() -> None:
    fetcher = RoutinesSide()
    pace = PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    for size in (_MOST + 1, 0):
        pace.took(100)
        pace.took(size)
        asked = fetcher.ask_again()
        fetcher._notify(asked)
        assert asked.done()


async def test_first_question_is_not_postponed() -> None:
    fetcher = RoutinesSide()
    PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    fetcher._notify(fetcher._wait_consume_future)
    assert fetcher._wait_consume_future.done()


async def test_who_waits_for_an_answer_is_told_at_once() -> None:
    fetcher = RoutinesSide()
    pace = PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    pace.took(100)
    waiter = asyncio.get_running_loop().create_future()
    fetcher._notify(waiter)
    assert waiter.done()


async def test_pace_of_a_replaced_question_does_not_hold_up_the_next() -> None:
    fetcher = RoutinesSide()
    pace = PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    pace.took(100)
    fetcher._notify(fetcher._wait_consume_future)
    asked = fetcher.ask_again()  # something else has woken the routine
    fetcher._notify(asked)
    await asyncio.wait_for(asked, _TIMEOUT_S)


async def test_without_a_pause_nothing_is_postponed() -> None:
    fetcher = RoutinesSide()
    pace = PacedFetches(fetcher, Pace(_PACE_S, _MOST))
    pace.took(100)
    pace.pace = Pace(0.0, _MOST)
    fetcher._notify(fetcher._wait_consume_future)
    assert fetcher._wait_consume_future.done()
