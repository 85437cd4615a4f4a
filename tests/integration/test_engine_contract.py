"""What the engine takes for granted of Faust's and aiokafka's private parts, by name.

These fail when a pinned version changes: read what is different, adapt `streamapp/engine`, and renew the digest.
"""

import asyncio
import hashlib
import inspect
from importlib.metadata import version
from typing import Any

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import BaseCoordinator, CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.protocol.commit import OffsetCommitRequest
from faust.app.base import App
from faust.assignor.partition_assignor import PartitionAssignor
from faust.serializers.schemas import Schema
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.conductor import Conductor, ConductorCompiler
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import Message
from faust.web.drivers.aiohttp import Web
from faust.worker import Worker
from mode.threads import MethodQueue, QueueServiceThread, ServiceThread
from mode.utils.queues import ThrowableQueue

#: methods that the engine replaces, wraps, or relies on step by step, with a digest of their source
SOURCES = [
    (Consumer, "_drain_messages", "44a2500309e83c63"),
    (Consumer, "_new_offset", "1d2c7ea89a7ad4f1"),
    (Consumer, "_filter_tps_with_pending_acks", "f6f9239774234e7e"),
    (Consumer, "on_partitions_revoked", "d04b7ae72c6fc206"),
    (Consumer, "on_partitions_assigned", "29ce96596f05a18c"),
    (Consumer, "_commit_offsets", "1a69799041188441"),
    (Consumer, "_filter_committable_offsets", "dc5e9baf5d994485"),
    (Consumer, "_should_commit", "5ce941793947ad42"),
    (Consumer, "perform_seek", "0e8c130ff4b0afd8"),
    (Consumer, "seek", "b86a9fe05f956b30"),
    (Consumer, "stop_flow", "cf7e875a2b0d40e8"),
    (Consumer, "verify_event_path", "aead7dc3d8dc43fa"),
    (driver.Consumer, "_to_message", "7c24f6511b2fcef7"),
    (driver.Consumer, "_commit", "a20eec84e4b2ed50"),
    (driver.Consumer, "_seek", "4f95c631420410a5"),
    (driver.Consumer, "_getmany", "f9d47aa9010b5ff2"),
    (driver.Consumer, "_get_active_partitions", "b24897f3c7afdb5d"),
    (driver.Consumer, "_new_topicpartition", "fca87b618c4f494e"),
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer", "c2701bfc3e6f6cad"),
    (driver.AIOKafkaConsumerThread, "getmany", "26fc5fc9f3b667e1"),
    (driver.AIOKafkaConsumerThread, "_fetch_records", "39a2c6c79fc1455a"),
    (driver.AIOKafkaConsumerThread, "seek", "1498560d05f02582"),
    (driver.AIOKafkaConsumerThread, "_commit", "932852ce7a23f658"),
    (TableManager, "on_start", "365dd25fbc0e0684"),
    (TableManager, "_update_channels", "88e3941facc934d6"),
    (Recovery, "on_rebalance", "aa4d997a1795ceae"),
    (Recovery, "_wait", "ec7429b70176f8c6"),
    (Recovery, "_resume_streams", "d986a6710c1aca98"),
    (PartitionRecords, "_unpack_records", "b803e6d46480732c"),
    (Fetcher, "fetched_records", "be4348896b9b66af"),
    (FetchResult, "getall", "3e717e30de5068d5"),
    (AIOKafkaConnection, "send", "5909ea32f4efca49"),
    (AIOKafkaConnection, "close", "28f164aa1e4f0bbc"),
    (Fetcher, "_fetch_requests_routine", "2a8ec5932644c9b0"),
    (Fetcher, "_notify", "d3a30d94f34fd3a0"),
    (Worker, "on_setup_root_logger", "0d468284fb5c8880"),
    (Worker, "_setup_spinner_handler", "18cb28ef5b3de212"),
    (Stream, "_py_aiter", "3a48ee257a65435b"),
    (Stream, "_c_aiter", "fa44582a5882e9df"),
    (Stream, "_set_current_event", "b9a41294b605ac08"),
    (Stream, "take", "49a950b16eafeb84"),
    (Stream, "noack_take", "f2cc2dbfc162d200"),
    (Schema, "compile", "d46eec5ce3195b2c"),
    (Message, "__init__", "afe1f75975597bc3"),
    (Message, "ack", "4751b72c4ed84153"),
    (ConductorCompiler, "build", "837cf521368c1ee4"),
    (ThrowableQueue, "get", "57490d393d4147ff"),
    (ThrowableQueue, "clear", "d18f09e451acf62e"),
    (MethodQueue, "call", "57bd4157ba4e349f"),
    (QueueServiceThread, "call_thread", "479edda75b54734b"),
    (ServiceThread, "_serve", "67809eae09573ac7"),
    (ServiceThread, "_stopped_set", "af9b1ff7781223c2"),
    (ServiceThread, "set_shutdown", "ada84bf0cade97be"),
    (App, "_on_partitions_revoked", "d5c895bbe57dc73a"),
    (App, "_on_partitions_assigned", "de932b7927db85b3"),
    (App, "_on_rebalance_when_stopped", "1b172d9af8ff4eb6"),
    (GroupCoordinator, "_send_req", "fa4b12e914ce9fcf"),
    (AIOKafkaConnection, "send", "5909ea32f4efca49"),
    (AIOKafkaClient, "send", "246b277687d7b687"),
    (AIOKafkaClient, "_get_conn", "68ce5d8391719d33"),
    (GroupCoordinator, "_maybe_leave_group", "016cd88a16e6c4b5"),
    (GroupCoordinator, "reset_generation", "537aa37c531b4de9"),
    (GroupCoordinator, "_on_join_prepare", "4d9524afc0ee2c2f"),
    (GroupCoordinator, "ensure_active_group", "33c84c1a93012e81"),
    (GroupCoordinator, "_on_join_complete", "0b0b3d204b408f3c"),
    (GroupCoordinator, "request_rejoin", "f70a261c91c38cb5"),
    (GroupCoordinator, "_do_heartbeat", "dc1d6632aaa68e96"),
    (GroupCoordinator, "_do_commit_offsets", "c3a3ea5613f39cac"),
    (GroupCoordinator, "commit_offsets", "5cbe31af28d6cc06"),
    (CoordinatorGroupRebalance, "perform_group_join", "ff2c2109b2e9868d"),
    (CoordinatorGroupRebalance, "_send_sync_group_request", "7429ca078ddf9bb7"),
    (PartitionAssignor, "_perform_assignment", "1e0bf2c5c8f42574"),
    (PartitionAssignor, "on_assignment", "72f34bf053d696b5"),
    (PartitionAssignor, "metadata", "6d7f0ebcd61e8b4d"),
    (PartitionAssignor, "_update_member_urls", "42c1ee6897e19a2f"),
    (PartitionAssignor, "_compress", "de873849928dbd83"),
    (PartitionAssignor, "_decompress", "d65b7310c43aebd7"),
    (driver.AIOKafkaConsumerThread, "on_start", "38b4e8bd1e10723a"),
    (driver.AIOKafkaConsumerThread, "close", "d22efc59a1df0c7a"),
]

