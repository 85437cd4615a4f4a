"""What all subscribers of a table are told in one go: whatever is the same for them is found out once.

A worker may have a thousand subscribers and tell most of them something in the same turn of the event loop. In between
nothing is merged and no partition moves, so what was looked up for the first of them holds for all.
"""

from weakref import WeakKeyDictionary

from streamapp.engine.tables import LivePartition
from streamapp.queries.model import Reading
from streamapp.queries.positions import Position, Told
from streamapp.queries.readings import Readings
from streamapp.state.entry import Entry
from streamapp.state.epochs import epoch_number
from streamapp.state.partition import PartitionState


class Positions:
    """Where the partitions here are; all subscribers of one are told the same object until it moves on."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[PartitionState, Position] = WeakKeyDictionary()

    def of(self, state: PartitionState) -> Position:
        """The position of a subscriber who has been told of everything that is in the state."""
        checkpoint, known = state.checkpoint, self._known.get(state)
        applied, watermark = tuple(state.applied), state.watermark
        durable = tuple(checkpoint.offsets) if checkpoint is not None else (-1,) * state.origins
        if (
            known is None
            or known.applied != applied
            or known.watermark != watermark
            or known.durable != durable
            or known.epoch != epoch_number(state.epoch)
        ):
            closed = min(checkpoint.stream_times) if checkpoint is not None else -1
            known = Position(epoch_number(state.epoch), applied, watermark, durable, closed)
            self._known[state] = known
        return known


class TurnMemo:
    """One table's answers to its subscribers, remembered for a turn.

    Args:
        readings: reads values.
        positions: shared by all tables.
        mark: stands for the table in ids.
    """

    def __init__(self, readings: Readings, positions: Positions, mark: bytes) -> None:
        self._readings = readings
        self._positions = positions
        self.mark = mark
        self._turn: int | None = None
        self._states: dict[int, PartitionState] = {}
        self._told: dict[int, Told] = {}
        self._values: dict[tuple[str, int], Reading] = {}

    def begin(self, turn: int | None) -> None:
        """Forget what was found out in another turn; None is of no turn, and nothing is remembered from before."""
        if turn is None or turn != self._turn:
            self._turn = turn
            self._states.clear()
            self._told.clear()
            self._values.clear()

    def state(self, live: LivePartition) -> PartitionState:
        """The state of a partition, where it may be read now; RestoringError or LeaseExpiredError otherwise."""
        state = self._states.get(live.partition)
        if state is None:
            state = self._states[live.partition] = self._readings.state(live)
        else:
            self._readings.check_lease()  # a process may be stopped in the middle of a turn
        return state

    def told(self, live: LivePartition) -> Told:
        """What a subscriber knows who has been told of everything in one partition; nobody may change it."""
        told = self._told.get(live.partition)
        if told is None:
            told = self._told[live.partition] = {(self.mark, live.partition): self._positions.of(self.state(live))}
        return told

    def reading(self, live: LivePartition, key: str, start: int, entry: Entry) -> Reading:
        """One window's value with its freshness."""
        place = key, start
        reading = self._values.get(place)
        if reading is None:
            reading = self._values[place] = self._readings.reading(live, key, start, entry)
        return reading
