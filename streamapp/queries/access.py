"""What a caller may read: all, whole tables, or the keys of tables that begin with a text.

A rule is written `read`, `read/TABLE` or `read/TABLE/PREFIX`. Table and prefix are percent-encoded where they hold a
character that separates scopes or settings (`%`, `:`, `,`, `+`, white space); `*` as the table stands for every table. A
prefix is compared character by character, with regard to case: `coinbase%3ABTC-` opens `coinbase:BTC-USD`, and nothing of
`Coinbase:`. Rules only add up; whoever has `read` may read everything.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from urllib.parse import quote, unquote

from streamapp.errors import ConfigurationError
from streamapp.queries.limits import Limits
from streamapp.queries.trace import Trace

READ = "read"
#: scopes that stand for themselves
PLAIN_SCOPES = frozenset({READ, "metrics", "admin"})
ANY_TABLE = "*"
#: rules that one caller may have, and characters of all of them: they travel in the paths of forwarded reads
RULES_MAX = 32
RULES_MAX_CHARS = 2_000
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ALL_KEYS = ("",)


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """Opens the keys of a table (or of every table) that begin with a prefix; the empty one opens all of them."""

    table: str = ANY_TABLE
    prefix: str = ""

    def text(self) -> str:
        """The rule as a scope, free of every character that separates something."""
        if self.prefix:
            return f"{READ}/{_quoted(self.table)}/{quote(self.prefix, safe='/@')}"
        return READ if self.table == ANY_TABLE else f"{READ}/{_quoted(self.table)}"


def _quoted(table: str) -> str:
    return table if table == ANY_TABLE else quote(table, safe="")


def is_read_scope(scope: str) -> bool:
    """Whether a scope claims to open reads, well written or not."""
    return scope == READ or scope.startswith(f"{READ}/")


def parse_rule(scope: str) -> Rule:
    """The rule of a scope.

    Raises:
        ConfigurationError: it is none; nothing that is doubtful opens more than what it names.
    """
    if scope == READ:
        return Rule()
    _, *parts = scope.split("/", 2) if "/" in scope else (scope, "")
    for part in parts:
        if _BAD_ESCAPE.search(part):
            raise ConfigurationError(f"scope {scope!r}: after % come two hex digits; a % itself is written %25")
        if ANY_TABLE in part and not (part is parts[0] and part == ANY_TABLE):
            raise ConfigurationError(
                f"scope {scope!r}: * stands for every table, and for nothing else; a prefix ends without it, and a * that"
                " is part of a name is written %2A"
            )
    try:
        decoded = [part if part == ANY_TABLE else unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        raise ConfigurationError(f"scope {scope!r}: expected percent-encoded UTF-8") from None
    escaped_any = decoded[0] == ANY_TABLE != parts[0]
    if not is_read_scope(scope) or not all(decoded) or escaped_any or any(map(_CONTROL.search, decoded)):
        raise ConfigurationError(
            f"scope {scope!r}: expected read, read/TABLE or read/TABLE/PREFIX, without empty parts"
            " (leave the last slash out to open all keys)"
        )
    return Rule(*decoded)


@dataclass(frozen=True)
class Access:
    """The rules of one caller; equal rules are equal accesses.

    Attributes:
        rules: none opens nothing.
    """

    rules: frozenset[Rule]
    everything: bool = field(init=False, compare=False)
    _by_table: dict[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        by_table: dict[str, set[str]] = {}
        for rule in self.rules:
            by_table.setdefault(rule.table, set()).add(rule.prefix)
        anywhere = by_table.get(ANY_TABLE, set())
        object.__setattr__(self, "everything", "" in anywhere)
        object.__setattr__(
            self, "_by_table", {table: _disjoint(prefixes | anywhere) for table, prefixes in by_table.items()}
        )

    def prefixes(self, table: str) -> tuple[str, ...]:
        """The beginnings of the keys that may be read, in order, none of which begins another; `("",)` is every key."""
        if self.everything:
            return _ALL_KEYS
        found = self._by_table.get(table)
        return self._by_table.get(ANY_TABLE, ()) if found is None or table == ANY_TABLE else found

    def allows(self, table: str, key: str) -> bool:
        """Whether a key of a table may be read; the same whether there is such a key or not."""
        return self.everything or key.startswith(self.prefixes(table))

    def within(self, table: str, wanted: str) -> tuple[str, ...]:
        """The prefixes that together cover what may be read of the keys that begin as wanted."""
        prefixes = self.prefixes(table)
        if wanted.startswith(prefixes):
            return (wanted,)
        return tuple(prefix for prefix in prefixes if prefix.startswith(wanted))

    def touches(self, beginning: str) -> bool:
        """Whether any table may hold a readable key that begins so."""
        return any(
            beginning.startswith(prefix) or prefix.startswith(beginning)
            for prefixes in self._by_table.values()
            for prefix in prefixes
        )

    def allows_anywhere(self, key: str) -> bool:
        """Whether a key may be read in some table."""
        return any(key.startswith(prefixes) for prefixes in self._by_table.values())

    @cached_property
    def digest(self) -> str:
        """A short name of these rules."""
        return sha256("+".join(rule.text() for rule in sorted(self.rules)).encode()).hexdigest()[:16]


def _disjoint(prefixes: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not (kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return tuple(kept)


def parse_access(scopes: Iterable[str]) -> Access:
    """What these scopes open; scopes that are about something else are passed over.

    Raises:
        ConfigurationError: one that opens reads is malformed, or there are too many.
    """
    wanted = [scope for scope in scopes if is_read_scope(scope)]
    if len(wanted) > RULES_MAX or sum(map(len, wanted)) > RULES_MAX_CHARS:
        raise ConfigurationError(
            f"expected at most {RULES_MAX} scopes to read, of {RULES_MAX_CHARS} characters together, got {len(wanted)};"
            " a shorter prefix covers more keys"
        )
    return Access(frozenset(map(parse_rule, wanted)))


EVERYTHING = Access(frozenset({Rule()}))
NOTHING = Access(frozenset())


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who asks, and what that opens; every read is made in somebody's name.

    Attributes:
        name: of the token; for metrics, logs and limits.
        access: what may be read.
        limits: how much of it, where that is bounded.
        forwarded: another worker asks, which has checked, limited and recorded its own caller already.
        label: the name as metrics show it, from a bounded set.
        expires_ms: when the admission ends, wall time; None where it does not.
        trace: what this call reads is noted there, where it is to be recorded.
    """

    name: str
    access: Access
    limits: Limits | None = None
    forwarded: bool = False
    label: str = ""
    expires_ms: int | None = None
    trace: Trace | None = None
    #: whether reads need neither a check nor a count nor a note; worked out once, as every read asks
    unbound: bool = field(init=False)

    def __post_init__(self) -> None:
        counted = self.limits is not None and self.limits.bounds_cost
        object.__setattr__(self, "unbound", self.access.everything and self.trace is None and not counted)

    @property
    def metric_label(self) -> str:
        """The name as metrics show it."""
        return self.label or self.name

    @property
    def owner(self) -> str:
        """What a session or a cursor belongs to: another token of the same name that opens more is somebody else."""
        return f"{self.name}|{self.access.digest}"


#: where the MCP server finds its caller in a request's scope
CALLER_IN_SCOPE = "streamapp.caller"
#: the caller where no tokens are configured and nothing is bounded: only this machine can ask
ANONYMOUS = Caller("anonymous", EVERYTHING)
