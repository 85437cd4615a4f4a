"""Faust's assignor with a sticky assignment: what members own, and what lies on their disks, stays where it is.

Faust's own keeps previous owners as well, but cuts every member down to the least share and deals the rest out anew, and
it knows nothing of what a worker that comes back still has on its disk. Private members of Faust; see
tests/integration/test_engine_contract.py.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor

from streamapp.engine.spread import Claim, spread

if TYPE_CHECKING:
    from streamapp.app import StreamApp

Distribution = Mapping[str, Mapping[str, Sequence[int]]]


class WorkerMetadata(ClientMetadata, serializer="json", include_metadata=False, namespace="@WorkerMetadata"):  # type: ignore[misc,call-arg]
    """What members tell the leader, and the leader them.

    Attributes:
        held: topic -> [partition, ms of the last write] of state on the member's disk.
        standby_distribution: URL -> topic -> partitions that the worker there keeps a copy of.
    """

    held: Mapping[str, list[list[int]]] = None  # type: ignore[assignment]
    standby_distribution: Mapping[str, Mapping[str, list[int]]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held is None:
            self.held = {}
        if self.standby_distribution is None:
            self.standby_distribution = {}


class StickyAssignor(PartitionAssignor):  # type: ignore[misc]
    """Assigns all topics with one number of partitions and the same subscribers together: partition n to one member."""

    app: "StreamApp"

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas)
        self.outdated = False  # the assignment speaks of this member as it was before it came back
        self.standby_distribution: Distribution = {}

    @property
    def _metadata(self) -> WorkerMetadata:
        # part of what every member sends when it joins
        return WorkerMetadata(
            assignment=self._assignment,
            url=str(self._url),
            changelog_distribution={},
            external_topic_distribution={},
            topic_groups={},
            held=self.app.engine.held_on_disk(),
        )

    @classmethod
    def _get_client_metadata(cls, metadata: Any) -> WorkerMetadata:
        found: WorkerMetadata = WorkerMetadata.loads(metadata.user_data)
        return found

    def on_assignment(self, assignment: Any) -> None:
        """Take note of what the leader decided."""
        metadata: WorkerMetadata = WorkerMetadata.loads(self._decompress(assignment.user_data))
        self._assignment = metadata.assignment
        self._topic_groups = dict(metadata.topic_groups)
        self._active_tps = self._assignment.active_tps
        self._standby_tps = self._assignment.standby_tps
        self.changelog_distribution = metadata.changelog_distribution
        self.external_topic_distribution = metadata.external_topic_distribution
        self.standby_distribution = metadata.standby_distribution
        # a member that comes back under its identity gets its old assignment; the others would look for it at the old URL
        self.outdated = metadata.url != str(self._url)

    def forget(self) -> None:
        """What was assigned is another's by now: do not claim it when joining again."""
        self._assignment = ClientAssignment(actives={}, standbys={})

    def _perform_assignment(self, cluster: Any, member_metadata: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        clients = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        self._update_member_urls(clients)
        assignments = {member: ClientAssignment(actives={}, standbys={}) for member in member_metadata}
        groups: dict[tuple[int, tuple[str, ...]], list[str]] = {}
        for topic in sorted({topic for metadata in member_metadata.values() for topic in metadata.subscription}):
            count = len(cluster.partitions_for_topic(topic) or ())
            members = tuple(sorted(m for m, metadata in member_metadata.items() if topic in metadata.subscription))
            if count:
                groups.setdefault((count, members), []).append(topic)
        group_of: dict[str, int] = {}
        load = dict.fromkeys(member_metadata, 0)
        for number, ((count, members), topics) in enumerate(sorted(groups.items(), reverse=True)):
            claims = {member: _claim(clients[member], topics, count) for member in members}
            for member, share in spread(count, claims, standbys=self.app.settings.standby_replicas, load=load).items():
                load[member] += len(share.active)
                for topic in topics:
                    group_of[topic] = number
                    assignments[member].actives[topic] = sorted(share.active)
                    assignments[member].standbys[topic] = sorted(share.standby)
        owners = self._by_url({member: found.actives for member, found in assignments.items()})
        copies = self._by_url({member: found.standbys for member, found in assignments.items()})
        return {
            member: self._answer(found, self._member_urls[member], owners, copies, group_of)
            for member, found in assignments.items()
        }

    def _by_url(self, found: Mapping[str, Mapping[str, list[int]]]) -> dict[str, dict[str, list[int]]]:
        merged: dict[str, dict[str, list[int]]] = {}
        for member, topics in found.items():
            # the member that a restarted worker was before may still be in the group, at the same URL
            at = merged.setdefault(self._member_urls[member], {})
            for topic, partitions in topics.items():
                at[topic] = sorted({*at.get(topic, ()), *partitions})
        return merged

    def _answer(
        self, assignment: ClientAssignment, url: str, owners: Distribution, copies: Distribution, groups: dict[str, int]
    ) -> Any:
        metadata = WorkerMetadata(
            assignment=assignment,
            url=url,
            changelog_distribution={},
            external_topic_distribution=owners,
            topic_groups=groups,
            standby_distribution=copies,
        )
        return ConsumerProtocolMemberAssignment(
            self.version, sorted(assignment.actives.items()), self._compress(metadata.dumps())
        )


def _claim(client: WorkerMetadata, topics: Sequence[str], count: int) -> Claim:
    owned = {partition for topic in topics for partition in client.assignment.actives.get(topic, ())}
    held: dict[int, int] = {}
    for topic in topics:
        for partition, written_ms in client.held.get(topic, ()):
            held[partition] = max(held.get(partition, 0), written_ms)
    everywhere = range(count)
    return Claim(
        frozenset(partition for partition in owned if partition in everywhere),
        {partition: written_ms for partition, written_ms in held.items() if partition in everywhere},
    )
