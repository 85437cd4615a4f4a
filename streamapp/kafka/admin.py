"""Questions and changes to a cluster: topics, offsets, groups.

Every call runs in a thread and is bounded by `kafka_request_timeout_ms`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import KafkaError as ClientError
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from streamapp.clock import Clock, SystemClock
from streamapp.errors import BrokerUnavailableError, KafkaError, TopicMismatchError
from streamapp.kafka.config import confluent_config
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

T = TypeVar("T")
TopicPartitionKey = tuple[str, int]

#: between two looks at whether a topic has become visible (or invisible) on every broker
_VISIBLE_POLL_S = 0.02

_UNREACHABLE = frozenset(
    {
        ClientError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's names for its local errors begin with an underscore
        ClientError._TRANSPORT,  # noqa: SLF001
        ClientError._TIMED_OUT,  # noqa: SLF001
        ClientError._RESOLVE,  # noqa: SLF001
    }
)

#: a cluster says these while it elects a leader or loads its groups; asking again is all that helps
_PASSING = frozenset(
    {
        ClientError.COORDINATOR_LOAD_IN_PROGRESS,
        ClientError.COORDINATOR_NOT_AVAILABLE,
        ClientError.NOT_COORDINATOR,
        ClientError.LEADER_NOT_AVAILABLE,
        ClientError.NOT_LEADER_FOR_PARTITION,
        ClientError.FENCED_LEADER_EPOCH,
        ClientError.UNKNOWN_LEADER_EPOCH,
        ClientError._NOENT,  # noqa: SLF001 - what ListOffsets says where no partition of a new topic has a leader yet
        ClientError.OFFSET_NOT_AVAILABLE,
        ClientError._DESTROY_BROKER,  # noqa: SLF001 - the client let go of the broker that it had asked, in an election
    }
)
#: of these, the ones that say that this client remembers another leader
_OUTDATED = frozenset(
    {ClientError.NOT_LEADER_FOR_PARTITION, ClientError.FENCED_LEADER_EPOCH, ClientError.UNKNOWN_LEADER_EPOCH}
)
_PASSING_POLL_S = 0.1
#: a client that has been told of what passes, or of nothing at all, for so long is made anew
_RENEW_MS = 2_000


@dataclass(frozen=True, slots=True)
class Commit:
    """A consumer group's position on a partition, and the text that was committed with it (empty without any)."""

    offset: int
    metadata: str = ""


def _metadata(entry: TopicPartition) -> str:
    """What was committed with a position.

    The client takes it for text that ends with a zero byte, which it does only where it was committed so; else what follows
    in memory comes with it, and that need not be text.
    """
    try:
        return entry.metadata or ""
    except UnicodeDecodeError:
        return ""


@dataclass(frozen=True)
class TopicDescription:
    """One topic as the cluster has it.

    Attributes:
        name: the topic's name.
        topic_id: the identity that a re-created topic does not share with its predecessor.
        partitions: how many.
        replication: replicas of the first partition.
        leaderless: partitions that nobody leads right now.
        config: every topic setting, defaults included, in Kafka's names.
    """

    name: str
    topic_id: str
    partitions: int
    replication: int
    leaderless: int = 0
    config: Mapping[str, str] = field(default_factory=dict)


