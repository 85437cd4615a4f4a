"""The record of who read what: one line per call, without tokens and values."""

import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError
from streamapp.metrics import Metrics
from streamapp.queries.access import EVERYTHING, Caller
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.queries.trace import ON_BEHALF_HEADER, Trace
from streamapp.settings import Settings
from streamapp.views.application import application
from streamapp.views.audit import LOGGER, Audit
from streamapp.views.auth import new_token
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import BTC, MakeClient
from tests.unit.views.test_point_reads import Server, get

KEY = f"/v1/tables/candles_1m/keys/{BTC}"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", KEY, None, {"tables": ["candles_1m"], "keys": [BTC], "key_count": 1, "rows": 1, "outcome": "ok"}),
        ("HEAD", KEY, None, {"method": "HEAD", "keys": [BTC], "rows": 1}),
        ("GET", KEY + "?at=1", None, {"keys": [BTC], "rows": 0, "outcome": "no_such_window", "status": 404}),
        ("GET", f"{KEY}/windows", None, {"route": "/v1/tables/{table}/keys/{key}/windows", "rows": 5}),
        ("GET", "/v1/tables/candles_1m/values?keys=a,b,c,d,e,f,g", None, {"keys": list("abcde"), "key_count": 7}),
        ("GET", "/v1/tables/candles_1m/keys", None, {"keys": [], "key_count": 0, "rows": 3}),
        ("GET", "/v1/tables/latest/top?by=price&limit=1", None, {"tables": ["latest"], "rows": 2}),
        ("GET", "/v1/tables/stats_5m/keys", None, {"tables": ["stats_5m"], "outcome": "ok"}),
        ("GET", "/v1/context", None, {"operation": "summarize_state", "outcome": "ok", "status": 200}),
        (
            "POST",
            "/v1/operations/get_current",
            {"table": "latest", "keys": [BTC, "none"]},
            {"operation": "get_current", "route": "/v1/operations/{name}", "keys": [BTC, "none"], "tables": ["latest"]},
        ),
        ("POST", "/v1/operations/get_top", {"table": "latest", "by": "x"}, {"outcome": "bad_parameter", "status": 400}),
    ],
)
async def test_call_leaves_one_line(
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    body: Any,
    expected: dict[str, Any],
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    token, entry = new_token("laptop", ["read"])
    client = await make_client(api_tokens=entry, audit="log")
    async with client.client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
        await answer.read()
    (line,) = lines(caplog)
    assert line["caller"] == "laptop"
    assert line["time"] == 1_790_000_061_234
    assert line["duration_ms"] >= 0
    assert {name: line[name] for name in expected} == expected
    told = json.dumps(line)
    assert token not in told
    assert entry.rpartition(":")[2] not in told
    assert "101.5" not in told, "no value"


async def test_quick_way_leaves_the_same_line(
    queries: FakeQueries, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    token, entry = new_token("laptop", ["read"])
    for quick in (True, False):
        app = application(queries, Settings(api_tokens=entry, audit="log"), metrics=Metrics(), clock=clock)
        server = Server(app, quick)
        await server.start()
        try:
            await server.ask(get(KEY, f"Authorization: Bearer {token}"))
            assert server.answered == quick
        finally:
            await server.runner.cleanup()
    first, second = ({**line, "duration_ms": 0} for line in lines(caplog))
    assert first == second


async def test_refused_call_leaves_a_line(make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    token, entry = new_token("narrow", ["read/latest"])
    client = await make_client(api_tokens=entry, audit="log")
    await client.get(KEY, headers={"Authorization": f"Bearer {token}"})
    await client.get(KEY, headers={"Authorization": "Bearer wrong-secret"})
    await client.get("/health/live")
    told = [(line["caller"], line["outcome"], line["status"]) for line in lines(caplog)]
    assert told == [("narrow", "forbidden", 403), (None, "unauthorized", 401)]
    assert "wrong-secret" not in caplog.text


async def test_forwarded_read_is_recorded_by_the_first_worker_alone_and_counted_by_both(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, metrics: Metrics
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    _, entry = new_token("laptop", ["read"])
    client = await make_client(api_tokens=entry, audit="log")
    peer = {HOP_HEADER: hop_token(Settings(api_tokens=entry)), ON_BEHALF_HEADER: "laptop"}
    assert (await client.get(KEY, headers=peer))[0] == 200
    assert lines(caplog) == []
    assert metrics.forwarded_served.labels("laptop")._value.get() == 1
    forged = {**peer, HOP_HEADER: "forged", ON_BEHALF_HEADER: "somebody"}
    assert (await client.get(KEY, headers=forged))[0] == 401
    assert "somebody" not in str(list(metrics.forwarded_served.collect()))


async def test_nothing_is_recorded_unless_it_is_switched_on(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    client = await make_client()
    await client.get(KEY)
    assert lines(caplog) == []


async def test_file_is_private_bounded_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.log"
    settings = Settings(audit="file", audit_file=path, audit_file_max_bytes=2_000, audit_files_kept=2)
    audit = Audit(settings, ManualClock(5), Metrics())
    caller = Caller("laptop\nx", EVERYTHING)
    for number in range(100):
        trace = Trace()
        trace.asked("t", [f"key {number}\n" + "k" * 500] * 50)
        audit.write("GET", "/r", caller, trace, "ok", 200, 0.001)
    await audit.close()
    await audit.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1", "audit.log.2"]
    for file in files:
        assert file.stat().st_size <= 2_000
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for line in file.read_text().splitlines():
            assert json.loads(line)["caller"] == "laptop\nx"


async def test_slow_disk_loses_lines_and_says_so(tmp_path: Path) -> None:
    metrics = Metrics()
    settings = Settings(audit="file", audit_file=tmp_path / "audit.log", audit_queue_max=10)
    audit = Audit(settings, ManualClock(5), metrics)
    assert audit._listener is not None
    audit._listener.stop()  # nothing is written any more
    for _ in range(30):
        audit.write("GET", "/r", None, None, "ok", 200, 0.001)
    assert metrics.audit_dropped._value.get() == 20


def test_file_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigurationError, match="audit_file"):
        Audit(Settings(audit="file", audit_file=tmp_path / "taken" / "audit.log"), ManualClock(), Metrics())
