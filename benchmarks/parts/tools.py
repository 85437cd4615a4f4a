"""Calls of MCP tools, as an agent makes them, while events come in: on both revisions of the protocol."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.figures import latency_summary, significant
from benchmarks.load import SteadyLoad
from benchmarks.load_test import until_due
from benchmarks.processes import ProgramError
from benchmarks.worker import Worker

_CALLS_PER_S = 20
_CONNECTIONS = 4
_WARM_S = 2.0
_TIMEOUT_S = 60.0
_SEED_TRADES = 50_000
#: the load waits for company as the bridge's producer does
_LINGER_MS = 5
_PRESENT = "2026-07-28"
_SESSIONS = "2025-06-18"
_CLIENT = {"name": "benchmark", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": _PRESENT,
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def measure(context: Context) -> dict[str, Any]:
    """Milliseconds of calls at fixed instants, idle and loaded; each tool's alone as well."""
    seconds = context.sizes.tool_s
    topic = await context.topic("tools")
    await asyncio.to_thread(topics.fill_with_trades, context.brokers, topic, _SEED_TRADES)
    worker = Worker(context, "candles", topic, app_id=context.name("tools"))
    await worker.start()
    figures: dict[str, Any] = {}
    try:
        await worker.first_and_last(_SEED_TRADES, _TIMEOUT_S)
        for version in (_PRESENT, _SESSIONS):
            # what is imported and compiled at the first calls is there after this
            await _calls(worker.port, version, _WARM_S)
            figures[f"idle_{version}"] = {"what": f"idle, {version}", **await _calls(worker.port, version, seconds)}
        try:
            await _loaded(context, worker, topic, figures)
        except Exception as problem:
            context.fail(f"while events come in: {problem}")
    finally:
        await worker.stop(hard=True)
    await context.drop(topic)
    return figures


async def _loaded(context: Context, worker: Worker, topic: str, figures: dict[str, Any]) -> None:
    rate, seconds = context.sizes.tool_load, context.sizes.tool_s
    sender = context.steady_load(topic, rate, 4 * seconds + 4 * _TIMEOUT_S, linger_ms=_LINGER_MS)
    async with SteadyLoad(sender, rate, worker) as load:
        for version in (_PRESENT, _SESSIONS):
            begin = await load.settled()
            taken = await _calls(worker.port, version, seconds)
            applied = await load.kept_up(begin)
            what = f"{rate:,} events/s, {version}"
            figures[f"loaded_{version}"] = {"what": what, "applied_per_s": significant(applied), **taken}
            context.say(f"{what}: p50 {taken['p50_ms']} ms, p99 {taken['p99_ms']} ms, {applied:,.0f} applied/s")


def _tools(number: int) -> tuple[str, dict[str, Any]]:
    """The calls in turn: what an agent asks most."""
    key = topics.symbol(number % topics.SYMBOLS)
    other = topics.symbol((number + 7) % topics.SYMBOLS)
    choices: list[tuple[str, dict[str, Any]]] = [
        ("get_current", {"table": "candles", "keys": [key]}),
        ("get_current", {"table": "candles", "keys": [key, other]}),
        ("get_windows", {"table": "candles", "key": key}),
        ("get_top", {"table": "candles", "by": "volume"}),
        ("find_keys", {"table": "candles", "query": key[1:4]}),
        ("list_tables", {}),
    ]
    return choices[number % len(choices)]


async def _calls(port: int, version: str, seconds: float) -> dict[str, Any]:
    taken: list[tuple[str, float]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S)) as session:
        clients = [_Caller(session, port, version) for _ in range(_CONNECTIONS)]
        for client in clients:
            await client.begin()
        begin = time.perf_counter()

        async def one(number: int) -> None:
            for position in range(number, int(_CALLS_PER_S * seconds), _CONNECTIONS):
                due = await until_due(begin + position / _CALLS_PER_S)
                name, arguments = _tools(position)
                await clients[number].call(name, arguments)
                taken.append((name, (time.perf_counter() - due) * 1000))

        await asyncio.gather(*(one(number) for number in range(_CONNECTIONS)))
    by_tool: dict[str, list[float]] = {}
    for name, milliseconds in taken:
        by_tool.setdefault(name, []).append(milliseconds)
    return {
        **latency_summary([milliseconds for _, milliseconds in taken]),
        "tools": {name: latency_summary(part) for name, part in sorted(by_tool.items())},
    }


class _Caller:
    """One client; of the revisions with sessions, one session."""

    def __init__(self, session: aiohttp.ClientSession, port: int, version: str) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/mcp"
        self._version = version
        self._headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": version}
        self._number = 0

    async def begin(self) -> None:
        if self._version == _PRESENT:
            return
        params = {"protocolVersion": self._version, "capabilities": {}, "clientInfo": _CLIENT}
        answer, headers = await self._post("initialize", params)
        assert "result" in answer, answer
        self._headers["Mcp-Session-Id"] = headers["Mcp-Session-Id"]
        body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        async with self._session.post(self._url, json=body, headers=self._headers) as response:
            await response.read()

    async def call(self, name: str, arguments: dict[str, Any]) -> None:
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        more = {}
        if self._version == _PRESENT:
            params["_meta"] = _META
            more = {"Mcp-Method": "tools/call", "Mcp-Name": name}
        answer, _ = await self._post("tools/call", params, more)
        if "result" not in answer or answer["result"].get("isError"):
            raise ProgramError(f"tools/call {name} {arguments}: {json.dumps(answer)[:500]}")

    async def _post(
        self, method: str, params: dict[str, Any], more: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        self._number += 1
        body = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        async with self._session.post(self._url, json=body, headers={**self._headers, **(more or {})}) as response:
            text = await response.text()
            if response.status != 200:
                raise ProgramError(f"{method}: {response.status} {text[:500]}")
            if response.content_type == "text/event-stream":
                text = next(line[6:] for line in text.splitlines() if line.startswith("data: {"))
            answer: dict[str, Any] = json.loads(text)
            return answer, response.headers
