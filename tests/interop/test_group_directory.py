"""`__consumer_offsets` from one broker to the other: Kafka's folder is adopted with its groups, and ours is Kafka's.

Kafka gets groups of every kind: members of the classic and of the consumer protocol that came and went, commits by
hand, transactions that ended either way and one that never did. What Kafka answers about them, Millstream answers on
Kafka's folder; and Kafka again on the folder that Millstream wrote on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import confluent_kafka
import pytest

from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.list_groups import ListGroupsRequest
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

TOPIC: Final = "grouped"
PARTITIONS: Final = 3
OFFSETS: Final = "__consumer_offsets-0"
SETTLING = {ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_COORDINATOR}


def commit(raw: RawConnection, group: str, *offsets: int, text: str = "") -> None:
    data = [
        OffsetCommitRequestPartition(partition_index=index, committed_offset=offset, committed_metadata=text)
        for index, offset in enumerate(offsets)
    ]
    request = OffsetCommitRequest(group_id=group, topics=[OffsetCommitRequestTopic(name=TOPIC, partitions=data)])

    def done() -> bool:
        raw.call(FindCoordinatorRequest(coordinator_keys=[group]))
        code = raw.call(request).topics[0].partitions[0].error_code
        assert code in SETTLING | {ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
        return bool(code == ErrorCode.NONE)

    wait_until(done, 90, "a coordinator")


def consume(bootstrap: str, group: str, protocol: str) -> None:
    """Join, read everything, commit, leave."""
    own = {"session.timeout.ms": 10_000, "partition.assignment.strategy": "range"} if protocol == "classic" else {}
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
            **own,
        }
    )
    consumer.subscribe([TOPIC])
    count = 0
    while count < PARTITIONS:
        message: Any = consumer.poll(90)
        assert message is not None, f"{group}: {count} records came"
        assert message.error() is None, message.error()
        count += 1
    consumer.commit(asynchronous=False)
    consumer.close()


def transaction(bootstrap: str, group: str, offset: int, end: str) -> confluent_kafka.Producer:
    """Commit an offset in a transaction, and end that: commit, abort, or leave open."""
    settings = {"bootstrap.servers": bootstrap, "transactional.id": f"{group}-{offset}", "log_level": 0}
    producer = confluent_kafka.Producer({**settings, "transaction.timeout.ms": 600_000})
    producer.init_transactions(90)
    producer.begin_transaction()
    metadata = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    position = confluent_kafka.TopicPartition(TOPIC, 0, offset)
    producer.send_offsets_to_transaction([position], metadata.consumer_group_metadata(), 90)
    metadata.close()
    if end == "commit":
        producer.commit_transaction(90)
    elif end == "abort":
        producer.abort_transaction(90)
    return producer


def offsets_of(raw: RawConnection, group: str, *, stable: bool = False) -> Any:
    asked = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)], require_stable=stable)

    def answered() -> Any:
        (answer,) = raw.call(asked).groups
        return None if answer.error_code in SETTLING else answer

    answer = wait_until(answered, 90, f"the coordinator of {group}")
    return answer.error_code, {
        (p.partition_index, p.committed_offset, p.metadata, p.error_code)
        for topic in answer.topics
        for p in topic.partitions
    }


def everything(bootstrap: str) -> dict[str, Any]:
    """What a broker says of its groups."""
    with RawConnection(bootstrap) as raw:

        def listed() -> Any:
            answer = raw.call(ListGroupsRequest())
            # Kafka lists what it has loaded; before it leads the partition that is nothing, and no error.
            return None if answer.error_code in SETTLING or not answer.groups else answer

        groups = wait_until(listed, 90, "all coordinators").groups
        found: dict[str, Any] = {
            group.group_id: (group.protocol_type, group.group_state, group.group_type) for group in groups
        }
        for group in list(found):
            found[f"{group}, committed"] = offsets_of(raw, group)
            found[f"{group}, stable"] = offsets_of(raw, group, stable=True)
    return found


def fill(kafka: ApacheKafka) -> confluent_kafka.Producer:
    bootstrap = kafka.bootstrap_servers
    with RawConnection(bootstrap) as raw:
        raw.create_topic(TOPIC, PARTITIONS)
        producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        for partition in range(PARTITIONS):
            producer.produce(TOPIC, b"v", partition=partition)
        assert producer.flush(90) == 0
        commit(raw, "by-hand", 1, 2, 3, text="größer")
        commit(raw, "by-hand", 4, text="")
        consume(bootstrap, "classic", "classic")
        consume(bootstrap, "modern", "consumer")
        commit(raw, "transactions", 1, 1, 1)
        transaction(bootstrap, "transactions", 5, "commit")
        transaction(bootstrap, "transactions", 6, "abort")
        # Members leave, and transactions end, a moment after the client is told.
        wait_until(lambda: is_settled(raw), 90, "members and transactions to be gone")
        commit(raw, "open", 1, 1)
        return transaction(bootstrap, "open", 9, "leave")


def is_settled(raw: RawConnection) -> bool:
    """Whether no group has a member, and the transactions that were committed or aborted are over."""
    groups = raw.call(ListGroupsRequest()).groups
    _, offsets = offsets_of(raw, "transactions", stable=True)
    return all(group.group_state == "Empty" for group in groups) and (0, 5, "", ErrorCode.NONE) in offsets


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_groups_move_from_kafka_and_back(jars: Path, tmp_path: Path, ended: str) -> None:
    kafka = ApacheKafka(tmp_path / "kafka", jars=jars)
    with kafka:
        open_transaction = fill(kafka)
        before = everything(kafka.bootstrap_servers)
        if ended == "killed":
            kafka.kill()
    del open_transaction
    unstable = (0, -1, "", ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert unstable in before["open, stable"][1]
    assert (0, 5, "", ErrorCode.NONE) in before["transactions, committed"][1]
    folder = tmp_path / "adopted"
    shutil.copytree(kafka.data_directory, folder)
    with broker({"node.id": "1"}, log_dir=folder) as running:
        assert everything(running.bootstrap_servers) == before
        with RawConnection(running.bootstrap_servers) as raw:
            commit(raw, "by-hand", 7, 8, 9, text="von uns")
            commit(raw, "new", 1)
        after = everything(running.bootstrap_servers)
        assert after["by-hand, committed"][1] == {(index, 7 + index, "von uns", ErrorCode.NONE) for index in range(3)}
        running.stop()
        running.start()
        assert everything(running.bootstrap_servers) == after
        running.stop()
        shutil.rmtree(kafka.data_directory / OFFSETS)
        shutil.copytree(folder / OFFSETS, kafka.data_directory / OFFSETS)
    (segment,) = (folder / OFFSETS).glob("*.log")
    tool = "org.apache.kafka.tools.DumpLogSegments"
    dump = kafka.java.run(tool, "--files", str(segment), "--offsets-decoder", "--print-data-log").stdout
    assert '"group":"by-hand","topic":"grouped","partition":2' in dump
    assert '"offset":9' in dump
    assert "von uns" in dump
    with kafka:
        assert everything(kafka.bootstrap_servers) == after
