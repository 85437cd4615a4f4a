"""Single requests to a worker, as programs make them that got their token elsewhere."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.fakes.ports import HOST

_TIMEOUT_S = 30


@dataclass(frozen=True)
class Told:
    """An answer: its document (text where it is no JSON) and the challenge of a refusal."""

    status: int
    document: Any
    challenge: str


def ask(
    port: int,
    path: str,
    token: str | None = None,
    *,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Told:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
    sent = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **_bearer(token)}
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {**sent, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.getheader("Content-Type", "")
        document = json.loads(text) if "json" in kind else text
        return Told(answer.status, document, answer.getheader("WWW-Authenticate", ""))
    finally:
        connection.close()


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    kind: str
    id: str
    data: Any


@contextmanager
def following(port: int, path: str, token: str | None = None, since: str = "") -> Iterator[Iterator[Event]]:
    """The events of a stream; each is waited for at most as long as any answer.

    Args:
        since: resumes after the event of that id.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={**_bearer(token), **({"Last-Event-ID": since} if since else {})})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        yield _events(answer)
    finally:
        connection.close()


def _events(answer: http.client.HTTPResponse) -> Iterator[Event]:
    fields: dict[str, str] = {}
    while line := answer.readline().decode():
        name, _, value = line.rstrip("\r\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
