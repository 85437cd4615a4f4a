"""What one call has read, for the record of it; bounded, and without values."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

_KEYS_MAX = 5
_KEY_MAX_CHARS = 200
_TABLES_MAX = 20

#: by which name this task's reads are counted where they are forwarded; for figures only, nothing is decided by it
ON_BEHALF: ContextVar[str] = ContextVar("on_behalf", default="")
#: the same on its way to the other worker
ON_BEHALF_HEADER = "Streamapp-Caller"


@dataclass(slots=True)
class Trace:
    """Notes of one call.

    Attributes:
        tables: their names, the first ones.
        keys: the first keys that were asked for by name.
        key_count: how many were asked for by name.
        rows: values and keys that were given.
        operation: which operation it was, where it was one.
        outcome: what came of that: `ok`, or the code of an error.
    """

    tables: dict[str, None] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    key_count: int = 0
    rows: int = 0
    operation: str = ""
    outcome: str = ""

    def asked(self, table: str, keys: Sequence[str] = ()) -> None:
        """Note a question."""
        if len(self.tables) < _TABLES_MAX:
            self.tables[table[:_KEY_MAX_CHARS]] = None
        if keys:
            self.keys += [key[:_KEY_MAX_CHARS] for key in keys[: _KEYS_MAX - len(self.keys)]]
            self.key_count += len(keys)
