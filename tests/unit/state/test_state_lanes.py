"""What the two lanes leave in a window, whichever of them took a record."""

from datetime import timedelta

from streamapp.records.codec import codec_for
from streamapp.records.models import Trade
from streamapp.state.batch import Batch
from streamapp.state.definition import Source, TableDefinition
from streamapp.state.partition import COLUMN_LANE_MIN_RECORDS, PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import hopping

KEY = "generated:BTC-USD"


def batch(times: list[int]) -> Batch:
    records = [
        Trade(venue="v", symbol="s", price=1.0, size=1.0, trade_id="1", event_time=time, ingest_time=time)
        for time in times
    ]
    offsets = list(range(len(times)))
    return Batch(0, 0, offsets[-1], offsets, [KEY] * len(times), records, times, [-1] * len(times))


def test_record_that_is_late_for_one_window_leaves_the_highest_offset_in_the_others() -> None:
    window = hopping(timedelta(seconds=60), timedelta(seconds=30), retention=timedelta(hours=1))
    definition = TableDefinition("t", [Source("trades", codec_for(Trade))], Candle(), window)
    state = PartitionState(definition, 0, MemoryStore())
    # when stream time is 70 s, the window 0-60 s is closed and 30-90 s is open
    times = [70_000] * COLUMN_LANE_MIN_RECORDS
    times[3] = 50_000
    state.apply(batch(times))

    stored = dict(state.windows(KEY, 0, 1 << 40))
    assert stored[30_000].state[0] == len(times), "the late record counts where its window is open"
    assert stored[30_000].offsets == [len(times) - 1], "a lower one would count records again after a crash"
    assert [late.missed for late in state.late] == [(0,)]
