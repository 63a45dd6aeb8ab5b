"""Group members as the load: joining until every group is settled, committing offsets, fetching committed offsets.

    python -m bench.load.groups join --bootstrap 127.0.0.1:9092 --groups 100 --members 10
    python -m bench.load.groups commit --bootstrap 127.0.0.1:9092 --topic t --connections 50 --seconds 5
    python -m bench.load.groups fetch --bootstrap 127.0.0.1:9092 --topic t --groups 10 --partitions 1000

Every member has a connection of its own and one request in flight, as clients of the classic protocol do. One thread
serves all of them by epoll.

`join`: all connections stand before the clock starts. A member joins (twice: the first time it is given its id),
synchronizes, the leader with an assignment for all; it hears of a rebalance by a heartbeat, which it sends as soon as
another member of its group joins. Real clients send one each 3 s, and their wait would be all that is measured. A group
is settled when all of its members have synchronized in one generation.

`commit`: each connection is the only member of a group and commits one partition's next offset, as soon as the last one
is acknowledged. `fetch`: several groups' committed offsets of all partitions of a topic, in one request, again and
again on one connection.
"""

import argparse
import itertools
import json
import resource
import select
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.load.brokers import cpu_seconds
from bench.load.frames import RefusedError

from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, encode_request, parse_response_header
from millstream.core.wire.embedded_protocol import (
    ConsumerAssignment,
    OwnedTopic,
    Subscription,
    encode_assignment,
    encode_subscription,
)
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection, frame_of

TIMEOUT_S = 60.0
COMMIT_VERSION, FETCH_VERSION = 8, 8
SUBSCRIPTION = encode_subscription(Subscription(topics=["flights"]), 3)


