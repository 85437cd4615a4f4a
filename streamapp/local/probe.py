"""Who is listening on a port: nobody, a Kafka, or something else."""

import socket
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

_CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class FoundKafka:
    """A Kafka that answered.

    Attributes:
        cluster_id: the cluster's identity.
        brokers: ids of the brokers that are up.
    """

    cluster_id: str
    brokers: tuple[int, ...]


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether anything accepts connections there."""
    try:
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


class KafkaProbe:
    """Asks whether a Kafka answers, as often as wanted, over one connection.

    One client for all questions: a handshake with TLS and a password may take longer than a single question waits, and
    must not begin anew each time.

    Args:
        config: a client's configuration (bootstrap servers, security).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._client = AdminClient(
            {
                **config,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 100,
                # "connection refused" is an answer here, not an event for the log
                "log_level": 0,
            }
        )

    def ask(self, timeout_s: float) -> FoundKafka | None:
        """The cluster's metadata; None when no Kafka answers within the time."""
        try:
            metadata = self._client.list_topics(timeout=timeout_s)
        except KafkaException:
            return None
        return FoundKafka(str(metadata.cluster_id), tuple(sorted(metadata.brokers)))


def owner_of(port: int) -> str | None:
    """The name and pid of the process that listens on a local port, where the system lets us see it."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None
