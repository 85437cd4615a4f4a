"""`streamapp kafka`: the embedded Kafka in the foreground."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from streamapp.errors import EmbeddedKafkaError
from streamapp.local.broker import EmbeddedKafka
from streamapp.local.jars import KAFKA_VERSION, is_cached


def kafka(
    port: Annotated[
        int, typer.Option(help="Where clients connect, on 127.0.0.1; 0 picks a free port.", min=0, max=65535)
    ] = 9092,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep topics here between runs; default: a temporary folder.", file_okay=False)
    ] = None,
) -> None:
    """Run the embedded Kafka in the foreground, until Ctrl-C or SIGTERM.

    Prints one line when it is ready. If a Kafka answers on that port already, says so and waits beside it, so that a
    process manager sees a running service either way.

    Example: streamapp kafka --port 9092 --data-dir .streamapp/kafka
    """
    asyncio.run(_run(port, data_dir))


async def _run(port: int, data_dir: Path | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    broker = EmbeddedKafka(port=port, data_dir=data_dir)
    if not is_cached():
        typer.echo(f"fetching Kafka {KAFKA_VERSION} (44 MB, once) ...", err=True)
    starting = asyncio.create_task(broker.start())
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        # a start cannot be interrupted half-way, but it is bounded
        await starting
        if not stopping.is_set():
            typer.echo(_ready_line(broker, data_dir))
        ended = asyncio.create_task(broker.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            where = f"; see {broker.log_file}" if broker.log_file and data_dir else ""
            raise EmbeddedKafkaError(f"the Kafka at {broker.bootstrap} ended by itself, code {ended.result()}{where}")
        ended.cancel()
    finally:
        stopped.cancel()
        await broker.stop()


def _ready_line(broker: EmbeddedKafka, data_dir: Path | None) -> str:
    if broker.reused:
        unused = f"; {data_dir} is not used" if data_dir else ""
        return f"a Kafka already answers at {broker.bootstrap} (cluster {broker.cluster_id}); waiting beside it{unused}"
    return f"Kafka {KAFKA_VERSION} is ready at {broker.bootstrap} (log: {broker.log_file})"
