"""Fault 12: a venue that drops, stutters and talks nonsense, and a bridge that is killed."""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from aiohttp import web

from streamapp.bridge.service import Bridge
from streamapp.settings import FeedSettings, Settings
from tests.fakes.bridge_runs import clean_topics, read_topics
from tests.fakes.processes import Streamapp, Topics, until
from tests.faults.lab import Lab, fault

#: trades that are stored in one life of the bridge
BETWEEN = (500, 2_500)
KILLS = 2
GROWTH_MAX_BYTES = 200 << 20
_FRAME_MAX_BYTES = 2_000


@fault(12, "the venue drops, repeats, reorders and breaks frames; the bridge is killed")
def test_bridge_and_venue(lab: Lab) -> None:
    draw = random.Random(f"feeds-{lab.seed}")
    settings = Settings(kafka_brokers=lab.kafka)
    asyncio.run(clean_topics(settings))
    topics = Topics(lab.kafka)
    env = {
        "STREAMAPP_KAFKA_BROKERS": lab.kafka,
        "STREAMAPP_FEED_BACKOFF_INITIAL_MS": "50",
        "STREAMAPP_FEED_BACKOFF_MAX_MS": "300",
        # a connection that breaks after seconds is this venue's way, and no reason to leave it alone for minutes
        "STREAMAPP_FEED_STABLE_MS": "1000",
    }
    symbols = ("BTC-USD", "ETH-USD", "SOL-USD")
    faults = ["--gaps", "0.003", "--duplicates", "0.02", "--reorder", "0.02", "--malformed", "0.002"]
    faults += ["--disconnect-every", str(round(draw.uniform(1.5, 4.0), 2))]
    run = ["--symbols", "3", "--rate", "1000", "--seed", str(lab.seed)]
    grown = 0
    with Streamapp("venue", lab.folder, "simulate", "--port", "0", *run, *faults, env=env) as venue:
        url = venue.line(r"listening on (ws://\S+)")
        bridge = Streamapp(
            "bridge", lab.folder, "bridge", "--feed", "coinbase", "--url", url, "--symbols", ",".join(symbols), env=env
        )

        def stored() -> int:
            return sum(topics.ends("trades").values())

        with bridge:
            for _ in range(KILLS):
                wanted = stored() + draw.randrange(*BETWEEN)
                before = psutil.Process(bridge.pid).memory_info().rss
                until(
                    "some trades to be stored",
                    lambda wanted=wanted: stored() >= wanted or not bridge.running,
                    hint=lambda: bridge.last_words,
                )
                assert bridge.running, bridge.log[-2_000:]
                grown = max(grown, psutil.Process(bridge.pid).memory_info().rss - before)
                bridge.kill()
                time.sleep(draw.uniform(0.0, 0.5))
                bridge.start()
            # the venue goes on whoever listens, so what was missed meanwhile shows once the last life hears it
            last = stored() + draw.randrange(*BETWEEN)
            until("the last life's trades", lambda: stored() >= last, hint=lambda: bridge.last_words)
            assert bridge.terminate() == 0
    found = asyncio.run(read_topics(lab.kafka))
    ids: dict[str, list[int]] = defaultdict(list)
    for record in found["trades"]:
        ids[record.key].append(int(record.value["trade_id"]))
    gaps = _gaps(found["feed-status"])
    differing = []
    missing = 0
    for key, numbers in ids.items():
        if len(numbers) != len(set(numbers)):
            differing.append(f"{key}: {len(numbers) - len(set(numbers))} stored twice")
        lacking = set(range(min(numbers), max(numbers) + 1)) - set(numbers)
        missing += len(lacking)
        differing += [f"{key}: {number} missing without a gap" for number in sorted(lacking - gaps[key])]
    told = sum(map(len, gaps.values()))
    lab.count(
        events=sum(map(len, ids.values())) + missing,
        compared=sum(map(len, ids.values())) + missing,
        differences=len(differing),
        missing=missing,
        told_as_gaps=told,
        letters=len(found["dead-letters"]),
        grown_mib=grown >> 20,
    )
    assert differing == []
    assert set(ids) == {f"coinbase:{symbol}" for symbol in symbols}
    assert missing > 0, "two kills and lost frames must have cost something"
    assert found["dead-letters"], "the broken frames"
    assert grown < GROWTH_MAX_BYTES


def _gaps(statuses: Sequence[Any]) -> dict[str, set[int]]:
    gaps: dict[str, set[int]] = defaultdict(set)
    for record in statuses:
        if record.value["state"] == "gap":
            gaps[record.key].update(range(record.value["sequence_expected"], record.value["sequence_got"]))
    return gaps


# --- frames ------------------------------------------------------------------------------------------------------------


@dataclass
class _Script:
    """What a venue says over several connections, and what must come of it."""

    connections: list[list[bytes]] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


def _match(number: int, **changed: object) -> dict[str, object]:
    return {
        "type": "match",
        "trade_id": number,
        "product_id": "BTC-USD",
        "price": "64000.5",
        "size": "0.1",
        "side": "buy",
        "sequence": number * 3,
        "time": "2026-01-02T03:04:05.678901Z",
    } | changed


