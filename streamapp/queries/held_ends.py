"""Where source partitions end while they are not fetched.

A fetch says where its partition ends. One that is held back (a full lane, a stalled agent) is not fetched, so what it said
last does not grow, and the lag would look smaller just when it matters. Those partitions' ends are asked for apart.
"""

import asyncio
import logging
from collections.abc import Callable

from streamapp.engine.runtime import Engine
from streamapp.errors import StreamAppError

log = logging.getLogger(__name__)

#: between two looks; also how old a fetch may be before its word is not enough, several times what an idle one waits
_LOOK_S = 1.0


class HeldEnds:
    """Keeps the ends of partitions whose latest fetch is old, at most about a second behind.

    Args:
        engine: knows the lanes, and has an admin client.
        fetch_state: end offset and time of the latest answered fetch of a partition.
    """

    def __init__(self, engine: Engine, fetch_state: Callable[[str, int], tuple[int, int] | None]) -> None:
        self._engine = engine
        self._fetch_state = fetch_state
        self._ends: dict[tuple[str, int], int] = {}

    async def keep_up(self) -> None:
        """Look again and again; until cancelled. What Kafka does not answer is left as it was."""
        while True:
            await asyncio.sleep(_LOOK_S)
            held = self._held()
            for place in self._ends.keys() - set(held):
                del self._ends[place]
            if not held:
                continue
            try:
                self._ends.update(await self._engine.admin.end_offsets(held))
            except StreamAppError as problem:
                log.debug("the ends of held partitions are not known: %s", problem)

    def end(self, place: tuple[str, int], fetched: int) -> int:
        """The next offset of a partition, as far as it is known; `fetched` is what the latest fetch said."""
        return max(fetched, self._ends.get(place, 0))

    def _held(self) -> list[tuple[str, int]]:
        now = self._engine.clock.now_ms()
        found = []
        for place in self._engine.lanes:
            state = self._fetch_state(*place)
            if state is not None and not 0 <= now - state[1] < _LOOK_S * 1000:
                found.append(place)
        return found
