"""A typed client of a worker."""

from streamapp.client.activation import Activation as Activation
from streamapp.client.activation import OnChange as OnChange
from streamapp.client.activation import Outcome as Outcome
from streamapp.client.activation import on_change as on_change
from streamapp.client.http import UnexpectedAnswerError as UnexpectedAnswerError
from streamapp.client.http import WorkerUnreachableError as WorkerUnreachableError
from streamapp.client.stream_client import StreamClient as StreamClient

__all__ = [
    "Activation",
    "OnChange",
    "Outcome",
    "StreamClient",
    "UnexpectedAnswerError",
    "WorkerUnreachableError",
    "on_change",
]