def _frame(payload: bytes, opcode: int = 1, *, final: bool = True) -> bytes:
    """One unmasked frame of RFC 6455."""
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    return head + b"\x7e" + size.to_bytes(2, "big") + payload


def _written(draw: random.Random, connections: int, frames: int) -> _Script:
    script = _Script()
    number = 0
    for _ in range(connections):
        said: list[bytes] = []
        for place in range(frames):
            number += 1
            text = json.dumps(_match(number)).encode()
            kind = draw.choice(("plain", "plain", "fragments", "twice", "skip", "cut", "nan", "huge", "bytes"))
            if place in (0, frames - 1):
                kind = "plain"  # the ends are known, so that what lies between can be counted
            if kind == "skip":
                script.skipped.add(number)
                continue
            if kind == "fragments":
                pieces = sorted(draw.sample(range(1, len(text)), draw.randint(1, 4)))
                parts = [text[a:b] for a, b in zip([0, *pieces], [*pieces, len(text)], strict=True)]
                for index, part in enumerate(parts):
                    said.append(_frame(part, 1 if index == 0 else 0, final=index == len(parts) - 1))
                    if draw.random() < 0.3:
                        said.append(_frame(b"are you there", 9))  # control frames may come between
            elif kind == "twice":
                said += [_frame(text)] * 2
            else:
                if kind == "cut":
                    said.append(_frame(text[:-5]))
                    script.reasons.append("malformed_json")
                elif kind == "nan":
                    said.append(_frame(json.dumps(_match(number, price="NaN")).encode()))
                    script.reasons.append("bad_number")
                elif kind == "huge":
                    said.append(_frame(json.dumps(_match(number, padding="x" * 3_000)).encode()))
                    script.reasons.append("oversized")
                elif kind == "bytes":
                    said.append(_frame(b"\xff\xfe no text", 2))
                    script.reasons.append("malformed_json")
                said.append(_frame(text))
            script.told.add(number)
        script.connections.append(said)
    return script


@asynccontextmanager
async def _venue(script: _Script, finished: asyncio.Event) -> AsyncIterator[str]:
    """Says its lines connection by connection, breaking each off but the last, on which it falls silent."""
    left = list(script.connections)

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await socket.receive_str()
        transport = request.transport
        assert transport is not None
        frames = left.pop(0) if left else []
        for frame in frames:
            transport.write(frame)
            await asyncio.sleep(0.001)
        if left:
            await asyncio.sleep(0.1)
            transport.close()
        else:
            finished.set()
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@fault(12, "fragmented, oversized and malformed frames, broken connections, silence")
def test_frames(lab: Lab) -> None:
    script = _written(random.Random(f"frames-{lab.seed}"), connections=4, frames=150)
    found = asyncio.run(_hear(lab.kafka, script))
    ids = [int(record.value["trade_id"]) for record in found["trades"]]
    gaps = set().union(*_gaps(found["feed-status"]).values())
    reasons = sorted(record.value["reason"] for record in found["dead-letters"])
    states = [record.value["state"] for record in found["feed-status"]]
    differing = [f"{number} stored twice" for number in sorted({one for one in ids if ids.count(one) > 1})]
    differing += [f"{number} lost" for number in sorted(script.told - set(ids))]
    differing += [f"{number} missing without a gap" for number in sorted(script.skipped - gaps)]
    differing += [f"{number} told as missing" for number in sorted(gaps & set(ids))]
    if reasons != sorted(script.reasons):
        differing.append(f"dead letters: expected {sorted(script.reasons)}, got {reasons}")
    lab.count(
        events=len(script.told) + len(script.skipped) + len(script.reasons),
        compared=len(script.told) + len(script.skipped) + len(script.reasons),
        differences=len(differing),
        letters=len(reasons),
        gaps=len(gaps),
    )
    assert differing == []
    assert states.count("disconnected") >= len(script.connections), "each broken connection, and the silence at the end"


async def _hear(brokers: str, script: _Script) -> dict[str, list[Any]]:
    settings = Settings(
        kafka_brokers=brokers, feed_backoff_initial_ms=10, feed_backoff_max_ms=50, feed_heartbeat_ms=100
    )
    await clean_topics(settings)
    finished = asyncio.Event()
    async with _venue(script, finished) as url:
        options = {"max_frame_bytes": _FRAME_MAX_BYTES, "heartbeat_timeout_ms": 1_500}
        feed = FeedSettings(venue="coinbase", url=url, symbols=("BTC-USD",), options=options)
        bridge = Bridge(settings, {"main": feed})
        await bridge.start()
        try:
            async with asyncio.timeout(60):
                await finished.wait()
                while bridge.metrics.bridge_records.labels("coinbase", "trades")._value.get() < len(script.told):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await asyncio.sleep(2.0)  # silence, for longer than the feed may be silent
        finally:
            await bridge.stop()
    return await read_topics(brokers)
