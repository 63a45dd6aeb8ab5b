"""A group shard on a log in memory that delays, fails and is taken away: what `broker/shard_host.py` does, by hand.

log = GroupLog()
reply = log.ask("offset_commit", request)       # log.answers holds no answer yet
log.commit()                                     # the high watermark passes everything that was appended
log.fail()                                       # or nothing of it is ever written, and the shard is replayed
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from millstream.core.cluster import ClusterImage, PartitionState, TopicImage
from millstream.core.config import BrokerConfig
from millstream.core.groups.configs import GroupConfigs
from millstream.core.groups.effects import Append, Effect, KeyedRecord
from millstream.core.groups.group import Caller
from millstream.core.groups.offset_requests import TopicCommit
from millstream.core.groups.shard import GroupShard
from millstream.core.groups.timer_wheel import TimerWheel
from millstream.core.wire import KafkaError
from millstream.core.wire.messages.offset_commit import OffsetCommitRequest

START_MS: Final = 1_700_000_000_000
REFUSED: Final = "refused"


def image_of(topics: Mapping[str, int], version: int = 1) -> ClusterImage:
    """An image with these topics, by their number of partitions; a topic's id is made of its name."""
    state = PartitionState(leader=1, leader_epoch=0, replicas=(1,), isr=(1,), partition_epoch=0)
    return ClusterImage.of(
        [TopicImage(name, name.encode().ljust(16, b"-")[:16], (state,) * count, {}) for name, count in topics.items()],
        version=version,
    )


class GroupLog:
    """One partition of `__consumer_offsets`, and the shard that is kept in it."""

    def __init__(self, settings: Mapping[str, str] | None = None, topics: Mapping[str, int] | None = None) -> None:
        self.configs = GroupConfigs.from_broker(BrokerConfig(settings or {}))
        self.image = image_of(topics or {"t": 10})
        self.now_ms = START_MS
        # What is committed, as (key, value, producer id), and markers as (None, committed, producer id).
        self.records: list[tuple[bytes | None, Any, int]] = []
        # Asked for, and not committed.
        self.appended: list[Append] = []
        # Answers by reply; REFUSED where the shard was closed first. Replies count from 0.
        self.answers: dict[int, Any] = {}
        self._open: set[int] = set()
        self._replies = 0
        self.shard: GroupShard
        self.load()

    def load(self) -> None:
        """Make a new shard of what is committed."""
        self.timers = TimerWheel()
        self.shard = GroupShard(
            0,
            configs=self.configs,
            image=self.image,
            timers=self.timers,
            random_source=random.Random(1),
            emit=self._perform,
        )
        for key, value, producer_id in self.records:
            if key is None:
                self.shard.replay_marker(producer_id, committed=value)
            else:
                self.shard.replay(key, value, producer_id=producer_id)
        self.shard.handle_loaded(self.now_ms)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Append):
            self.appended.append(effect)
        else:
            reply = effect.reply
            assert isinstance(reply, int), reply
            assert reply in self._open, f"{reply} was answered twice: {effect.response}"
            self._open.remove(reply)
            self.answers[reply] = effect.response

    def ask(self, name: str, request: Any, *, api_version: int = 9) -> int:
        """Hand a request to the shard; returns what its answer is found by."""
        reply = self._replies
        self._replies += 1
        self._open.add(reply)
        try:
            getattr(self.shard, name)(request, Caller("client", "/127.0.0.1", api_version), reply, self.now_ms)
        except KafkaError as error:
            self.shard.outbox.respond(reply, error.code)
        return reply

    def ask_rows(self, request: OffsetCommitRequest, response: object, *, api_version: int = 9) -> int:
        """Commit offsets of one topic as the broker's fast path does, and as the slow one where that will not."""
        (topic,) = request.topics
        asked = TopicCommit(request, topic.name, api_version)
        rows = [(one.partition_index, one.committed_offset, one.committed_leader_epoch) for one in topic.partitions]
        reply = self._replies
        self._open.add(reply)
        try:
            if self.shard.offset_requests.commit_rows(asked, rows, reply, response, self.now_ms):
                self._replies += 1
                return reply
        except KafkaError:
            pass
        self._open.remove(reply)
        return self.ask("offset_commit", request, api_version=api_version)

    def answer(self, name: str, request: Any, *, api_version: int = 9) -> Any:
        """Hand a request to the shard, commit what it appends, and return its answer."""
        reply = self.ask(name, request, api_version=api_version)
        self.commit()
        return self.answers[reply]

    def commit(self, count: int | None = None) -> None:
        """The high watermark passes the first `count` appends (all)."""
        done, self.appended = self.appended[:count], self.appended[len(self.appended[:count]) :]
        for append in done:
            self.records += [(key, value, -1) for key, value in append.records]
        if done:
            self.shard.handle_committed(done[-1].number)

    def write_transactional(self, producer_id: int, records: list[KeyedRecord]) -> None:
        """Records of a transaction, as a log holds them; they are seen with the next load."""
        self.records += [(key, value, producer_id) for key, value in records]

    def write_marker(self, producer_id: int, *, committed: bool) -> None:
        """A transaction's end, as a log holds it; it is seen with the next load."""
        self.records.append((None, committed, producer_id))

    def fail(self) -> None:
        """Nothing of what is not committed is ever written: the shard is closed and replayed."""
        self.revoke()
        self.load()

    def revoke(self) -> None:
        """The partition has another leader: the shard is closed, and who waits is refused."""
        self.shard.close()
        self.appended.clear()
        for reply in self._open:
            self.answers[reply] = REFUSED
        self._open.clear()
