"""Latency of point reads over kept-alive connections, one request at a time on each."""

import asyncio
import time

import aiohttp


async def measure_reads(url: str, keys: list[str], *, connections: int = 4, seconds: float = 5.0) -> dict[str, float]:
    """Requests per second and quantiles in milliseconds of `GET .../keys/{key}` of `candles_1m`."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        position = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            async with session.get(f"{url}/v1/tables/candles_1m/keys/{keys[position % len(keys)]}") as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"expected 200, got {answer.status}")
            taken.append((time.perf_counter() - begin) * 1000)
            position += connections

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        await asyncio.gather(*(one(session, number) for number in range(connections)))
    taken.sort()
    return {
        "requests_per_s": round(len(taken) / seconds),
        "p50_ms": round(taken[len(taken) // 2], 2),
        "p99_ms": round(taken[len(taken) * 99 // 100], 2),
    }
