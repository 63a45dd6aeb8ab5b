"""kill -9 in the middle of offset commits: what was acknowledged is there afterwards, and nothing that was never sent.

Connections commit rising offsets, several requests in flight on each, while the broker is killed and started again on
the same port. `make test` runs a few rounds, `make soak` fifty.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Final

import pytest

from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, parse_response_header
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from millstream.testing import broker
from millstream.testing.kafka import free_ports
from millstream.testing.raw import ClosedError, RawConnection

SEED: Final = 23
TOPIC: Final = "killed"
PARTITIONS: Final = 3
COMMITTERS: Final = 6
IN_FLIGHT: Final = 5
DEADLINE_S: Final = 150.0
_VERSION: Final = APIS[ApiKey.OFFSET_COMMIT].version_max


class Committer:
    """One group's commits, in a thread; offsets rise by one with each request."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self.group = group
        self._bootstrap = bootstrap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=group)
        # By partition: the last offset that was sent, and the last that was acknowledged.
        self.sent = [0] * PARTITIONS
        self.acknowledged = [0] * PARTITIONS
        self.count = 0

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with RawConnection(self._bootstrap, timeout_s=DEADLINE_S) as raw:
                    raw.call(FindCoordinatorRequest(coordinator_keys=[self.group]))
                    while not self._stop.is_set():
                        self._commit(raw)
            except (OSError, ClosedError):
                time.sleep(0.005)  # it was killed: until it is back

    def _commit(self, raw: RawConnection) -> None:
        batch = []
        for _ in range(IN_FLIGHT):
            partition = self.sent.index(min(self.sent))
            self.sent[partition] += 1
            batch.append((partition, self.sent[partition]))
        raw.send(b"".join(raw.encode(self._request(*each)) for each in batch))
        for partition, offset in batch:
            frame = raw.receive()
            _, position = parse_response_header(ApiKey.OFFSET_COMMIT, _VERSION, frame)
            response: Any = decode(OffsetCommitResponse, _VERSION, frame, position)[0]
            if response.topics[0].partitions[0].error_code == ErrorCode.NONE:
                self.acknowledged[partition] = offset
                self.count += 1

    def _request(self, partition: int, offset: int) -> OffsetCommitRequest:
        data = OffsetCommitRequestPartition(partition_index=partition, committed_offset=offset)
        return OffsetCommitRequest(
            group_id=self.group, topics=[OffsetCommitRequestTopic(name=TOPIC, partitions=[data])]
        )


def committed(raw: RawConnection, group: str) -> dict[int, int]:
    """What the group has committed, once its coordinator serves."""
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    deadline = time.monotonic() + DEADLINE_S
    while True:
        (answer,) = raw.call(request).groups
        if answer.error_code == ErrorCode.NONE:
            return {p.partition_index: p.committed_offset for topic in answer.topics for p in topic.partitions}
        assert time.monotonic() < deadline, f"{group}: error {answer.error_code}"
        time.sleep(0.005)


@pytest.mark.timeout(600)
def test_kill_nine_loses_no_acknowledged_commit(soak: bool) -> None:
    rounds = 50 if soak else 4
    draw = random.Random(SEED)
    with broker(port=free_ports(1)[0]) as running:
        with RawConnection(running.bootstrap_servers) as raw:
            raw.create_topic(TOPIC, PARTITIONS)
        committers = [Committer(running.bootstrap_servers, f"group-{number}") for number in range(COMMITTERS)]
        for committer in committers:
            committer.start()
        try:
            for number in range(rounds):
                goal = sum(each.count for each in committers) + draw.randrange(1, 2000)
                deadline = time.monotonic() + DEADLINE_S
                while sum(each.count for each in committers) < goal:
                    assert time.monotonic() < deadline, f"round {number}: too few commits are acknowledged"
                    time.sleep(0.001)
                before = [list(each.acknowledged) for each in committers]
                running.kill()
                running.start()
                with RawConnection(running.bootstrap_servers) as raw:
                    for committer, offsets in zip(committers, before, strict=True):
                        found = committed(raw, committer.group)
                        for partition, offset in enumerate(offsets):
                            assert found.get(partition, 0) >= offset, f"round {number}, seed {SEED}: {committer.group}"
        finally:
            for committer in committers:
                committer.finish()
        running.kill()
        running.start()
        with RawConnection(running.bootstrap_servers) as raw:
            for committer in committers:
                found = committed(raw, committer.group)
                for partition in range(PARTITIONS):
                    last = found.get(partition, 0)
                    assert committer.acknowledged[partition] <= last <= committer.sent[partition], f"seed {SEED}"
