"""Membership of the consumer group: an identity that outlives the process, and a lease on what was assigned.

With a `group.instance.id` a worker that comes back within the session time-out is the same member: it gets its partitions
without a rebalance. aiokafka 0.14 joins with one, but its heartbeats and commits do not name it, so a member that was
replaced takes itself for an unknown one, joins again and replaces its replacement, for ever; and it never leaves. Here the
later versions of these requests are spoken, so that the broker can tell:

- a member whose identity another process has taken is *fenced*, and stops;
- a planned stop leaves the group, and the others take over at once.

A client of aiokafka has one time-out for all requests. A join is answered at the end of the rebalance, so it would have to
be longer than one; and with it a broker that takes connections and answers nothing (it hangs, or is starting) would keep
heartbeats waiting past the session, and all other connections behind its own. So joins alone wait so long here.

Everything that the coordinator sends passes through `_send_req`; that is where requests are replaced, and where the
answers renew the lease. Private members of aiokafka; see tests/integration/test_engine_contract.py.
"""

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiokafka import errors
from aiokafka.client import ConnectionGroup
from aiokafka.consumer import consumer as consumer_module
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from streamapp.clock import Clock
from streamapp.engine.group_requests import StaticCommit, StaticHeartbeat, StaticLeave
from streamapp.engine.lease import Lease
from streamapp.errors import FencedError

log = logging.getLogger(__name__)

_REBALANCE_IN_PROGRESS = 27
_FENCED_INSTANCE_ID = 82
_IDENTITY_FILE = "group-member"


class MemberCoordinator(GroupCoordinator):  # type: ignore[misc]
    """aiokafka's coordinator of a consumer group; as it is until `watch` is called."""

    _lease: Lease | None = None
    _clock: Clock
    _on_fenced: Callable[[FencedError], None]
    _join_timeout_s: float

    def watch(
        self, lease: Lease, clock: Clock, on_fenced: Callable[[FencedError], None], *, join_timeout_s: float
    ) -> None:
        """Keep this lease, and tell when another process has taken this one's identity (in the consumer's thread).

        Args:
            lease: renewed by the group's answers.
            clock: its monotonic time counts.
            on_fenced: told once another process is this member.
            join_timeout_s: bound on a request that the end of a rebalance answers; others have the client's.
        """
        lease.attach()
        self._join_timeout_s = join_timeout_s
        self._clock = clock
        self._on_fenced = on_fenced
        self._lease = lease

    async def _send_req(self, request: Any) -> Any:
        lease = self._lease
        if lease is None:
            return await super()._send_req(request)
        if isinstance(request, OffsetCommitRequest) and self.generation < 0:
            # without a generation the broker would take it for the commit of a consumer outside of any group
            raise errors.IllegalGenerationError(self.group_id)
        self._set_patience(request)
        sent_ms = self._clock.monotonic_ms()
        response = await super()._send_req(self._named(request))
        codes = _error_codes(response)
        if _FENCED_INSTANCE_ID in codes:
            lease.lapse()
            self._on_fenced(
                FencedError(
                    f"another worker has joined the group {self.group_id} as {self._group_instance_id!r}, so this one must "
                    "stop; give each worker its own data directory, or its own STREAMAPP_GROUP_INSTANCE_ID"
                )
            )
        elif isinstance(request, (HeartbeatRequest, SyncGroupRequest)):
            if codes == {0}:
                lease.renew(sent_ms)
            elif codes == {_REBALANCE_IN_PROGRESS} and isinstance(request, HeartbeatRequest):
                lease.renew(sent_ms, rebalancing=True)
        return response

    def _set_patience(self, request: Any) -> None:
        # private members: aiokafka has no time-out of a request. A connection reads its own when it sends, and from
        # here to there nothing else runs
        connection = self._client._conns.get((self.coordinator_id, ConnectionGroup.COORDINATION))
        if connection is not None:
            joins = isinstance(request, (JoinGroupRequest, SyncGroupRequest))
            connection._request_timeout = self._join_timeout_s if joins else self._client._request_timeout_ms / 1000

    def _named(self, request: Any) -> Any:
        """The same request in a version that names the instance, where this member has one."""
        instance = self._group_instance_id
        if instance is None:
            return request
        if isinstance(request, HeartbeatRequest):
            return StaticHeartbeat(self.group_id, self.generation, self.member_id, instance)
        if isinstance(request, OffsetCommitRequest):
            topics = [
                (topic, [(partition, offset, -1, metadata) for partition, offset, metadata in partitions])
                for topic, partitions in request._topics
            ]
            return StaticCommit(self.group_id, self.generation, self.member_id, instance, topics)
        return request

    def reset_generation(self) -> None:
        """Called where the broker does not know this member, or its generation, any more."""
        if self._lease is not None:
            self._lease.lapse()
            for assignor in self._assignors:
                assignor.forget()
        super().reset_generation()

    async def _on_join_complete(self, *details: Any) -> None:
        if self._lease is not None:
            self._lease.join()
        await super()._on_join_complete(*details)
        if any(getattr(assignor, "outdated", False) for assignor in self._assignors):
            self.request_rejoin()

    async def _maybe_leave_group(self) -> None:
        instance = self._group_instance_id
        if instance is not None and self.generation > 0:
            try:
                await self._send_req(StaticLeave(self.group_id, [(self.member_id, instance)]))
            except errors.KafkaError as problem:
                log.warning(
                    "could not leave the group %s, the others will wait for the session: %s", self.group_id, problem
                )
            else:
                log.info("left the group %s", self.group_id)
        await super()._maybe_leave_group()


# aiokafka has no way to choose the class; consumers that are not watched go the stock way
consumer_module.GroupCoordinator = MemberCoordinator


def _error_codes(response: Any) -> set[int]:
    code = getattr(response, "error_code", None)
    if code is not None:
        return {code}
    return {code for _, partitions in response.topics for _, code in partitions}


def instance_id(directory: Path, told: Iterable[str]) -> str:
    """The identity of the worker that keeps its state in this directory.

    It is drawn once and kept there. What the member tells the group about itself is part of it: a member that comes back
    under its identity gets its old assignment without anybody looking, which is right only where that has not changed.

    Args:
        directory: the worker's own, locked by it.
        told: the worker's URL and the topics that it subscribes to.
    """
    path = directory / _IDENTITY_FILE
    drawn = ""
    with contextlib.suppress(FileNotFoundError):
        drawn = path.read_text().strip()
    if not drawn:
        drawn = secrets.token_hex(8)
        fresh = path.with_suffix(".new")
        fresh.write_text(drawn + "\n")
        os.replace(fresh, path)
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]
    return f"{drawn}-{digest}"