class Loop:
    """Connections served by epoll; a whole answer goes to the function its request was sent with."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}

    def connect(self, bootstrap: str) -> "Channel":
        """Open a connection, blocking."""
        host, _, port = bootstrap.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        channel = Channel(connection)
        self._channels[connection.fileno()] = channel
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        return channel

    def run_until(self, done: Callable[[], bool], deadline_s: float = TIMEOUT_S) -> None:
        """Hand out answers until `done`. Raises TimeoutError."""
        deadline = time.monotonic() + deadline_s
        channels = self._channels
        while not done():
            for descriptor, _ in self._epoll.poll(1.0):
                channels[descriptor].receive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {deadline_s:g} s")

    def close(self) -> None:
        for channel in self._channels.values():
            channel.socket.close()
        self._epoll.close()


class Channel:
    """One connection with at most one request in flight."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""
        self._answered: Callable[[bytes], None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._answered is not None

    def send(self, frame: bytes | bytearray, answered: Callable[[bytes], None]) -> None:
        """Send a whole frame; requests here are small enough for any socket buffer."""
        assert self._answered is None, "a request is in flight already"
        self._answered = answered
        sent = self.socket.send(frame)
        assert sent == len(frame), f"{sent} of {len(frame)} bytes fit"

    def receive(self) -> None:
        """Take what has come; a whole answer, without its length, is handed out."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the broker closed the connection")
        if self._received:
            data = self._received + data
        if len(data) < 4 or len(data) < 4 + struct.unpack_from(">i", data)[0]:
            self._received = data
            return
        self._received = b""
        answered, self._answered = self._answered, None
        assert answered is not None, "an answer to nothing"
        answered(data[4:])


def request_frame(request: Any, version: int | None = None) -> bytes:
    """A whole frame of a request, in the highest version by default."""
    version = APIS[request.__wire__.key].version_max if version is None else version
    return frame_of(encode_request(request, version, 1, "load"))


def response(kind: Any, key: ApiKey, data: bytes) -> Any:
    """Decode an answer to `request_frame`."""
    version = APIS[key].version_max
    return decode(kind, version, data, parse_response_header(key, version, data)[1])[0]


class Group:
    """The members of a group, and in which generation each has synchronized."""

    def __init__(self, group_id: str, size: int) -> None:
        self.group_id = group_id
        self.size = size
        self.members: list[Member] = []

    @property
    def is_settled(self) -> bool:
        generations = {member.synced for member in self.members}
        return len(generations) == 1 and 0 not in generations

    def handle_join(self, joining: "Member") -> None:
        """Have those who think all is well ask whether it is."""
        for member in self.members:
            if member is not joining and member.synced and not member.channel.is_busy:
                member.heartbeat()


class Member:
    """One member of the classic protocol."""

    def __init__(self, group: Group, channel: Channel, requests: Iterator[int]) -> None:
        self.group = group
        self.channel = channel
        self.member_id = ""
        self.generation = -1
        # The generation it synchronized in, 0 while it is joining.
        self.synced = 0
        # Whether its JoinGroup waits for the others.
        self.waits = False
        self._requests = requests
        group.members.append(self)

    def _ask(self, request: Any, answered: Callable[[bytes], None]) -> None:
        next(self._requests)
        self.channel.send(request_frame(request), answered)

    def join(self) -> None:
        self.synced = 0
        request = JoinGroupRequest(
            group_id=self.group.group_id,
            session_timeout_ms=45_000,
            rebalance_timeout_ms=60_000,
            member_id=self.member_id,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=SUBSCRIPTION)],
        )
        self._ask(request, self._handle_joined)
        self.waits = bool(self.member_id)
        if self.waits:
            self.group.handle_join(self)

    def _handle_joined(self, data: bytes) -> None:
        answer: JoinGroupResponse = response(JoinGroupResponse, ApiKey.JOIN_GROUP, data)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            self.join()
            return
        _check(answer.error_code)
        self.waits = False
        self.generation = answer.generation_id
        assignments = []
        if answer.leader == self.member_id:
            for number, member in enumerate(answer.members):
                owned = ConsumerAssignment(assigned_partitions=[OwnedTopic(topic="flights", partitions=[number])])
                assignments.append(
                    SyncGroupRequestAssignment(member_id=member.member_id, assignment=encode_assignment(owned, 3))
                )
        request = SyncGroupRequest(
            group_id=self.group.group_id,
            generation_id=self.generation,
            member_id=self.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=assignments,
        )
        self._ask(request, self._handle_synced)

    def _handle_synced(self, data: bytes) -> None:
        answer: SyncGroupResponse = response(SyncGroupResponse, ApiKey.SYNC_GROUP, data)
        if answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
            self.join()
            return
        _check(answer.error_code)
        assert answer.assignment, "no assignment"
        self.synced = self.generation
        self._look_again()

    def _look_again(self) -> None:
        if any(member.waits for member in self.group.members):
            self.heartbeat()

    def heartbeat(self) -> None:
        request = HeartbeatRequest(
            group_id=self.group.group_id, generation_id=self.generation, member_id=self.member_id
        )
        self._ask(request, self._handle_heartbeat)

    def _handle_heartbeat(self, data: bytes) -> None:
        answer: HeartbeatResponse = response(HeartbeatResponse, ApiKey.HEARTBEAT, data)
        if answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
            self.join()
        else:
            _check(answer.error_code)
            self._look_again()


def _check(code: int) -> None:
    if code:
        raise RefusedError(f"error {code}: {next((known.name for known in ErrorCode if known == code), 'unknown')}")


def await_coordinators(bootstrap: str, group_ids: list[str]) -> None:
    """Wait until every group has a coordinator that has loaded."""

    def ready() -> bool:
        found = raw.call(FindCoordinatorRequest(coordinator_keys=group_ids)).coordinators
        if any(one.error_code for one in found):
            return False
        unknown = {int(raw.call(HeartbeatRequest(group_id=one, member_id="nobody")).error_code) for one in group_ids}
        return unknown == {ErrorCode.UNKNOWN_MEMBER_ID}

    with RawConnection(bootstrap, timeout_s=TIMEOUT_S) as raw:
        wait_until(ready, TIMEOUT_S, "coordinators")


def join(
    bootstrap: str, prefix: str, groups: int, members: int, broker_pid: int | None = None
) -> tuple[Loop, list[Group], dict[str, float]]:
    """Have all members of all groups join at once, one of each group after the other.

    With `broker_pid` also what the broker's process used meanwhile, and this one, which has a core of its own.
    """
    made = [Group(f"{prefix}-{number}", members) for number in range(groups)]
    await_coordinators(bootstrap, [group.group_id for group in made])
    loop = Loop()
    requests = itertools.count()
    for _ in range(members):
        for group in made:
            Member(group, loop.connect(bootstrap), requests)
    unsettled = set(made)

    def settled() -> bool:
        unsettled.difference_update([group for group in unsettled if group.is_settled])
        return not unsettled

    used_before = 0.0 if broker_pid is None else cpu_seconds(broker_pid)
    cpu_started = time.process_time()
    started = time.monotonic()
    for number in range(members):
        for group in made:
            group.members[number].join()
    loop.run_until(settled)
    took = time.monotonic() - started
    figures = {
        "seconds": took,
        "requests": next(requests),
        "generations": max(member.generation for group in made for member in group.members),
        "load_cpu_seconds": time.process_time() - cpu_started,
    }
    if broker_pid is not None:
        figures["settling_cpu_seconds"] = cpu_seconds(broker_pid) - used_before
    return loop, made, figures


def leave(loop: Loop, groups: list[Group]) -> None:
    """Have all members leave, a whole group in one request: their sessions would end in the middle of later rounds."""

    def is_any_busy() -> bool:
        return any(group.members[0].channel.is_busy for group in groups)

    loop.run_until(lambda: not is_any_busy())
    for group in groups:
        members = [MemberIdentity(member_id=member.member_id) for member in group.members]
        group.members[0].channel.send(
            request_frame(LeaveGroupRequest(group_id=group.group_id, members=members)), lambda _: None
        )
    loop.run_until(lambda: not is_any_busy())


def commit(bootstrap: str, prefix: str, topic: str, connections: int, seconds: float) -> dict[str, float]:
    """Commit by members of groups of their own; the clock starts when all have joined."""
    loop, groups, _ = join(bootstrap, prefix, connections, 1)
    stop = False
    acknowledged = busy = 0

    def start(member: Member) -> None:
        nonlocal busy
        partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=0, committed_metadata="")
        request = OffsetCommitRequest(
            group_id=member.group.group_id,
            generation_id_or_member_epoch=member.generation,
            member_id=member.member_id,
            topics=[OffsetCommitRequestTopic(name=topic, partitions=[partition])],
        )
        frame = bytearray(request_frame(request, COMMIT_VERSION))
        # Behind the offset: leader epoch, empty metadata, the tags of partition, topic and request.
        offset_at = len(frame) - 8 - 4 - 1 - 3
        # size i32 | correlation i32 | tags | throttle i32 | topics | name | partitions | partition i32 | error i16
        error_at = 4 + 1 + 4 + 1 + 1 + len(topic) + 1 + 4
        offset = 0

        def send() -> None:
            nonlocal offset
            offset += 1
            struct.pack_into(">q", frame, offset_at, offset)
            member.channel.send(frame, answered)

        def answered(data: bytes) -> None:
            nonlocal acknowledged, busy
            if data[error_at] or data[error_at + 1]:
                _check(struct.unpack_from(">h", data, error_at)[0])
            acknowledged += 1
            if stop:
                busy -= 1
            else:
                send()

        busy += 1
        send()

    started = time.monotonic()
    for group in groups:
        start(group.members[0])
    loop.run_until(lambda: time.monotonic() >= started + seconds, seconds + TIMEOUT_S)
    stop = True
    loop.run_until(lambda: not busy)
    took = time.monotonic() - started
    loop.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"commits": acknowledged, "seconds": took, "cpu_seconds": used.ru_utime + used.ru_stime}


def fetch(bootstrap: str, prefix: str, topic: str, groups: int, partitions: int, count: int) -> dict[str, float]:
    """Commit every partition of `topic` in several groups, then fetch all of them in one request, `count` times."""
    group_ids = [f"{prefix}-{number}" for number in range(groups)]
    await_coordinators(bootstrap, group_ids)
    with RawConnection(bootstrap, timeout_s=TIMEOUT_S) as raw:
        committed = [
            OffsetCommitRequestPartition(partition_index=index, committed_offset=index + 1)
            for index in range(partitions)
        ]
        for group_id in group_ids:
            request = OffsetCommitRequest(
                group_id=group_id, topics=[OffsetCommitRequestTopic(name=topic, partitions=committed)]
            )
            for partition in raw.call(request, COMMIT_VERSION).topics[0].partitions:
                _check(partition.error_code)
        asked = [OffsetFetchRequestGroup(group_id=group_id, topics=None) for group_id in group_ids]
        wanted = OffsetFetchRequest(groups=asked)
        found = 0
        for group in raw.call(wanted, FETCH_VERSION).groups:
            offsets = {one.partition_index: one.committed_offset for one in group.topics[0].partitions}
            assert offsets == {index: index + 1 for index in range(partitions)}, group.group_id
            found += len(offsets)
        frame = request_frame(wanted, FETCH_VERSION)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        buffer = memoryview(bytearray(4 << 20))
        took = []
        for _ in range(count):
            started = time.perf_counter_ns()
            raw.socket.sendall(frame)
            size = 4
            read = 0
            while read < size:
                read += raw.socket.recv_into(buffer[read:])
                if read >= 4:
                    size = 4 + struct.unpack_from(">i", buffer)[0]
            took.append((time.perf_counter_ns() - started) / 1e6)
    took.sort()
    return {"p50": statistics.median(took), "p99": took[len(took) * 99 // 100], "offsets": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("join", "commit", "fetch"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", default="load", help="of the groups' names")
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument(
        "--topic", default="flights", help="that offsets are committed of; for fetch, several with commas"
    )
    parser.add_argument("--broker-pid", type=int, help="of the broker's process here, for its CPU time")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    if given.what == "join":
        loop, groups, result = join(given.bootstrap, given.prefix, given.groups, given.members, given.broker_pid)
        leave(loop, groups)
        loop.close()
    elif given.what == "commit":
        result = commit(given.bootstrap, given.prefix, given.topic, given.connections, given.seconds)
    else:
        result = fetch(given.bootstrap, given.prefix, given.topic, given.groups, given.partitions, given.count)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
