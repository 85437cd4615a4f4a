"""`StreamClient`: every operation as a plain asynchronous function, and the changes of a table as they happen."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from streamapp.client.http import RETRIED, Event, Http, UnexpectedAnswerError
from streamapp.errors import BadParameterError, QueryError
from streamapp.operations import answers
from streamapp.operations.catalogue import BY_NAME
from streamapp.queries.peers import remote_problem

DEFAULT_URL = "http://127.0.0.1:6066"
_RECONNECT_S, _RECONNECT_MAX_S = 0.25, 10.0

A = TypeVar("A", bound=answers.Answer)


class StreamClient:
    """Reads from a worker, which answers for the whole cluster. Use it in `async with`.

    Every method raises the `QueryError` subclass that tells what is wrong (`UnknownKeyError` knows the nearest keys,
    `StaleError` how far the view is behind), `WorkerUnreachableError` where no worker answers, `UnexpectedAnswerError` where
    its version differs from this one's, and a plain `QueryError` with code and status for what has no class here.

    Args:
        url: where the worker listens.
        token: a bearer token, where the worker asks for one.
        timeout_s: bound on one request, and on silence of an event stream, there at least 15 s.
        retries: how often a request is repeated after a failure that may pass (unreachable, restoring, rate limited);
            what waits for a condition is repeated only until its own deadline.
        pause_s: upper bound of the first pause between tries; it doubles, and pauses are drawn below it.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        timeout_s: float = 15.0,
        retries: int = 3,
        pause_s: float = 0.2,
    ) -> None:
        self._http = Http(url, token, timeout_s=timeout_s, retries=retries, pause_s=pause_s)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._http.__aexit__(*details)

    # --- operations ------------------------------------------------------------------------------------------------------

    async def call(self, name: str, given: Mapping[str, Any]) -> answers.Answer:
        """Any operation by its name; arguments that are None are left out."""
        operation = BY_NAME.get(name)
        if operation is None:
            raise BadParameterError("operation", f"there is no operation {name!r}; there are: {', '.join(BY_NAME)}")
        body = {key: value for key, value in given.items() if value is not None}
        waits_ms = body.get("timeout_ms", 30_000) if operation.waits else 0
        waits_s = waits_ms / 1000 if isinstance(waits_ms, (int, float)) else 0.0
        content = await self._http.request("POST", f"/v1/operations/{name}", body, waits_s)
        try:
            return operation.answer.model_validate(content)
        except ValidationError as problem:
            raise UnexpectedAnswerError(name, problem) from None

    async def _call(self, kind: type[A], name: str, **given: Any) -> A:
        answer = await self.call(name, given)
        assert isinstance(answer, kind)
        return answer

    async def list_tables(self) -> answers.TableList:
        """Every table."""
        return await self._call(answers.TableList, "list_tables")

    async def describe_table(self, table: str) -> answers.TableDescription:
        """One table, its fields with units, and an example call."""
        return await self._call(answers.TableDescription, "describe_table", table=table)

    async def get_current(
        self, table: str, keys: str | Sequence[str], *, max_staleness_ms: int | None = None
    ) -> answers.CurrentValues:
        """The newest values, in the order asked; keys without one are in `missing`, and an error if all are."""
        asked = [keys] if isinstance(keys, str) else list(keys)
        return await self._call(
            answers.CurrentValues, "get_current", table=table, keys=asked, max_staleness_ms=max_staleness_ms
        )

    async def get_windows(
        self,
        table: str,
        key: str,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        max_points: int = 60,
        max_staleness_ms: int | None = None,
    ) -> answers.WindowSeries:
        """Windows whose start lies in [from_ms, to_ms), in order, put together to at most `max_points`."""
        return await self._call(
            answers.WindowSeries,
            "get_windows",
            table=table,
            key=key,
            from_ms=from_ms,
            to_ms=to_ms,
            max_points=max_points,
            max_staleness_ms=max_staleness_ms,
        )

    async def get_top(
        self,
        table: str,
        by: str,
        *,
        order: Literal["desc", "asc"] = "desc",
        limit: int = 10,
        max_staleness_ms: int | None = None,
    ) -> answers.TopValues:
        """The keys with the largest (or smallest) newest value of a field."""
        return await self._call(
            answers.TopValues,
            "get_top",
            table=table,
            by=by,
            order=order,
            limit=limit,
            max_staleness_ms=max_staleness_ms,
        )

    async def find_keys(self, query: str = "", *, table: str | None = None, limit: int = 20) -> answers.FoundKeys:
        """Keys that hold a text, any case; the closest first."""
        return await self._call(answers.FoundKeys, "find_keys", query=query, table=table, limit=limit)

    async def compare(
        self,
        table: str,
        keys: Sequence[str],
        *,
        field: str | None = None,
        span_ms: int = 3_600_000,
        max_points: int = 12,
        max_staleness_ms: int | None = None,
    ) -> answers.Comparison:
        """One number of several keys over the same span."""
        return await self._call(
            answers.Comparison,
            "compare",
            table=table,
            keys=list(keys),
            field=field,
            span_ms=span_ms,
            max_points=max_points,
            max_staleness_ms=max_staleness_ms,
        )

    async def get_signals(
        self,
        keys: Sequence[str] | None = None,
        *,
        least_abs_z: float = 0.0,
        since_ms: int | None = None,
        limit: int = 20,
        max_staleness_ms: int | None = None,
    ) -> answers.Signals:
        """The newest anomaly of each key, the newest first."""
        return await self._call(
            answers.Signals,
            "get_signals",
            keys=keys,
            least_abs_z=least_abs_z,
            since_ms=since_ms,
            limit=limit,
            max_staleness_ms=max_staleness_ms,
        )

    async def get_feed_health(self, venue: str | None = None) -> answers.FeedHealth:
        """Whether the feeds are connected, and their gaps."""
        return await self._call(answers.FeedHealth, "get_feed_health", venue=venue)

    async def summarize_state(
        self,
        *,
        tables: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        budget_tokens: int = 800,
        style: Literal["text", "json"] = "text",
        cursor: str | None = None,
        max_staleness_ms: int | None = None,
    ) -> answers.Summary:
        """A summary within a budget of tokens; with the cursor of an earlier one only what has changed since."""
        return await self._call(
            answers.Summary,
            "summarize_state",
            tables=tables,
            keys=keys,
            budget_tokens=budget_tokens,
            style=style,
            cursor=cursor,
            max_staleness_ms=max_staleness_ms,
        )

    async def wait_for(
        self, table: str, key: str, condition: str, *, timeout_ms: int = 30_000, max_staleness_ms: int | None = None
    ) -> answers.Waited:
        """Wait until a condition such as `close > 70000` holds; `held` says whether it did before the deadline."""
        return await self._call(
            answers.Waited,
            "wait_for",
            table=table,
            key=key,
            condition=condition,
            timeout_ms=timeout_ms,
            max_staleness_ms=max_staleness_ms,
        )

    # --- more than single answers ----------------------------------------------------------------------------------------

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        """A page of a table's keys in order, and the cursor of the next page or None."""
        query = {"prefix": prefix or None, "limit": limit, "cursor": cursor}
        given = urlencode({name: value for name, value in query.items() if value is not None})
        page = await self._http.request("GET", f"/v1/tables/{quote(table, safe='')}/keys?{given}")
        try:
            return list(page["items"]), page["cursor"]
        except (KeyError, TypeError) as problem:
            raise UnexpectedAnswerError("keys", problem) from None

    async def changes(
        self, table: str, key: str | None = None, *, prefix: str | None = None, condition: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """What is there as events of kind `snapshot`, then every change as one of kind `change`, for ever.

        A lost stream is opened again after a growing pause and goes on from the last event's id: with the values that have
        changed since, as `change`, or where that cannot be told with snapshots, whose data say why in `resumed`. In between
        values may have been replaced, but what stands is always told. Where the worker refuses for good, or fails in the
        middle of a stream and not only for now (its partitions move), its error is raised.

        Args:
            table: what to follow.
            key: only this key.
            prefix: only keys that begin so; not together with `key`.
            condition: only values for which it holds, such as `close > 70000`. That it ceases to hold is not told.
        """
        path = f"/v1/tables/{quote(table, safe='')}/changes"
        wanted = {"key": key, "prefix": prefix, "condition": condition}
        if given := urlencode({name: value for name, value in wanted.items() if value is not None}):
            path += "?" + given
        bound_s, last_id = _RECONNECT_S, None
        while True:
            try:
                async with self._http.events(path, last_id) as events:
                    async for event in events:
                        if event.kind in ("snapshot", "change"):
                            bound_s, last_id = _RECONNECT_S, event.id or last_id
                            yield event
                        elif event.kind == "position":
                            last_id = event.id or last_id
                        elif event.kind == "problem":
                            raise remote_problem(event.data)
            except QueryError as problem:
                if problem.status not in RETRIED:
                    raise
            await asyncio.sleep(random.uniform(bound_s / 2, bound_s))
            bound_s = min(_RECONNECT_MAX_S, bound_s * 2)
