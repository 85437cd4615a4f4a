"""What is noted of the records that one call sends."""

import asyncio
from types import SimpleNamespace
from typing import Any

from streamapp.kafka.producer import _Pending


async def test_a_record_that_is_there_and_nobody_tells_where_is_acknowledged_without_an_offset():
    pending = _Pending(2, asyncio.get_running_loop())
    untold: Any = SimpleNamespace(offset=lambda: None)  # as of one that was sent again, and there already
    told: Any = SimpleNamespace(offset=lambda: 7)
    pending.delivered(0, None, untold)
    pending.delivered(1, None, told)
    async with asyncio.timeout(5):
        await pending.done.wait()
    assert pending.offsets == [-1, 7]
    assert not pending.errors