#: attributes that are read or set on instances: where they are first assigned
ATTRIBUTES = [
    (Consumer.__init__, "_read_offset"),
    (Consumer.__init__, "_committed_offset"),
    (Conductor.__init__, "_tp_index"),
    (Stream.__init__, "_active_agens"),
    (Stream.__init__, "_processors"),
    (Stream.__init__, "_on_stream_event_in"),
    (Stream.__init__, "_on_stream_event_out"),
    (Stream.__init__, "_on_message_in"),
    (Stream.__init__, "_on_message_out"),
    (ThrowableQueue.__init__, "_putters"),
    (ThrowableQueue.__init__, "_errors"),
    (asyncio.Queue._init, "_queue"),
    (aiokafka.AIOKafkaConsumer.__init__, "_fetch_max_wait_ms"),
    (aiokafka.AIOKafkaConsumer.__init__, "_key_deserializer"),
    (aiokafka.AIOKafkaConsumer.__init__, "_subscription"),
    (aiokafka.AIOKafkaConsumer.__init__, "_max_poll_records"),
    (aiokafka.AIOKafkaConsumer.__init__, "_fetcher"),
    (Fetcher.__init__, "_wait_consume_future"),
    (PartitionRecords.__init__, "_key_deserializer"),
    (TopicPartitionState.__init__, "highwater"),
    (TopicPartitionState.__init__, "timestamp"),
    (TopicPartitionState.__init__, "_position"),
    (Web.__init__, "_runner"),
    (aiokafka.AIOKafkaConsumer.__init__, "_group_instance_id"),
    (aiokafka.AIOKafkaConsumer.__init__, "_coordinator"),
    (aiokafka.AIOKafkaConsumer.__init__, "_client"),
    (aiokafka.AIOKafkaConsumer.__init__, "_request_timeout_ms"),
    (AIOKafkaClient.__init__, "_request_timeout_ms"),
    (AIOKafkaClient.__init__, "_conns"),
    (AIOKafkaConnection.__init__, "_request_timeout"),
    (BaseCoordinator.__init__, "_client"),
    (GroupCoordinator.__init__, "_group_instance_id"),
    (GroupCoordinator.__init__, "_assignors"),
    (GroupCoordinator.__init__, "generation"),
    (GroupCoordinator.__init__, "member_id"),
    (OffsetCommitRequest.__init__, "_topics"),
    (ServiceThread.__init__, "_shutdown"),
    (PartitionAssignor.__init__, "_assignment"),
    (PartitionAssignor.__init__, "_topic_groups"),
    (PartitionAssignor.__init__, "_active_tps"),
    (PartitionAssignor.__init__, "_standby_tps"),
    (PartitionAssignor.__init__, "_member_urls"),
]


