from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException

from streamapp.clock import ManualClock
from streamapp.errors import BrokerUnavailableError, KafkaError, TopicMismatchError
from streamapp.kafka.admin import KafkaAdmin, TopicDescription, _check_topic
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings


def description(partitions=4, cleanup="delete"):
    return TopicDescription("t", "id", partitions, 1, config={"cleanup.policy": cleanup})


def test_check_topic_with_other_partitions_says_both_numbers():
    with pytest.raises(TopicMismatchError, match=r"expected 8 partitions.* has 4.*declare 4") as caught:
        _check_topic(TopicSpec("t", 8), description(partitions=4))
    assert caught.value.topic == "t"


def test_check_topic_that_should_be_compacted_is_refused():
    with pytest.raises(TopicMismatchError, match=r"cleanup\.policy=compact"):
        _check_topic(TopicSpec("t", 4, cleanup="compact"), description())


def test_check_topic_ignores_the_order_of_policies():
    _check_topic(TopicSpec("t", 4, cleanup="compact,delete"), description(cleanup="delete,compact"))


async def test_admin_without_a_broker_says_what_to_do(free_port):
    admin = KafkaAdmin(Settings(kafka_brokers=f"127.0.0.1:{free_port}", kafka_request_timeout_ms=300))
    with pytest.raises(BrokerUnavailableError, match="streamapp kafka"):
        await admin.cluster_id()


@pytest.mark.parametrize(
    "code",
    [ClientError.UNKNOWN_TOPIC_OR_PART, ClientError._NOENT, ClientError._DESTROY_BROKER],
    ids=["unknown", "leaderless", "let go of"],
)
async def test_end_offsets_of_a_topic_that_is_not_known_everywhere_yet_are_asked_for_again(code):
    admin = KafkaAdmin(Settings(kafka_request_timeout_ms=5_000))
    asked = []

    def list_offsets(request, **_):
        asked.append(request)
        answers = {tp: Future() for tp in request}
        for answer in answers.values():
            if len(asked) < 3:
                answer.set_exception(KafkaException(ClientError(code)))
            else:
                answer.set_result(SimpleNamespace(offset=7))
        return answers

    admin._client = SimpleNamespace(list_offsets=list_offsets, poll=lambda timeout: None)
    assert await admin.end_offsets([("t", 0)]) == {("t", 0): 7}
    assert len(asked) == 3


async def test_end_offsets_that_are_not_told_are_asked_for_again_and_never_taken_for_an_end():
    admin = KafkaAdmin(Settings(kafka_request_timeout_ms=300))
    told = [-1001, -1001, 7]

    def list_offsets(request, **_):
        answers = {tp: Future() for tp in request}
        for answer in answers.values():
            answer.set_result(SimpleNamespace(offset=told.pop(0) if told else -1001))
        return answers

    admin._client = SimpleNamespace(list_offsets=list_offsets, poll=lambda timeout: None)
    assert await admin.end_offsets([("t", 0)]) == {("t", 0): 7}
    with pytest.raises(KafkaError, match="did not tell of"):
        await admin.end_offsets([("t", 0)])


@pytest.mark.parametrize("patience_ms", [None, 5_000])
async def test_cluster_that_cannot_be_reached_is_asked_again_by_the_patient(patience_ms):
    admin = KafkaAdmin(Settings(kafka_request_timeout_ms=200), patience_ms=patience_ms)
    asked = []

    def list_offsets(request, **_):
        asked.append(request)
        answers = {tp: Future() for tp in request}
        for answer in answers.values():
            if len(asked) < 3:
                answer.set_exception(KafkaException(ClientError(ClientError._TIMED_OUT)))
            else:
                answer.set_result(SimpleNamespace(offset=7))
        return answers

    admin._client = SimpleNamespace(list_offsets=list_offsets, poll=lambda timeout: None)
    if patience_ms is None:
        with pytest.raises(BrokerUnavailableError):
            await admin.end_offsets([("t", 0)])
        assert len(asked) == 1
    else:
        assert await admin.end_offsets([("t", 0)]) == {("t", 0): 7}


@pytest.mark.parametrize(
    ("code", "after_ms"),
    # another leader is told at once; what a client does not know may come, or may have been missed
    [
        (ClientError.FENCED_LEADER_EPOCH, 0),
        (ClientError.UNKNOWN_TOPIC_OR_PART, 2_000),
        (ClientError._NOENT, 2_000),
        # a request that nobody answers takes its whole time
        (ClientError._TIMED_OUT, 2_000),
        (None, 2_000),
    ],
)
async def test_admin_that_remembers_what_was_asks_with_a_new_client(monkeypatch, code, after_ms):
    made, asked = [], []
    clock = ManualClock()

    class Client:
        def __init__(self, *_, **__):
            made.append(self)

        def list_offsets(self, request, **_):
            answers = {tp: Future() for tp in request}
            asked.append(clock.monotonic_ms())
            clock.advance(700)
            for answer in answers.values():
                if len(made) == 1:
                    answer.set_exception(TimeoutError() if code is None else KafkaException(ClientError(code)))
                else:
                    answer.set_result(SimpleNamespace(offset=7))
            return answers

        def poll(self, _):
            pass

    monkeypatch.setattr("streamapp.kafka.admin.AdminClient", Client)
    begun_ms = clock.monotonic_ms()
    admin = KafkaAdmin(Settings(kafka_request_timeout_ms=5_000), clock, patience_ms=20_000)
    assert await admin.end_offsets([("t", 0)]) == {("t", 0): 7}
    assert len(made) == 2
    assert asked[-1] - begun_ms >= after_ms


class SlowlyTold(KafkaAdmin):
    """A cluster whose brokers take turns to answer: the k-th topic created is unknown again in answer k + 1 to come."""

    def __init__(self, *topics):
        super().__init__(Settings(kafka_request_timeout_ms=5_000))
        self.topics = {topic.name: topic for topic in topics}
        self.unknown_in = {}
        self.asked = []

    async def describe_topics(self, names, *, with_config=True):
        self.asked.append(sorted(names))
        return {name: self.topics.get(name) if self.unknown_in.get(name) != len(self.asked) else None for name in names}

    async def _create(self, specs):
        for spec in specs:
            self.topics[spec.name] = TopicDescription(spec.name, f"id-{spec.name}", spec.partitions, spec.replication)
            self.unknown_in[spec.name] = len(self.asked) + 1 + len(self.unknown_in)


async def test_ensured_topics_are_told_as_they_were_seen_once_and_not_asked_for_again():
    admin = SlowlyTold()
    found = await admin.ensure_topics([TopicSpec("a", 1), TopicSpec("b", 2), TopicSpec("c", 3)])
    assert {name: (topic.topic_id, topic.partitions) for name, topic in found.items()} == {
        "a": ("id-a", 1),
        "b": ("id-b", 2),
        "c": ("id-c", 3),
    }
    # all that were told of once are there, although in each answer another one is unknown
    assert admin.asked == [["a", "b", "c"], ["a", "b", "c"], ["a"]]


async def test_topics_taken_as_found_are_neither_checked_nor_waited_for():
    leaderless = TopicDescription("there", "its-id", 3, 1, leaderless=1)
    admin = SlowlyTold(leaderless)
    found = await admin.ensure_topics([TopicSpec("there", 8), TopicSpec("new", 8)], as_found=True)
    assert found == {"there": leaderless, "new": TopicDescription("new", "id-new", 8, 1)}
    with pytest.raises(TopicMismatchError, match="expected 8 partitions"):
        await admin.ensure_topics([TopicSpec("there", 8)])
