"""Requests to a group's coordinator in versions that name the member's instance, which aiokafka 0.14 does not speak.

The layouts are those of Kafka's own protocol definitions: Heartbeat 3, OffsetCommit 7, LeaveGroup 3, the last ones before
the compact encoding.
"""

from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

_TEXT = String("utf-8")


class HeartbeatResponse_v3(Response):  # type: ignore[misc]
    """How the broker answers a heartbeat."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class HeartbeatRequest_v3(RequestStruct):  # type: ignore[misc]
    """The layout of a heartbeat."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v3
    SCHEMA = Schema(("group", _TEXT), ("generation_id", Int32), ("member_id", _TEXT), ("group_instance_id", _TEXT))


class StaticHeartbeat(Request[HeartbeatRequest_v3]):  # type: ignore[misc]
    """A heartbeat that says whose it is."""

    API_KEY = 12

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[HeartbeatRequest_v3]) -> HeartbeatRequest_v3:
        """The request as it goes out."""
        return request_struct_class(*self._fields)


class OffsetCommitResponse_v7(Response):  # type: ignore[misc]
    """How the broker answers a commit."""

    API_KEY = 8
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(("topic", _TEXT), ("partitions", Array(("partition", Int32), ("error_code", Int16)))),
        ),
    )


class OffsetCommitRequest_v7(RequestStruct):  # type: ignore[misc]
    """The layout of a commit."""

    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = OffsetCommitResponse_v7
    SCHEMA = Schema(
        ("group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                (
                    "partitions",
                    Array(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT)),
                ),
            ),
        ),
    )


class StaticCommit(Request[OffsetCommitRequest_v7]):  # type: ignore[misc]
    """A commit that says whose it is."""

    API_KEY = 8

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[OffsetCommitRequest_v7]) -> OffsetCommitRequest_v7:
        """The request as it goes out."""
        return request_struct_class(*self._fields)


class LeaveGroupResponse_v3(Response):  # type: ignore[misc]
    """How the broker answers those who leave."""

    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("members", Array(("member_id", _TEXT), ("group_instance_id", _TEXT), ("error_code", Int16))),
    )


class LeaveGroupRequest_v3(RequestStruct):  # type: ignore[misc]
    """The layout of leaving."""

    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = LeaveGroupResponse_v3
    SCHEMA = Schema(("group", _TEXT), ("members", Array(("member_id", _TEXT), ("group_instance_id", _TEXT))))


class StaticLeave(Request[LeaveGroupRequest_v3]):  # type: ignore[misc]
    """Leaves for good, which a member with an identity does not do by closing its connection."""

    API_KEY = 13

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[LeaveGroupRequest_v3]) -> LeaveGroupRequest_v3:
        """The request as it goes out."""
        return request_struct_class(*self._fields)
