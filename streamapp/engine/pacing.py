"""How often the broker is asked for records: at once while there is much to bring, at a steady pace while they trickle.

A fetch that is asked for the moment the last one has been handed over brings few records, and costs both sides as much as
one that brings many. aiokafka asks at that moment; while records trickle the question is postponed here. Postponing the
question, and not what is done with the answer, is what keeps records fresh: one that arrives meanwhile waits for half a
pace on average, and one that arrives while a question waits at the broker is answered at once.

This module touches private members of aiokafka. Each use says why; tests/integration/test_engine_contract.py fails
with the name of what changed when the pinned version does.
"""

import asyncio
from typing import Any

#: an answer with as much is not a trickle
TRICKLE_MAX_BYTES = 64 << 10


class FetchPace:
    """Paces the fetches of one consumer. Lives in the consumer's thread, whose loop runs.

    Args:
        fetcher: of a consumer that has been started.
        pace_s: from the taking of a small answer to the next question; 0: at once, as aiokafka has it.
    """

    def __init__(self, fetcher: Any, pace_s: float) -> None:
        self._fetcher = fetcher
        self._pace_s = pace_s
        self._loop = asyncio.get_running_loop()
        self._trickles = False
        self._postponed: Any = None
        # the fetcher calls this where records have been taken, so that its routine asks for more: there is no setting for
        # when it does
        self._notify_now = fetcher._notify
        if pace_s > 0:
            fetcher._notify = self._notify

    def took(self, size: int) -> None:
        """Records of so many bytes have been taken from the fetcher; the next time decides by it."""
        self._trickles = 0 < size < TRICKLE_MAX_BYTES

    def _notify(self, future: Any) -> None:
        # by the same method it wakes those who wait for an answer, which is never postponed
        if not self._trickles or future is not self._fetcher._wait_consume_future:
            self._notify_now(future)
        elif future is not self._postponed:  # it is called for each partition of an answer
            self._postponed = future
            # a future that its routine has replaced meanwhile may be set: nobody waits for it
            self._loop.call_later(self._pace_s, self._notify_now, future)