class KafkaAdmin:
    """An asynchronous face of librdkafka's admin client.

    Args:
        settings: brokers, security, time-outs.
        clock: bounds the waiting for topics to appear.
        patience_ms: how long a cluster is asked again that cannot answer for the moment: an election, a restart, a
            partition without a leader. None: as long as one request may take, and one that cannot be reached is not.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None, *, patience_ms: int | None = None) -> None:
        self._config = {**confluent_config(settings), "client.id": "streamapp-admin"}
        self._brokers = settings.kafka_brokers
        self._timeout_ms = settings.kafka_request_timeout_ms
        self._patience_ms = self._timeout_ms if patience_ms is None else patience_ms
        self._passing = (_PassingError,) if patience_ms is None else (_PassingError, BrokerUnavailableError)
        self._clock = clock or SystemClock()
        self._client: AdminClient | None = None
        self._failing_ms: int | None = None  # since when it has been told of nothing but what passes, or nothing

    async def cluster_id(self) -> str:
        """The cluster's identity; another cluster, or one that was formatted anew, has another."""
        description = await self._ask(lambda client, t: client.describe_cluster(request_timeout=t))
        return str(description.cluster_id)

    async def broker_count(self) -> int:
        """How many brokers the cluster has right now."""
        description = await self._ask(lambda client, t: client.describe_cluster(request_timeout=t))
        return len(description.nodes)

    async def describe_topics(
        self, names: Iterable[str], *, with_config: bool = True
    ) -> dict[str, TopicDescription | None]:
        """What the cluster has under these names; None where there is no such topic.

        Args:
            names: topics to look up.
            with_config: also ask for the topics' settings, at the price of a second request.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        found = await self._ask_each(
            lambda client, t: client.describe_topics(TopicCollection(wanted), request_timeout=t),
            absent=ClientError.UNKNOWN_TOPIC_OR_PART,
        )
        present = [name for name in wanted if found[name] is not None]
        configs = await self._topic_configs(present) if with_config and present else {}
        described: dict[str, TopicDescription | None] = dict.fromkeys(wanted)
        for name in present:
            topic = found[name]
            described[name] = TopicDescription(
                name=name,
                topic_id=str(topic.topic_id),
                partitions=len(topic.partitions),
                replication=len(topic.partitions[0].replicas) if topic.partitions else 0,
                leaderless=sum(1 for partition in topic.partitions if partition.leader is None),
                config=configs.get(name, {}),
            )
        return described

    async def ensure_topics(self, specs: Sequence[TopicSpec], *, as_found: bool = False) -> dict[str, TopicDescription]:
        """Create what is missing, and return once every topic is there with a leader for each partition.

        Settings of an existing topic are left alone, apart from a check of what would break the application: its number
        of partitions, and whether it is compacted.

        Args:
            specs: the topics; what is created is made so.
            as_found: topics that exist are somebody else's: neither checked, nor waited for.

        Returns:
            All of them by name, as the cluster told of them when they were there. Not to be asked for again: a broker
            may not have heard yet of what another one has just created.

        Raises:
            TopicMismatchError: a topic exists, but not as declared.
            KafkaError: it could not be created, or did not become visible in time.
        """
        if not specs:
            return {}
        existing = await self.describe_topics([spec.name for spec in specs], with_config=not as_found)
        found = {name: topic for name, topic in existing.items() if topic is not None}
        if not as_found:
            for spec in specs:
                if spec.name in found:
                    _check_topic(spec, found[spec.name])
        missing = [spec for spec in specs if spec.name not in found]
        if missing:
            await self._create(missing)
        awaited = missing if as_found else specs
        return found | await self._until_visible({spec.name: spec for spec in awaited}, check=not as_found)

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics, and return once the cluster no longer knows them; absent ones are not an error."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return
        await self._ask_each(
            lambda client, t: client.delete_topics(wanted, request_timeout=t, operation_timeout=t),
            absent=ClientError.UNKNOWN_TOPIC_OR_PART,
        )

        async def gone() -> bool:
            return not any((await self.describe_topics(wanted, with_config=False)).values())

        await self._until(gone, f"topics {', '.join(wanted)} to be gone")

    async def end_offsets(self, tps: Iterable[TopicPartitionKey]) -> dict[TopicPartitionKey, int]:
        """The offset that the next record of each (topic, partition) will get."""
        return await self._list_offsets(tps, OffsetSpec.latest())

    async def begin_offsets(self, tps: Iterable[TopicPartitionKey]) -> dict[TopicPartitionKey, int]:
        """The offset of the oldest record that each (topic, partition) still has."""
        return await self._list_offsets(tps, OffsetSpec.earliest())

    async def committed(self, group: str, tps: Iterable[TopicPartitionKey]) -> dict[TopicPartitionKey, int | None]:
        """The offset from which a group will go on in each (topic, partition); None where it never committed."""
        found = await self.commits(group, tps)
        return {place: None if commit is None else commit.offset for place, commit in found.items()}

    async def commits(self, group: str, tps: Iterable[TopicPartitionKey]) -> dict[TopicPartitionKey, Commit | None]:
        """The same with what the group's member has noted beside each offset."""
        wanted = [(topic, partition) for topic, partition in tps]
        if not wanted:
            return {}
        return await asyncio.to_thread(self._commits_sync, group, wanted)

    async def group_members(self, group: str) -> int:
        """How many members a consumer group has right now; 0 where there is no such group."""
        answers = await self._ask_each(
            lambda client, t: client.describe_consumer_groups([group], request_timeout=t),
            absent=ClientError.GROUP_ID_NOT_FOUND,
        )
        return 0 if answers[group] is None else len(answers[group].members)

    # --- how it is done ----------------------------------------------------------------------------------------------

    async def _create(self, specs: Sequence[TopicSpec]) -> None:
        topics = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=spec.replication,
                config=spec.full_config(),
            )
            for spec in specs
        ]
        await self._ask_each(
            # another process may have been quicker, which is as good
            lambda client, t: client.create_topics(topics, request_timeout=t, operation_timeout=t),
            absent=ClientError.TOPIC_ALREADY_EXISTS,
        )

    async def _until_visible(self, specs: Mapping[str, TopicSpec], *, check: bool) -> dict[str, TopicDescription]:
        seen: dict[str, TopicDescription] = {}

        async def visible() -> bool:
            for name, topic in (await self.describe_topics(specs.keys() - seen, with_config=False)).items():
                if topic is None or topic.leaderless:
                    continue
                if check and topic.partitions != specs[name].partitions:
                    _check_topic(specs[name], topic)
                seen[name] = topic
            return len(seen) == len(specs)

        await self._until(visible, f"topics {', '.join(specs)} to have a leader for every partition")
        return seen

    async def _until(self, condition: Callable[[], Any], what: str) -> None:
        deadline_ms = self._clock.monotonic_ms() + self._timeout_ms
        while not await condition():
            if self._clock.monotonic_ms() >= deadline_ms:
                raise KafkaError(f"expected {what} within {self._timeout_ms} ms; look into the broker's log")
            await asyncio.sleep(_VISIBLE_POLL_S)

    async def _topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = await self._ask_each(
            lambda client, t: client.describe_configs(resources, request_timeout=t),
            absent=ClientError.UNKNOWN_TOPIC_OR_PART,
        )
        return {
            resource.name: {entry.name: entry.value for entry in config.values() if entry.value is not None}
            for resource, config in answers.items()
            if config is not None
        }

    async def _list_offsets(self, tps: Iterable[TopicPartitionKey], spec: OffsetSpec) -> dict[TopicPartitionKey, int]:
        request = {TopicPartition(topic, partition): spec for topic, partition in tps}
        if not request:
            return {}
        answers = await self._ask_each(
            lambda client, t: client.list_offsets(request, request_timeout=t),
            # a topic that another broker has just created, or that a restarted one has not read about yet
            passing=ClientError.UNKNOWN_TOPIC_OR_PART,
            # what librdkafka 2.16 tells of partitions whose leader did not answer in time, without an error
            untold=lambda answer: answer.offset < 0,
        )
        return {(tp.topic, tp.partition): answer.offset for tp, answer in answers.items()}

    def _commits_sync(self, group: str, tps: Sequence[TopicPartitionKey]) -> dict[TopicPartitionKey, Commit | None]:
        # Not by the admin client: librdkafka 2.16 dereferences null (and takes the process along) when a coordinator
        # answers its ListConsumerGroupOffsets with "not coordinator", as one does that is still loading. A consumer
        # that never subscribes asks the same, waits for the coordinator, and does not become a member.
        try:
            consumer = Consumer({**self._config, "group.id": group, "enable.auto.commit": False}, logger=log)
            try:
                answers = consumer.committed([TopicPartition(*tp) for tp in tps], timeout=self._timeout_ms / 1000)
            finally:
                consumer.close()
        except KafkaException as problem:
            raise self._failure(problem) from problem
        return {
            (entry.topic, entry.partition): Commit(entry.offset, _metadata(entry)) if entry.offset >= 0 else None
            for entry in answers
        }

    async def _ask(self, request: Callable[[AdminClient, float], "Future[Any]"]) -> Any:
        answers = await self._ask_each(lambda client, t: {"": request(client, t)})
        return answers[""]

    async def _ask_each(
        self,
        request: Callable[[AdminClient, float], Mapping[T, "Future[Any]"]],
        absent: int | None = None,
        passing: int | None = None,
        untold: Callable[[Any], bool] = lambda _answer: False,
    ) -> dict[T, Any]:
        """Send one request in a thread and collect its answers.

        Args:
            request: sends it.
            absent: the error code that means None.
            passing: an error code after which it is asked again, beside those that are always worth it.
            untold: whether an answer is none, after which it is asked again.
        """
        deadline_ms = self._clock.monotonic_ms() + self._patience_ms
        while True:
            try:
                return await asyncio.to_thread(self._ask_each_sync, request, absent, passing, untold)
            except self._passing as problem:
                if self._clock.monotonic_ms() >= deadline_ms:
                    if isinstance(problem, _PassingError):
                        raise KafkaError(str(problem)) from problem.__cause__
                    raise
            await asyncio.sleep(_PASSING_POLL_S * random.uniform(0.5, 1.5))

    def _ask_each_sync(
        self,
        request: Callable[[AdminClient, float], Mapping[T, "Future[Any]"]],
        absent: int | None,
        passing: int | None,
        untold: Callable[[Any], bool],
    ) -> dict[T, Any]:
        client = self._client
        if client is None:
            client = self._client = AdminClient(self._config, logger=log)
        timeout_s = self._timeout_ms / 1000
        answers: dict[T, Any] = {}
        began_ms = self._clock.monotonic_ms()
        try:
            for name, future in request(client, timeout_s).items():
                try:
                    # librdkafka keeps the time-out; the margin only guards against an answer that never comes
                    answers[name] = future.result(timeout_s + 5)
                except KafkaException as problem:
                    if absent is None or problem.args[0].code() != absent:
                        raise
                    answers[name] = None
            if unknown := [name for name, answer in answers.items() if untold(answer)]:
                raise _PassingError(
                    f"Kafka at {self._brokers} did not tell of {unknown[0]} within {self._timeout_ms} ms"
                )
        except _PassingError as problem:
            self._look_at_client(client, problem, began_ms)
            raise
        except TimeoutError:
            failure: KafkaError = self._unavailable("no answer at all")
            self._look_at_client(client, failure, began_ms)
            raise failure from None
        except KafkaException as problem:
            failure = self._failure(problem, passing)
            self._look_at_client(client, failure, began_ms, outdated=problem.args[0].code() in _OUTDATED)
            raise failure from problem
        else:
            self._failing_ms = None
        finally:
            # librdkafka's log lines wait in a queue until somebody fetches them
            client.poll(0)
        return answers

    def _look_at_client(
        self, client: AdminClient, failure: KafkaError, began_ms: int, *, outdated: bool = False
    ) -> None:
        """Let go of a client that is not expected to do better the next time.

        librdkafka goes on asking with the leaders, or without the topics, that it remembers, for minutes; one whose question
        was not answered at all may be waiting for a broker that is back by now.
        """
        if isinstance(failure, _PassingError | BrokerUnavailableError):
            if self._failing_ms is None:
                self._failing_ms = began_ms
            outdated = outdated or self._clock.monotonic_ms() - self._failing_ms >= _RENEW_MS
        if outdated and self._client is client:  # else another thread has done so
            self._client, self._failing_ms = None, None

    def _failure(self, problem: KafkaException, passing: int | None = None) -> KafkaError:
        error = problem.args[0]
        if error.code() in _UNREACHABLE:
            return self._unavailable(error.str())
        kind = _PassingError if error.code() in _PASSING or error.code() == passing else KafkaError
        return kind(f"Kafka at {self._brokers} refused: {error.str()}")

    def _unavailable(self, detail: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            self._brokers,
            f"expected Kafka to answer at {self._brokers} within {self._timeout_ms} ms, got: {detail}; "
            "start one with `streamapp kafka`, or set STREAMAPP_KAFKA_BROKERS",
        )


class _PassingError(KafkaError):
    """The cluster is not ready for this question yet."""


def _check_topic(spec: TopicSpec, topic: TopicDescription) -> None:
    if topic.partitions != spec.partitions:
        raise TopicMismatchError(
            spec.name,
            f"topic {spec.name}: expected {spec.partitions} partitions, the cluster has {topic.partitions}; "
            f"either declare {topic.partitions} (STREAMAPP_PARTITIONS for the built-in topics) "
            "or move the records to a new topic: keys would change their partition",
        )
    policy = topic.config.get("cleanup.policy")
    if policy is not None and set(policy.split(",")) != set(spec.cleanup.split(",")):
        raise TopicMismatchError(
            spec.name,
            f"topic {spec.name}: expected cleanup.policy={spec.cleanup}, the cluster has {policy}; "
            f"records would be lost or kept for ever: set it with `kafka-configs --alter --topic {spec.name} "
            f"--add-config cleanup.policy={spec.cleanup}`",
        )
