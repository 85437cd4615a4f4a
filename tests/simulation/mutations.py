"""Rules of the protocol, each broken on purpose: a simulation that finds none of these finds nothing.

A mutation changes a line of the real code. Where the line is not there any more, applying it fails and says so.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from streamapp.engine import checkpoints, lane, rekeying, source_lanes
from streamapp.state import lanes, partition, runs, sessions
from streamapp.windows.sessions import Session
from tests.simulation.workload import Scenario, scenario_of


def _rewrite(owner: Any, name: str, *changes: tuple[str, str]) -> None:
    """Replace a function or method by itself with some text exchanged; wherever it was imported, too."""
    original = getattr(owner, name)
    text = textwrap.dedent(inspect.getsource(original))
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(
                f"{original.__qualname__} has {text.count(old)} times {old!r}: bring the mutation up to date"
            )
        text = text.replace(old, new)
    module = sys.modules[original.__module__]
    found: dict[str, Any] = {}
    exec(compile(text, f"<mutated {name}>", "exec"), vars(module), found)
    for holder in (
        owner,
        *(one for one in (lanes, partition, runs, sessions) if getattr(one, name, None) is original),
    ):
        setattr(holder, name, found[name])


_FINALS = '    await self._send("final records", finals)\n'
_BESIDE = (
    '    sent = await self._send("tombstones and late records", beside)\n'
    "    _note(sent, ((live, len(plan.tombstones), len(plan.late)) for live, _, plan in plans))\n"
)
_VALUES = (
    '    sent = await self._send("values", values)\n'
    "    _note(sent, ((live, len(plan.values), 0) for live, _, plan in plans))\n"
)
_REJECTED = '    await self._send("dead letters", rejected)\n'
_ACKNOWLEDGE = "    for lane, position in positions:\n        lane.durable = max(lane.durable, position)\n"


def _flush(*changes: tuple[str, str]) -> Callable[[], None]:
    return lambda: _rewrite(checkpoints.Checkpointer, "_flush", *changes)


MUTATIONS: dict[str, Callable[[], None]] = {
    "finals before the checkpoint": _flush((_FINALS, ""), (_REJECTED, _REJECTED + _FINALS)),
    "store before the changelog": _flush(
        (_REJECTED, "    for live, _, plan in plans:\n        live.store.write(plan.changes)\n" + _REJECTED)
    ),
    "commit before durable": _flush((_ACKNOWLEDGE, ""), (_REJECTED, _ACKNOWLEDGE + _REJECTED)),
    "tombstones before values": _flush((_BESIDE, ""), (_VALUES, _BESIDE + _VALUES)),
    "values after the checkpoint": _flush((_VALUES, ""), (_FINALS, _VALUES + _FINALS)),
    "dead letters after the checkpoint": _flush((_REJECTED, ""), (_FINALS, _REJECTED + _FINALS)),
    "a broken checkpoint followed by another": lambda: _rewrite(
        checkpoints.Checkpointer, "flush", ("if self._broken:", "if False:")
    ),
    "a value's own offset ignored": lambda: _rewrite(
        lanes, "merge_records", ("if offset <= horizon and entry.offsets[origin] >= offset:", "if False:")
    ),
    "lateness judged by the batch": lambda: _rewrite(
        lanes,
        "merge_records",
        (
            "    for position in positions:\n",
            "    stream_times[origin] = max(stream_times[origin], *(times[one] for one in positions))\n"
            "    for position in positions:\n",
        ),
    ),
    "a session's own offset ignored": lambda: _rewrite(
        sessions.SessionLane, "merge", ("if offset <= horizon and self._holds(key, time, origin, offset):", "if False:")
    ),
    "forwarded past a gap": lambda: _rewrite(
        rekeying.RekeyedTap, "accept", ("if before <= reached < offset:", "if reached < offset:")
    ),
    "a marker ahead of what is acknowledged": lambda: _rewrite(
        rekeying.ForwardTap,
        "accept",
        (
            "    await self._producer.send_all(messages)\n",
            "    self._stream_time = stream_time\n    await self._producer.send_all(messages)\n",
        ),
    ),
    "markers before the records of their chunk": lambda: _rewrite(
        lane.SourceLane,
        "_process",
        ("    if tap is not None:\n        tap.mark(markers)\n", ""),
        ("    if chunk:\n", "    if tap is not None:\n        tap.mark(markers)\n    if chunk:\n"),
    ),
    "stream time forgotten by who goes on forwarding": lambda: _rewrite(
        rekeying.ForwardTap,
        "forwarded",
        ("max(self._first, next_offset), self._stream_time)", "max(self._first, next_offset))"),
    ),
    "stream time told behind a missing record": lambda: _rewrite(
        rekeying.RekeyedTap, "accept", ("elif offset <= reached:", "else:")
    ),
    "records of a late fetch taken again": lambda: _rewrite(
        lane.SourceLane,
        "_unseen",
        ("if batch.next_offset > reached:\n            batch.min_offset = reached\n", "if True:\n"),
    ),
    "a late fetch taken behind a gap": lambda: _rewrite(
        lane.SourceLane, "_unseen", ("if batch.min_offset > reached:", "if False:")
    ),
    "forwarded from where the group is": lambda: _rewrite(
        source_lanes, "_first_to_forward", ("    begin = 0\n", "    begin = here.committed or 0\n")
    ),
}


def _rekeyed_windows(one: Scenario) -> bool:
    """Idle scenarios are not compared window by window."""
    return not one.idle and any(table.rekey and table.window for table in one.tables)


#: what a scenario must have for a broken rule to show at all; without it a rule is looked for in seeds that cannot tell
NEEDS: dict[str, Callable[[Scenario], bool]] = {
    "finals before the checkpoint": lambda one: "crash" in one.faults and any(table.window for table in one.tables),
    "tombstones before values": lambda one: (
        "crash" in one.faults and any(isinstance(table.window, Session) for table in one.tables)
    ),
    "a session's own offset ignored": lambda one: any(isinstance(table.window, Session) for table in one.tables),
    "forwarded past a gap": lambda one: "send" in one.faults and any(table.rekey for table in one.tables),
    "a marker ahead of what is acknowledged": _rekeyed_windows,
    "markers before the records of their chunk": _rekeyed_windows,
    "stream time forgotten by who goes on forwarding": _rekeyed_windows,
    "stream time told behind a missing record": lambda one: "send" in one.faults and _rekeyed_windows(one),
    "forwarded from where the group is": lambda one: one.old_group,
}


def can_show(name: str, seed: int) -> bool:
    """Whether a seed's scenario has what a broken rule needs to show."""
    needs = NEEDS.get(name)
    return needs is None or needs(scenario_of(seed))


def apply(name: str) -> None:
    """Break one rule, for the rest of this process."""
    MUTATIONS[name]()
