"""Everything that a worker answers over HTTP, and everything on its topics, held against the reference."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.acceptance.reference import WINDOWS, Arrival, Reference, difference
from tests.fakes.processes import Topics, Worker

_SHOWN = 5


@dataclass
class Comparison:
    """How many values were compared, and what differs."""

    compared: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.compared.values())

    def count(self, what: str, many: int = 1) -> None:
        self.compared[what] = self.compared.get(what, 0) + many

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {many}" for what, many in self.compared.items())
        return f"{self.total} values compared ({parts}), {len(self.differing)} differ {self.differing[:_SHOWN]}"


def arrivals(topics: Topics, topic: str) -> list[Arrival]:
    """A topic as the reference wants it."""
    return [
        Arrival(message.partition(), message.offset(), message.key().decode(), orjson.loads(message.value()))
        for message in topics.read(topic)
    ]


def compare_views(worker: Worker, expected: Reference) -> Comparison:
    """Every window of every table over HTTP: none missing, none too many, each equal, and `final` where it is closed."""
    result = Comparison()
    for table in WINDOWS:
        want = expected.windows[table]
        got = {
            (key, item["window"]["start"]): item for key in worker.keys(table) for item in worker.windows(table, key)
        }
        for place in sorted(want.keys() | got.keys()):
            item = got.get(place)
            problem = difference(want.get(place), item and item["value"])
            if problem is None and item and item["window"]["final"] != (place in expected.final[table]):
                problem = f"final: expected {place in expected.final[table]}"
            if problem is not None:
                result.differing.append(f"{table} {place}: {problem}")
        result.count(table, len(want.keys() | got.keys()))
    for key in sorted(expected.latest.keys() | set(worker.keys("latest"))):
        answer = worker.try_get(f"/v1/tables/latest/keys/{key}")
        problem = difference(expected.latest.get(key), answer and answer["value"])
        if problem is not None:
            result.differing.append(f"latest {key}: {problem}")
        result.count("latest")
    return result


def compare_finals(topics: Topics, expected: Reference) -> Comparison:
    """The final topics: every closed window is there, whatever comes again has the same value, and all are equal.

    Windows past their retention have left the reference, but not the topics, so they are only held to having one value.
    """
    result = Comparison()
    for table in WINDOWS:
        seen: dict[str, dict[str, Any]] = {}
        for final in topics.values(f"streamapp-{table}-final"):
            first = seen.setdefault(final["id"], final)
            if first != final:
                result.differing.append(f"{final['id']}: {first['value']}, then {final['value']}")
        got = {(final["key"], final["window_start"]): final["value"] for final in seen.values()}
        want = {place: expected.windows[table][place] for place in expected.final[table]}
        if len(got) != len(seen):
            result.differing.append(f"{table}: {len(seen)} ids for {len(got)} windows")
        for place in sorted(want.keys() | (got.keys() & expected.windows[table].keys())):
            problem = difference(want.get(place), got.get(place))
            if problem is not None:
                result.differing.append(f"final {table} {place}: {problem}")
        result.count(f"{table}-final", len(seen))
    return result


def compare_late(topics: Topics, expected: Reference) -> Comparison:
    """The late topics: exactly the records that missed a window, whatever comes again dropped by its id."""
    result = Comparison()
    for table in WINDOWS:
        got = {late["id"]: (late["partition"], late["offset"]) for late in topics.values(f"streamapp-{table}-late")}
        wrong = set(got.values()) ^ expected.late[table]
        result.differing += [f"late {table} {place}" for place in sorted(wrong)]
        result.count(f"{table}-late", len(got))
    return result
