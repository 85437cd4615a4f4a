"""A typed client of a worker."""

from streamapp.client.http import WorkerUnreachableError as WorkerUnreachableError
from streamapp.client.stream_client import StreamClient as StreamClient

__all__ = ["StreamClient", "WorkerUnreachableError"]
