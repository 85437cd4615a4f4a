"""`simulate`, `record` and `replay` as processes."""

import asyncio
import json
import re
import signal
import sys

import aiohttp
import pytest

from streamapp.cli import main
from streamapp.errors import RecordingError
from streamapp.feeds.recording import RecordingWriter, read_recording
from streamapp.simulator.replay import Replay, ReplaySettings


@pytest.fixture
async def serve():
    """Start commands that serve, and stop them at the end; each must then exit with 0."""
    started = []

    async def start(*arguments):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from streamapp.cli.main import run; run()",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"listening on (ws://127\.0\.0\.1:\d+)\n", line)
        assert found, line
        return found[1]

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def run(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from streamapp.cli.main import run; run()",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def frames_from(url, count):
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_str("{}")
        return [(await socket.receive_str(timeout=20)) for _ in range(count)]


def received(path):
    return [line.text for line in read_recording(path) if line.kind == "received"]


async def test_record_then_replay_gives_the_same_frames(serve, tmp_path):
    path = tmp_path / "session.ws.gz"
    url = await serve("simulate", "--port", "0", "--rate", "200", "--symbols", "2", "--seed", "4")

    code, out, err = await run("record", "--feed", "coinbase", "--url", url, "--duration", "2", str(path))

    assert (code, err) == (0, "")
    recorded = received(path)
    assert f"{len(recorded)} frames written" in out
    assert {json.loads(text)["type"] for text in recorded} >= {"subscriptions", "match", "ticker"}
    replayed = await frames_from(await serve("replay", str(path), "--port", "0", "--speed", "max"), len(recorded))
    assert replayed == recorded


async def test_record_of_nothing_fails_with_one_line(tmp_path):
    code, out, err = await run(
        "record", "--feed", "coinbase", "--url", "ws://127.0.0.1:1", "--duration", "1", str(tmp_path / "none.ws")
    )

    assert (code, out) == (1, "")
    assert "streamapp: nothing was received" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "--port", "0", "--venue", "mtgox"),
        ("simulate", "--port", "x"),
        ("simulate",),
        ("replay", "/does/not/exist", "--port", "0"),
        ("replay", __file__, "--port", "0", "--speed", "-1"),
        ("record", "--feed", "mtgox", "file"),
    ],
)
def test_bad_usage_exits_with_2(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["streamapp", *arguments])

    with pytest.raises(SystemExit) as left:
        main.run()

    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def write(path, *times):
    with RecordingWriter(path) as writer:
        writer.opened("ws://x", times[0])
        writer.sent("ws://x", '{"not":"sent"}', times[0])
        for number, time in enumerate(times):
            writer.received(f'{{"n":{number}}}', time)


async def test_replay_keeps_the_pace_divided_by_the_speed_and_stays_open(tmp_path):
    path = tmp_path / "slow.ws"
    write(path, 100.0, 101.0, 103.0)
    replay = Replay(ReplaySettings(path=path, speed=10))
    await replay.start()
    loop = asyncio.get_running_loop()
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(replay.url + "/any/path?streams=a") as socket:
            await socket.send_str("{}")
            moments = []
            for number in range(3):
                assert await socket.receive_json(timeout=20) == {"n": number}
                moments.append(loop.time())
            assert moments[2] - moments[0] >= 0.25
            assert not socket.closed
    finally:
        await replay.stop()


async def test_replay_gives_every_connection_the_whole_recording_and_closes_where_asked(tmp_path):
    path = tmp_path / "short.ws"
    write(path, *range(100))
    replay = Replay(ReplaySettings(path=path, speed=None, close=True, first_message_timeout_s=0.01))
    await replay.start()
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.ws_connect(replay.url) as socket:
                    numbers = [json.loads(message.data)["n"] async for message in socket]
                assert numbers == list(range(100))
    finally:
        await replay.stop()


async def test_replay_of_a_broken_recording_fails_with_the_line(tmp_path):
    path = tmp_path / "broken.ws"
    path.write_text("1.0: {}\nnonsense\n")
    replay = Replay(ReplaySettings(path=path, speed=None, first_message_timeout_s=0.01))
    await replay.start()
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(replay.url) as socket:
            assert await socket.receive_str(timeout=20) == "{}"
            with pytest.raises(RecordingError, match="line 2"):
                async with asyncio.timeout(20):
                    await replay.wait()
    finally:
        await replay.stop()
