"""How often the broker is asked for records: at a steady pace, as long as an answer brings no more than that pace explains.

A fetch that is asked for the moment the last one has been handed over brings few records, and costs both sides as much as
one that brings many. aiokafka asks at that moment; here the question is postponed. Postponing the question, and not what is
done with the answer, is what keeps records fresh: one that arrives meanwhile waits for half a pace on average, and one that
arrives while a question waits at the broker is answered at once. Who is behind gets large answers, and asks at once.

This module touches private members of aiokafka. Each use says why; tests/integration/test_engine_contract.py fails
with the name of what changed when the pinned version does.
"""

import asyncio
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Pace:
    """How fetches follow each other.

    Attributes:
        pause_s: from the taking of an answer to the next question; 0: at once, as aiokafka has it.
        most: an answer with more records than this is of a consumer that is behind: the next question is asked at once.
    """

    pause_s: float
    most: int


class PacedFetches:
    """Paces the fetches of one consumer. Lives in the consumer's thread, whose loop runs.

    Args:
        fetcher: of a consumer that has been started.
        pace: to begin with; may be set from any thread.
    """

    def __init__(self, fetcher: Any, pace: Pace) -> None:
        self.pace = pace
        self._fetcher = fetcher
        self._loop = asyncio.get_running_loop()
        self._keeps_up = False
        self._postponed: Any = None
        # the fetcher calls this where records have been taken, so that its routine asks for more: there is no setting for
        # when it does
        self._notify_now = fetcher._notify
        fetcher._notify = self._notify

    def took(self, records: int) -> None:
        """So many records have been taken from the fetcher; the next time decides by it."""
        self._keeps_up = 0 < records <= self.pace.most

    def _notify(self, future: Any) -> None:
        # by the same method it wakes those who wait for an answer, which is never postponed
        pause_s = self.pace.pause_s
        if not self._keeps_up or pause_s <= 0 or future is not self._fetcher._wait_consume_future:
            self._notify_now(future)
        elif future is not self._postponed:  # it is called for each partition of an answer
            self._postponed = future
            # a future that its routine has replaced meanwhile may be set: nobody waits for it
            self._loop.call_later(pause_s, self._notify_now, future)
