"""aiokafka's connections over uvloop: one that is broken says so in the way that aiokafka expects.

Where a broker is killed, uvloop closes the transport some turns before the connection gets to know, and refuses a write in
between with a `RuntimeError`; asyncio's own loop takes it. aiokafka expects an `OSError` there, so whatever task sends in
that moment ends. The one that keeps the cluster's metadata is looked at by nobody: everything that waits for news of the
cluster, such as who the coordinator of the group is now, would wait for ever.

This module touches private members of aiokafka; tests/integration/test_engine_contract.py names them.
"""

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_stock_send = AIOKafkaConnection.send


def mend_connections() -> None:
    """From now on a write to a connection that is broken is a `KafkaConnectionError`, which everybody who sends expects."""
    AIOKafkaConnection.send = _send


def _send(self: Any, request: Any, expect_response: bool = True) -> Any:
    try:
        return _stock_send(self, request, expect_response)
    except RuntimeError as problem:
        # what the stock method does with an OSError
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {problem}") from problem
