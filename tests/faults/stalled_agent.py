"""An agent that does nothing for as long as a file exists."""

import asyncio
import os
from pathlib import Path
from typing import Any


def declare(app: Any, topic: Any) -> None:
    """Add it to the application, on the tables' own source."""
    stalls = Path(os.environ["FAULTS_STALL_FILE"])

    @app.agent(topic)  # type: ignore[untyped-decorator]
    async def stalled(trades: Any) -> None:
        async for _ in trades:
            while stalls.exists():  # noqa: ASYNC110, ASYNC240 - a file is how another process can tell it
                await asyncio.sleep(0.05)
