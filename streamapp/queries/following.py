"""Following a table: first what there is, or what has changed since a position, then every change.

What lives here can be taken at once, without a task per subscriber or per change (`Followed.take`); with what lives on other
workers it comes as one asynchronous stream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import chain
from typing import Literal

from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import QueryError, RestoringError
from streamapp.queries.changes import ChangeHub, Subscription
from streamapp.queries.model import Change, Heartbeat
from streamapp.queries.positions import Position, Told, encode, since
from streamapp.queries.readings import RESTORING_RETRY_S
from streamapp.queries.remote_changes import merged
from streamapp.queries.turn_memo import TurnMemo
from streamapp.state import reads
from streamapp.state.changed import changed, changed_of, entry_at, first_changeable
from streamapp.state.entry import Entry
from streamapp.state.epochs import epoch_number
from streamapp.state.partition import PartitionState

#: windows that are looked at before others come in between
_STEP = 500
Resumed = Literal["unknown_id", "too_old", "too_many"]


class Followed:
    """The changes of what lives here, for one subscriber; also an asynchronous iterator over them.

    Args:
        memo: what all subscribers of the table are told.
        running: the table.
        hub: where the subscription is.
        one: the subscription.
        resume_max: of more changed windows than this a snapshot is told instead.
        resume_max_ms: the same where the table's stream time has moved by more; of one key it does not matter.
    """

    def __init__(
        self,
        memo: TurnMemo,
        running: RunningTable,
        hub: ChangeHub,
        one: Subscription,
        *,
        resume_max: int,
        resume_max_ms: int,
    ) -> None:
        self._memo = memo
        self._running = running
        self._hub = hub
        self._one = one
        self._resume_max = resume_max
        self._resume_max_ms = resume_max_ms
        key = one.key
        self._partition = running.partition_of(key) if key is not None and running.partitions else None
        self._lives = self._here()
        memo.begin(None)
        self._states = [memo.state(live) for live in self._lives]
        self._first: Iterator[Change] | None = None
        self._begun: Told = {}
        self.told: Told = {}
        self._arrived = asyncio.Event()
        one.notify = self._arrived.set

    # --- beginning -------------------------------------------------------------------------------------------------------

    async def begin(self, from_: Told | None) -> None:
        """Find out what is told first: what has changed since a position, or what there is.

        Args:
            from_: what the subscriber was told; an empty one is of an id that cannot be read. None: it gave no id.

        Raises:
            RestoringError, LeaseExpiredError: it cannot be read now.
        """
        self._hub.pass_on(self._running.name)
        self._one.pending.clear()
        self._one.behind = False
        begun: Told = {}
        parts: list[Iterator[Change]] = []
        self._memo.begin(None)
        for live in self._lives:
            begun |= self._memo.told(live)
        for live in self._lives:
            why: Resumed | None = None
            if from_ is not None:
                found = await self._changed_since(live, from_.get((self._memo.mark, live.partition)))
                if not isinstance(found, str):
                    parts.append(self._changes(live, found))
                    continue
                why = found
            parts.append(self._snapshots(live, why))
        self._first, self._begun = chain.from_iterable(parts), begun

    async def _changed_since(self, live: LivePartition, at: Position | None) -> list[tuple[str, int]] | Resumed:
        state, one = self._state(live), self._one
        news = since(at, epoch_number(state.epoch), state.applied) if at is not None else None
        if news is None:
            return "unknown_id"
        offsets, watermark = news
        first = first_changeable(state, watermark)
        places: list[tuple[str, int]] = []
        if one.key is not None:
            looks: Iterator[tuple[str, int] | None] = changed_of(state, one.key, offsets, first)
        elif state.window is not None and state.watermark - watermark > self._resume_max_ms:
            return "too_old"
        else:
            looks = changed(state, one.prefix, offsets, first)
        for number, place in enumerate(looks, 1):
            if place is not None:
                places.append(place)
                if len(places) > self._resume_max:
                    return "too_many"
            if number % _STEP == 0:
                await asyncio.sleep(0)
                if self._state(live) is not state:
                    raise self._moved()
        # of one key in order of time
        return sorted(places, key=lambda place: place[1])

    def _snapshots(self, live: LivePartition, why: Resumed | None) -> Iterator[Change]:
        state, one = self._state(live), self._one
        for key in [one.key] if one.key is not None else state.iter_keys(one.prefix):
            found = reads.current(state, key)
            if found is not None:
                # the newest value is told here, so what has changed meanwhile is told with it
                conflated = one.pending.pop((key, found[0]), 0)
                change = self._change("snapshot", live, key, *found, conflated=conflated, resumed=why)
                if change is not None:
                    yield change

    def _changes(self, live: LivePartition, places: Sequence[tuple[str, int]]) -> Iterator[Change]:
        state = self._state(live)
        for key, start in places:
            entry = entry_at(state, key, start)
            if entry is not None:
                conflated = self._one.pending.pop((key, start), 0)
                change = self._change("change", live, key, start, entry, conflated=conflated)
                if change is not None:
                    yield change

    # --- taking ----------------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether `catch_up` has to be awaited before anything more can be taken."""
        return self._one.behind and self._first is None

    async def catch_up(self) -> None:
        """After changes were dropped: look up what has changed since the subscriber was last told of everything."""
        self.check()
        await self.begin(dict(self.told))

    @property
    def waiting(self) -> bool:
        """Whether `take` would bring anything, or raise."""
        return self._first is not None or bool(self._one.pending) or self._one.behind or self._one.failure is not None

    def on_arrival(self, notify: Callable[[], None], settle: Callable[[], None]) -> None:
        """Have `notify` called when something comes, and `settle` after some have been; neither may raise."""
        self._one.notify, self._one.settle = notify, settle

    def take(self, most: int) -> list[Change]:
        """Up to so many changes with the newest values; after an empty list there is nothing more for now.

        Raises:
            QueryError: the partitions have moved, or the worker may not answer any more.
        """
        one = self._one
        if one.failure is not None:
            raise one.failure
        self.check()
        if self._hub.turn is None:  # in a turn all has been passed on
            self._hub.pass_on(self._running.name)
        taken: list[Change] = []
        while self._first is not None and len(taken) < most:
            change = next(self._first, None)
            if change is None:
                self._first = None
                self.told = self._begun
            else:
                taken.append(change)
        if one.behind or self._first is not None:
            return taken
        pending = one.pending
        while pending and len(taken) < most:
            place = next(iter(pending))
            count = pending.pop(place)
            live = self._live_of(place[0])
            assert live.state is not None
            entry = entry_at(live.state, *place)
            if entry is not None:
                change = self._change("change", live, *place, entry, conflated=count - 1)
                if change is not None:
                    taken.append(change)
        if not pending:
            lives, told = self._lives, self._memo.told
            self.told = (
                told(lives[0]) if len(lives) == 1 else dict(chain.from_iterable(told(live).items() for live in lives))
            )
        return taken

    def check(self) -> None:
        """Raise where partitions have moved: what moved away would be missing without a word."""
        memo = self._memo
        memo.begin(self._hub.turn)
        here = self._here()
        if len(here) != len(self._states):
            raise self._moved()
        for live, known in zip(here, self._states, strict=True):
            # restored again it may hold what another owner has changed, of which nobody told here
            if memo.state(live) is not known:
                raise self._moved()

    def look(self) -> None:
        """Tell the subscriber where partitions have moved, though nothing changes any more."""
        try:
            self.check()
        except QueryError as problem:
            self._one.failure = problem
            self._one.notify()

    def _live_of(self, key: str) -> LivePartition:
        return self._lives[0] if self._partition is not None else self._running.live[self._running.partition_of(key)]

    def _here(self) -> list[LivePartition]:
        running = self._running
        if self._partition is not None:
            # of one key only its own partition matters: the others may be on their way in or out
            live = running.live.get(self._partition)
            return [live] if live is not None else []
        return [running.live[partition] for partition in sorted(running.live)]

    def _moved(self) -> QueryError:
        return RestoringError(
            f"table {self._running.name}: partitions have moved; subscribe again", retry_after_s=RESTORING_RETRY_S
        )

    def _state(self, live: LivePartition) -> PartitionState:
        """The state as of now, and not as remembered: between two looks others have had a turn."""
        self._memo.begin(self._hub.turn)
        return self._memo.state(live)

    def _change(
        self,
        kind: Literal["snapshot", "change"],
        live: LivePartition,
        key: str,
        start: int,
        entry: Entry,
        *,
        conflated: int = 0,
        resumed: Resumed | None = None,
    ) -> Change | None:
        """The event; None where the value does not meet the condition."""
        reading = self._memo.reading(live, key, start, entry)
        condition = self._one.condition
        if condition is not None and not condition.holds(reading.value):
            return None
        return Change("", kind, reading, conflated, resumed)

    # --- one by one ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> "Followed":
        """Itself."""
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for it."""
        while True:
            if self.behind:
                await self.catch_up()
            taken = self.take(1)
            if taken:
                change = taken[0]
                return Change(encode(self.told), change.kind, change.reading, change.conflated, change.resumed)
            self._arrived.clear()
            await self._arrived.wait()


class Following:
    """All changes that a subscriber asked for, as an asynchronous iterator; `parts` are the same apart.

    Args:
        local: what lives here.
        remote: what other workers tell.
    """

    def __init__(self, local: Followed | None, remote: Sequence[AsyncIterator[Change | Heartbeat]]) -> None:
        self.local = local
        self.remote = remote
        self._whole: AsyncIterator[Change | Heartbeat] | None = None

    def __aiter__(self) -> "Following":
        """Itself."""
        return self

    async def __anext__(self) -> Change:
        """The next change of any part."""
        if self._whole is None:
            parts: list[AsyncIterator[Change | Heartbeat]] = [
                *([self.local] if self.local is not None else []),
                *self.remote,
            ]
            self._whole = parts[0] if len(parts) == 1 else merged(parts)
        while True:
            change = await anext(self._whole)
            if isinstance(change, Change):
                return change
