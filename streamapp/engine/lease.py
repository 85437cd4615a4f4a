"""How long this worker may believe that its partitions are its own.

The broker takes a member's partitions away when it has heard nothing of it for the session time-out. A worker that was
stopped, cut off or starved cannot hear of that, but it knows when it last asked and was answered: from then on it has the
session time-out, less a margin, in which nobody else can own what it owns.
"""

import asyncio
import threading

from streamapp.clock import Clock
from streamapp.errors import FencedError, LeaseExpiredError

_POLL_S = 0.02


class Lease:
    """Written by the consumer's thread, read by everybody. Before `attach` it never ends (tests, drivers without a group).

    Args:
        clock: its monotonic time counts.
        session_ms: the session time-out that the broker applies.
        rebalance_ms: how long the broker waits for members to join again once a rebalance has begun.
        margin_ms: how much earlier this worker stops to trust either of them.
    """

    def __init__(self, clock: Clock, *, session_ms: int, rebalance_ms: int, margin_ms: int) -> None:
        self._clock = clock
        self._session_ms = session_ms
        self._rebalance_ms = rebalance_ms
        self._margin_ms = min(margin_ms, session_ms // 2)
        self._lock = threading.Lock()
        self._attached = False
        self._until_ms = 0
        self.released = False  # what was assigned is given back, and nothing has been assigned since
        self._stable_ms = 0  # when the last request was sent whose answer told of no rebalance
        self.forgotten = False  # the group does not know this member (any more), nor what was assigned to it

    def attach(self) -> None:
        """From now on the lease has to be renewed; the group does not know this member yet."""
        self._attached = self.forgotten = True

    def renew(self, sent_ms: int, *, rebalancing: bool = False) -> None:
        """The broker has answered, as to a member, a request that was sent then.

        The time of sending counts: the broker's own clock began at its arrival, which is later.
        """
        with self._lock:
            if not rebalancing:
                self._stable_ms = max(self._stable_ms, sent_ms)
            until = min(sent_ms + self._session_ms, self._stable_ms + self._rebalance_ms) - self._margin_ms
            self._until_ms = max(self._until_ms, until) if not rebalancing else until

    def join(self) -> None:
        """The group has assigned partitions to this member."""
        self.forgotten = False

    def lapse(self) -> None:
        """The group does not know this member any more."""
        with self._lock:
            self.forgotten = self._attached
            self._until_ms = self._stable_ms = 0

    def release(self) -> None:
        """What was assigned is given back: its next owner may answer before this worker hears of it."""
        self.released = self._attached

    def take(self) -> None:
        """What has been assigned counts from now on."""
        self.released = False

    @property
    def valid(self) -> bool:
        """Whether nobody else can own what was assigned to this worker."""
        return not self._attached or (not self.released and self._clock.monotonic_ms() < self._until_ms)

    def check(self) -> None:
        """Pass, or refuse.

        Raises:
            LeaseExpiredError: another worker may own these partitions by now.
        """
        if not self.valid:
            raise LeaseExpiredError(
                "the partitions are being assigned anew, or this worker has not heard from its group for too long: another "
                "one may own this one by now; ask again in a moment",
                retry_after_s=1,
            )

    async def until_valid(self) -> None:
        """Return once nobody else can own the partitions here.

        A lease that ran out may be renewed (the brokers were away); until it is, nothing is written.

        Raises:
            FencedError: the group has forgotten this member.
        """
        while not self.valid:
            if self.forgotten:
                raise FencedError("the group has assigned this worker's partitions anew; nothing more is written here")
            # the answer comes in the consumer's thread; what waits here is bounded by the checkpoint's time-out
            await asyncio.sleep(_POLL_S)
