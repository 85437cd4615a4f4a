"""The record that a window leaves behind when it closes."""

from pydantic import Field

from streamapp.records.models import EpochMs, Record


class FinalRecord(Record):
    """The final value of one window of one key. Key: the table's own.

    It is published at least once, with the same `id` and `value` each time, so a consumer drops repeats by `id`, or by a
    `window_start` that is not above the last one of the key.
    """

    id: str = Field(description="stable across repeats: table, key and window")
    table: str
    key: str
    window_start: EpochMs
    window_end: EpochMs
    value: dict[str, float | int | str | None]
    event_time: EpochMs = Field(description="equal to `window_end`")