def test_versions_are_those_that_were_read() -> None:
    assert version("faust-streaming") == "0.15.3", "read what is different, then this module"


@pytest.mark.parametrize(("owner", "name", "digest"), SOURCES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_private_method_is_the_one_that_was_read(owner: type, name: str, digest: str) -> None:
    method = getattr(owner, name, None)
    assert method is not None, f"{owner.__name__}.{name} is gone; streamapp/engine relies on it"
    found = hashlib.sha256(inspect.getsource(_original(method)).encode()).hexdigest()[:16]
    assert found == digest, f"{owner.__name__}.{name} has changed; check what streamapp/engine makes of it"


@pytest.mark.parametrize(("method", "name"), ATTRIBUTES, ids=lambda value: getattr(value, "__qualname__", str(value)))
def test_private_attribute_is_still_set_up(method: Any, name: str) -> None:
    assert f"self.{name}" in inspect.getsource(method), f"{method.__qualname__} no longer sets {name}"


def test_coordinator_of_a_consumer_is_the_class_that_its_module_names() -> None:
    from aiokafka.consumer import consumer

    from streamapp.engine.membership import MemberCoordinator

    assert consumer.GroupCoordinator is MemberCoordinator
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)


def test_subscription_tells_the_assignment_by_partition() -> None:
    assert isinstance(inspect.getattr_static(SubscriptionState, "subscription"), property)


def test_fetcher_makes_partition_records_of_the_class_that_its_module_names() -> None:
    from aiokafka.consumer import fetcher

    from streamapp.engine import fetching

    source = inspect.getsource(Fetcher._proc_fetch_request)
    assert fetcher.MemoryRecords is fetching._KeptRecords
    assert "records = MemoryRecords(part_data[-1])" in source
    for name in ("_tp", "_records", "_check_crcs", "_isolation_level", "_aborted_producers"):
        assert f"self.{name} = " in inspect.getsource(PartitionRecords.__init__)


def _original(method: Any) -> Any:
    """The library's own function, where the engine has put its own in front of it."""
    from streamapp.engine import connections, fetching

    return {fetching._unpack: fetching._stock_unpack, connections._send: connections._stock_send}.get(method, method)
