"""One member of a consumer group in a process of its own: the program that `group_members` starts, stops and kills.

    python -m tests.support.group_member confluent --bootstrap HOST:PORT --group g --topic t [--protocol consumer] ...

It reads, says what it read, commits that, and so on until SIGTERM, when it leaves the group. What it says are lines of
JSON as Kafka's own VerifiableConsumer prints them: partitions_assigned, partitions_revoked, records_consumed,
offsets_committed, shutdown_complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiokafka
import aiokafka.abc
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors

POLL_S = 0.05
# kafka-python waits so long for a coordinator before it says that a commit failed.
COMMIT_S = 5.0
ENTRY = tuple[str, int]


def say(name: str, **what: object) -> None:
    """Print an event."""
    sys.stdout.write(json.dumps({"timestamp": int(time.time() * 1000), "name": name, **what}) + "\n")
    sys.stdout.flush()


def partitions(found: Iterable[Any]) -> list[dict[str, object]]:
    return [{"topic": each.topic, "partition": each.partition} for each in found]


class Uncommitted:
    """What was read and is not committed yet, by partition: the offset to commit.

    A commit that failed is tried again with the next turn, as an application would: a client may give one up while it
    looks for its coordinator. What another assignment begins with is read again from what was committed.
    """

    def __init__(self) -> None:
        self.offsets: dict[ENTRY, int] = {}

    def add(self, read: Mapping[ENTRY, list[int]]) -> None:
        self.offsets |= {entry: offsets[-1] + 1 for entry, offsets in read.items()}

    def forget(self, partitions: Iterable[Any]) -> None:
        """These were given or taken."""
        for each in partitions:
            self.offsets.pop((each.topic, each.partition), None)

    def end(self, error: Exception | None = None) -> None:
        """A commit of all of it has ended: say so, and forget it unless it failed."""
        told = [
            {"topic": topic, "partition": index, "offset": offset} for (topic, index), offset in self.offsets.items()
        ]
        say("offsets_committed", offsets=told, success=error is None, error=None if error is None else repr(error))
        if error is None:
            self.offsets.clear()


def say_consumed(read: Mapping[ENTRY, list[int]]) -> None:
    """Tell the offsets that were read of each partition."""
    told = [
        {
            "topic": topic,
            "partition": partition,
            "count": len(offsets),
            "minOffset": offsets[0],
            "maxOffset": offsets[-1],
        }
        for (topic, partition), offsets in read.items()
    ]
    say("records_consumed", count=sum(map(len, read.values())), partitions=told)


def confluent(given: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    """librdkafka."""
    settings: dict[str, Any] = {
        "bootstrap.servers": given.bootstrap,
        "group.id": given.group,
        "group.protocol": given.protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 50,
        "reconnect.backoff.max.ms": 200,
        "log_level": 0,
    }
    if given.protocol == "classic":
        settings |= {"session.timeout.ms": given.session_ms, "heartbeat.interval.ms": 200}
        settings["partition.assignment.strategy"] = given.assignor
    if given.instance:
        settings["group.instance.id"] = given.instance
    consumer = confluent_kafka.Consumer(settings)
    uncommitted = Uncommitted()

    def tell(name: str, found: list[Any]) -> None:
        uncommitted.forget(found)
        say(name, partitions=partitions(found))

    consumer.subscribe(
        [given.topic],
        on_assign=lambda _, found: tell("partitions_assigned", found),
        on_revoke=lambda _, found: tell("partitions_revoked", found),
    )
    while not stopped():
        read: dict[ENTRY, list[int]] = {}
        for message in consumer.consume(500, POLL_S):
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if message.error() is None and topic is not None and partition is not None and offset is not None:
                read.setdefault((topic, partition), []).append(offset)
        if read:
            say_consumed(read)
            uncommitted.add(read)
        if uncommitted.offsets:
            offsets = [confluent_kafka.TopicPartition(*key, offset) for key, offset in uncommitted.offsets.items()]
            try:
                failed = [each.error for each in consumer.commit(offsets=offsets, asynchronous=False) if each.error]
                uncommitted.end(confluent_kafka.KafkaException(failed[0]) if failed else None)
            except confluent_kafka.KafkaException as error:
                uncommitted.end(error)
    consumer.close()


def kafka_python(given: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    """kafka-python."""
    uncommitted = Uncommitted()

    class Listener(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Any) -> None:
            uncommitted.forget(assigned)
            say("partitions_assigned", partitions=partitions(assigned))

        def on_partitions_revoked(self, revoked: Any) -> None:
            uncommitted.forget(revoked)
            say("partitions_revoked", partitions=partitions(revoked))

    consumer = kafka.KafkaConsumer(
        bootstrap_servers=given.bootstrap,
        group_id=given.group,
        group_instance_id=given.instance or None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=given.session_ms,
        heartbeat_interval_ms=200,
        fetch_max_wait_ms=50,
        reconnect_backoff_max_ms=200,
    )
    consumer.subscribe([given.topic], listener=Listener())
    # A leader notes the partitions that it assigned as they were when metadata last came, and none of a topic that it
    # had not subscribed to then. It joins again at once, and kafka-python 3.0 never takes that second assignment up if
    # the poll in which it began ends before it comes. So metadata has to come before the first poll.
    consumer.topics()
    while not stopped():
        polled = consumer.poll(timeout_ms=int(POLL_S * 1000))
        read = {(tp.topic, tp.partition): [each.offset for each in found] for tp, found in polled.items() if found}
        if read:
            say_consumed(read)
            uncommitted.add(read)
        if uncommitted.offsets:
            offsets = {
                kafka.TopicPartition(*key): kafka.OffsetAndMetadata(offset, "", -1)
                for key, offset in uncommitted.offsets.items()
            }
            try:
                consumer.commit(offsets, timeout_ms=int(COMMIT_S * 1000))
            except kafka.errors.KafkaError as error:
                uncommitted.end(error)
            else:
                uncommitted.end()
    consumer.close()


def aio(given: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    """aiokafka."""
    uncommitted = Uncommitted()

    class Listener(aiokafka.abc.ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Any) -> None:
            uncommitted.forget(assigned)
            say("partitions_assigned", partitions=partitions(assigned))

        def on_partitions_revoked(self, revoked: Any) -> None:
            uncommitted.forget(revoked)
            say("partitions_revoked", partitions=partitions(revoked))

    async def run() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=given.bootstrap,
            group_id=given.group,
            group_instance_id=given.instance or None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=given.session_ms,
            heartbeat_interval_ms=200,
            fetch_max_wait_ms=50,
            metadata_max_age_ms=1000,
        )
        consumer.subscribe([given.topic], listener=Listener())
        await consumer.start()
        while not stopped():
            polled = await consumer.getmany(timeout_ms=int(POLL_S * 1000))
            read = {(tp.topic, tp.partition): [each.offset for each in found] for tp, found in polled.items() if found}
            if read:
                say_consumed(read)
                uncommitted.add(read)
            if uncommitted.offsets:
                offsets = {aiokafka.TopicPartition(*key): offset for key, offset in uncommitted.offsets.items()}
                try:
                    await consumer.commit(offsets)
                except aiokafka.errors.KafkaError as error:
                    uncommitted.end(error)
                else:
                    uncommitted.end()
        await consumer.stop()

    asyncio.run(run())


CLIENTS = {"confluent": confluent, "kafka-python": kafka_python, "aiokafka": aio}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    for name in ("bootstrap", "group", "topic"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--protocol", default="classic")
    parser.add_argument("--assignor", default="range")
    parser.add_argument("--instance", default="")
    parser.add_argument("--session-ms", type=int, required=True)
    given = parser.parse_args()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    CLIENTS[given.client](given, lambda: bool(asked))
    say("shutdown_complete")


if __name__ == "__main__":
    main()
