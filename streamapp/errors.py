"""Every error that streamapp raises on purpose, as one tree.

Catch `StreamAppError` to catch them all. Each class carries what it knows as typed attributes, and its message says what
was expected, what came, and what to do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Kept = TypeVar("Kept", bound=Exception)


class StreamAppError(Exception):
    """The root of the tree."""


class ConfigurationError(StreamAppError):
    """A setting or a declaration cannot be used as it is."""


class UnsafeBindError(ConfigurationError):
    """The web server was asked to listen beyond loopback without any token."""


class FeedError(StreamAppError):
    """A feed ended for good, or what it had brought could not be delivered."""


class RecordingError(StreamAppError):
    """A recorded session cannot be read or written."""


class ProcessError(StreamAppError):
    """A process that a command started ended by itself, or did not become ready in time.

    Attributes:
        process: what it is called.
        log_file: where its output is.
    """

    def __init__(self, process: str, log_file: Path, message: str) -> None:
        super().__init__(message)
        self.process = process
        self.log_file = log_file


# --- records -------------------------------------------------------------------------------------------------------


class RecordError(StreamAppError):
    """One record cannot be processed; it belongs in the dead letters.

    Attributes:
        reason: a stable, lower-case word for metrics and for the dead letter (`undecodable`, `wrong_schema`, `oversized`,
            `future_event_time`, `bad_event_time`, `missing_key`, ...).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def without_frames(problem: Kept) -> Kept:
    """An exception that is kept as a value: it lets go of the calls that it came through.

    They hold what it is kept in, so the records around it would stay in memory until the garbage collector comes, which
    in a worker is after hundreds of chunks.
    """
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    return problem


# --- Kafka ---------------------------------------------------------------------------------------------------------


class KafkaError(StreamAppError):
    """Something about the Kafka cluster."""


class BrokerUnavailableError(KafkaError):
    """No broker answered in time.

    Attributes:
        brokers: the `host:port` list that was tried.
    """

    def __init__(self, brokers: str, message: str) -> None:
        super().__init__(message)
        self.brokers = brokers


class ProduceError(KafkaError):
    """A record was not acknowledged; nothing that depends on it may be committed.

    Attributes:
        topic: where it was to go.
        failed: how many records of the call were not acknowledged.
        record_at_fault: whether Kafka refuses this very record (too large, invalid), so that a retry cannot help.
    """

    def __init__(self, topic: str, failed: int, message: str, *, record_at_fault: bool = False) -> None:
        super().__init__(message)
        self.topic = topic
        self.failed = failed
        self.record_at_fault = record_at_fault


class TopicMismatchError(KafkaError):
    """A topic exists, but not as it was declared.

    Attributes:
        topic: its name.
    """

    def __init__(self, topic: str, message: str) -> None:
        super().__init__(message)
        self.topic = topic


class EmbeddedKafkaError(KafkaError):
    """The embedded broker could not be resolved, started or reached."""


# --- state ---------------------------------------------------------------------------------------------------------


class StateError(StreamAppError):
    """A table's state cannot be trusted or written; the worker stops.

    Attributes:
        table: the table's name.
        partition: its partition, where one is known.
    """

    def __init__(self, table: str, partition: int | None, message: str) -> None:
        super().__init__(message)
        self.table = table
        self.partition = partition


class DefinitionChangedError(StateError):
    """The stored state was built by another definition of the table."""


class SourceChangedError(StateError):
    """The source topic or the group's position is not the one that the stored state was built from."""


class FencedError(StateError):
    """Another worker has taken this one's place in the consumer group, or its partitions; it must not write any more."""

    def __init__(self, message: str, table: str = "*", partition: int | None = None) -> None:
        super().__init__(table, partition, message)


# --- reads ---------------------------------------------------------------------------------------------------------


class QueryError(StreamAppError):
    """A read that cannot be answered; views turn it into a problem document.

    Attributes:
        code: the stable code of the contract (`unknown_table`, `stale`, ...).
        status: the HTTP status that goes with it.
        retry_after_s: seconds after which a retry makes sense, where that is known.
    """

    code = "internal"
    status = 500

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownTableError(QueryError):
    """There is no table of that name."""

    code, status = "unknown_table", 404


class UnknownKeyError(QueryError):
    """The table holds nothing for that key.

    Attributes:
        nearest: existing keys that look alike, best first.
    """

    code, status = "unknown_key", 404

    def __init__(self, message: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)


class NoSuchWindowError(QueryError):
    """The key exists, but no window of it holds that instant."""

    code, status = "no_such_window", 404


class BadParameterError(QueryError):
    """A parameter cannot be used.

    Attributes:
        parameter: its name.
    """

    code, status = "bad_parameter", 400

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class StaleError(QueryError):
    """The view is further behind the world than the caller accepts.

    Attributes:
        staleness_ms: how far it is behind.
    """

    code, status = "stale", 409

    def __init__(self, message: str, staleness_ms: int) -> None:
        super().__init__(message)
        self.staleness_ms = staleness_ms


class RestoringError(QueryError):
    """The partition is being restored and cannot answer yet."""

    code, status = "restoring", 503


class UnauthorizedError(QueryError):
    """No token, or none that is known."""

    code, status = "unauthorized", 401


class InvalidTokenError(UnauthorizedError):
    """An access token that does not hold; the message says which of its claims, never the token."""


class ForbiddenError(QueryError):
    """The token is known, but its scopes do not allow this."""

    code, status = "forbidden", 403


class InsufficientScopeError(ForbiddenError):
    """The caller is known and let in, but none of its scopes opens this.

    Attributes:
        scope: one that would, where that is the same for everybody.
    """

    def __init__(self, message: str, *, scope: str = "read") -> None:
        super().__init__(message)
        self.scope = scope


class TooLargeError(QueryError):
    """The request is over a size limit."""

    code, status = "too_large", 413


class RateLimitedError(QueryError):
    """Too many requests for now."""

    code, status = "rate_limited", 429


class OwnerUnreachableError(QueryError):
    """The worker that owns the key did not answer in time."""

    code, status = "owner_unreachable", 503


class LeaseExpiredError(QueryError):
    """This worker does not know any more whether it owns the partition."""

    code, status = "lease_expired", 503
