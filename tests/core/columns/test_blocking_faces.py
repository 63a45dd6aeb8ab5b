"""Producer and Consumer without await, against Millstream and Apache Kafka."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow as pa
import pytest

from millstream import (
    BufferPool,
    ConcurrentUseError,
    Consumer,
    ErrorCode,
    KafkaError,
    Producer,
    RebalanceListener,
    TopicPartition,
)
from millstream.core.columns.schema import RECORD_SCHEMA, VIEW_SCHEMA

DEADLINE_S = 90.0


@pytest.fixture
def producer(bootstrap: str) -> Iterator[Producer]:
    with Producer(bootstrap) as made:
        yield made


def read(consumer: Consumer, count: int, **options: Any) -> pa.Table:
    """Read exactly `count` records as they come."""
    found: list[pa.RecordBatch] = []
    deadline = time.monotonic() + DEADLINE_S
    while sum(batch.num_rows for batch in found) < count:
        assert time.monotonic() < deadline, f"{sum(batch.num_rows for batch in found)} of {count} records"
        found.append(consumer.poll_arrow(1.0, **options))
    table = pa.Table.from_batches(found)
    table.validate(full=True)
    assert table.num_rows == count
    return table


def test_what_is_fetched_lies_in_the_buffers_that_a_consumer_was_given(
    bootstrap: str, make_topic: Callable[[int], str], producer: Producer
) -> None:
    topic = make_topic(1)
    producer.send_batch(topic, pa.table({"value": [b"%d" % row + bytes(1_000) for row in range(500)]}))
    producer.flush()
    pool = BufferPool(16 * 1024 * 1024)
    held = []
    for _ in range(2):
        with Consumer(bootstrap, buffer_pool=pool) as consumer:
            consumer.assign([(topic, 0)])
            consumer.seek(TopicPartition(topic, 0), 0)
            assert read(consumer, 500).column("value")[499].as_py() == b"499" + bytes(1_000)
        held.append(pool.held_bytes)

    # They outlive the one, and do for the next.
    assert held[0] == held[1] > 500_000


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_table_comes_back(bootstrap: str, make_topic: Callable[[int], str], compression: str) -> None:
    topic = make_topic(3)
    rows = 20_000
    table = pa.table(
        {
            "carrier": [None if row % 7 == 0 else f"k{row % 50}" for row in range(rows)],
            "body": [None if row % 11 == 0 else b"value %d" % row for row in range(rows)],
            "at": pa.array(range(1000, rows + 1000), pa.timestamp("ms", "UTC")),
            "h": pa.array(
                [[("n", b"%d" % row)] if row % 3 == 0 else [] for row in range(rows)], pa.map_("utf8", "binary")
            ),
        }
    )
    with Producer(bootstrap, compression_type=compression) as producer:
        handle = producer.send_batch(topic, table, key="carrier", value="body", timestamp="at", headers="h")
        metadata = handle.result(DEADLINE_S)
    assert handle.done()
    assert metadata.num_records == rows
    assert sum(len(span) for spans in metadata.offsets.values() for span in spans) == rows
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign(TopicPartition(topic, index) for index in range(3))
        found = read(consumer, rows)
        consumer.seek_to_beginning()
        viewed = read(consumer, rows, views=True)
        assert viewed.schema == VIEW_SCHEMA
        del viewed
    assert found.schema == RECORD_SCHEMA
    assert set(found["topic"].to_pylist()) == {topic}
    in_order = found.sort_by("timestamp")
    assert in_order["timestamp"].to_pylist() == table["at"].to_pylist()
    assert in_order["key"].cast(pa.string()).to_pylist() == table["carrier"].to_pylist()
    assert in_order["value"].to_pylist() == table["body"].to_pylist()
    assert [[(each["key"], each["value"]) for each in row] for row in in_order["headers"].to_pylist()] == table[
        "h"
    ].to_pylist()
    for partition, spans in metadata.offsets.items():
        of_it = found.filter(pa.compute.equal(found["partition"], partition))
        assert of_it["offset"].to_pylist() == [offset for span in spans for offset in span]
        # Rows keep their order within a partition.
        assert of_it["timestamp"].to_pylist() == sorted(of_it["timestamp"].to_pylist())


def test_records_are_sent_and_iterated(bootstrap: str, producer: Producer, make_topic: Callable[[int], str]) -> None:
    topic = make_topic(1)
    handles = [producer.send(topic, b"%d" % index, key=b"k", headers=[("h", None)]) for index in range(5000)]
    producer.flush(DEADLINE_S)
    assert [handle.result(0).offset for handle in handles] == list(range(5000))
    tp = TopicPartition(topic, 0)
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        values = []
        for record in consumer:
            values.append(record.value)
            if len(values) == 3000:
                break
        assert record.headers == (("h", None),)
        assert consumer.position(tp) == 3000
        assert [each.offset for each in consumer.poll_records(DEADLINE_S, 10)] == list(range(3000, 3010))
        assert consumer.poll_arrow(DEADLINE_S, 20)["offset"].to_pylist() == list(range(3010, 3030))
        assert consumer.position(tp) == 3030
        assert consumer.end_offsets([tp]) == {tp: 5000}
        assert consumer.poll(0, max_records=0) == []
        consumer.seek_to_end(tp)
        assert consumer.poll_arrow(0.0).num_rows == 0
        assert "1 partitions" in repr(consumer)
    assert values == [b"%d" % index for index in range(3000)]


class Witness(RebalanceListener):
    """Writes down what it hears, and on which thread; uses the consumer from inside."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.heard: list[tuple[str, int, int]] = []

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.heard.append(("assigned", len(partitions), threading.get_ident()))
        for tp in partitions:
            self.consumer.seek(tp, 2)

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.heard.append(("revoked", len(partitions), threading.get_ident()))
        self.consumer.commit()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_listeners_and_callbacks_run_on_the_callers_thread(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str], protocol: str
) -> None:
    topic = make_topic(1)
    producer.send_batch(topic, {"value": list("abcde")}).result(DEADLINE_S)
    me, tp, group = threading.get_ident(), TopicPartition(topic, 0), f"of-{topic}"
    committed: list[tuple[Any, Any, int]] = []
    consumer = Consumer(
        bootstrap, group_id=group, group_protocol=protocol, auto_offset_reset="earliest", enable_auto_commit=False
    )
    with consumer:
        witness = Witness(consumer)
        consumer.subscribe([topic], witness)
        assert read(consumer, 3)["value"].to_pylist() == [b"c", b"d", b"e"]
        assert witness.heard == [("assigned", 1, me)]
        consumer.commit_soon(None, lambda offsets, error: committed.append((offsets, error, threading.get_ident())))
        deadline = time.monotonic() + DEADLINE_S
        while not committed and time.monotonic() < deadline:
            consumer.poll_arrow(0.05)
        [(offsets, error, thread)] = committed
        assert (offsets[tp].offset, error, thread) == (5, None, me)
    assert witness.heard[1:] == [("revoked", 1, me)]
    with Consumer(bootstrap, group_id=group) as another:
        found = another.committed([tp])[tp]
        assert found is not None
        assert found.offset == 5


def test_what_a_listener_raises_the_poll_raises(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str]
) -> None:
    topic = make_topic(1)
    producer.send(topic, b"v").result(DEADLINE_S)

    class Raising(RebalanceListener):
        def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            raise LookupError("not these")

    with Consumer(bootstrap, group_id=f"of-{topic}", auto_offset_reset="earliest") as consumer:
        consumer.subscribe([topic], Raising())
        with pytest.raises(LookupError, match="not these"):
            read(consumer, 1)
        assert read(consumer, 1)["value"].to_pylist() == [b"v"]


def test_a_consumer_is_one_threads_at_a_time(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    tp = TopicPartition(make_topic(1), 0)
    refused: list[BaseException] = []
    with Consumer(bootstrap) as consumer:
        consumer.assign([tp])
        polling, stop = threading.Event(), threading.Event()

        def poll() -> None:
            while not stop.is_set():
                polling.set()
                try:
                    consumer.poll_arrow(0.2)
                except ConcurrentUseError as error:
                    refused.append(error)

        other = threading.Thread(target=poll)
        other.start()
        try:
            assert polling.wait(DEADLINE_S)
            deadline = time.monotonic() + DEADLINE_S
            while not refused and time.monotonic() < deadline:
                try:
                    consumer.position(tp)
                except ConcurrentUseError as error:
                    refused.append(error)
        finally:
            stop.set()
            other.join(DEADLINE_S)
        assert "two threads at once" in str(refused[0])
        assert consumer.poll_arrow(0.0).num_rows == 0


def test_an_interrupted_poll_leaves_the_consumer_usable(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str]
) -> None:
    topic = make_topic(1)
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        for _ in range(3):
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                consumer.poll_arrow(DEADLINE_S)
            timer.join()
        producer.send(topic, b"v").result(DEADLINE_S)
        assert read(consumer, 1)["value"].to_pylist() == [b"v"]


def test_an_interrupt_at_any_step_of_waiting_ends_the_call(
    bootstrap: str, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come between two instructions; a poll that went on without its caller would refuse the next one."""
    monkeypatch.setattr("millstream.core.columns.caller.LOOK_S", 0.0)
    topic = make_topic(1)
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        for _ in range(30):
            timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012  it may come as soon as the timer runs
                timer.start()
                consumer.poll_arrow(DEADLINE_S)
            timer.join()
            consumer.poll(0)


def test_what_an_interrupted_call_would_have_returned_comes_again(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(1)
    producer.send_batch(topic, {"value": list("abc")}).result(DEADLINE_S)
    tp = TopicPartition(topic, 0)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        with monkeypatch.context() as patch:
            patch.setattr("millstream.core.columns.gathering.gather", interrupted)
            with pytest.raises(KeyboardInterrupt):
                consumer.poll_arrow(DEADLINE_S)
        assert consumer.position(tp) == 0
        assert read(consumer, 3)["value"].to_pylist() == [b"a", b"b", b"c"]


def test_views_are_counted_until_they_are_gone(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str]
) -> None:
    topic = make_topic(1)
    producer.send_batch(topic, {"value": [b"x" * 1000] * 100}).result(DEADLINE_S)
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        held = consumer._consumer._engine.memory
        table = read(consumer, 100, views=True)
        assert held.held_bytes > 100_000
        del table
        deadline = time.monotonic() + DEADLINE_S
        while held.held_bytes and time.monotonic() < deadline:
            consumer.poll_arrow(0.01)
        assert held.held_bytes == 0


def test_errors_travel_between_processes(bootstrap: str, producer: Producer) -> None:
    with pytest.raises(KafkaError) as raised:
        producer.send_batch("no such topic!", {"value": ["a"]})
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.code, str(again)) == (raised.value.code, str(raised.value))
    assert raised.value.code is ErrorCode.INVALID_TOPIC_EXCEPTION
    assert "open" in repr(producer)


def test_a_forked_child_is_told(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    code = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
from millstream import Consumer, ForkedError, Producer, TopicPartition
bootstrap, topic = sys.argv[1:]
producer = Producer(bootstrap)
consumer = Consumer(bootstrap, auto_offset_reset="earliest")
producer.send(topic, b"parent").result(60)
consumer.assign([TopicPartition(topic, 0)])
child = os.fork()
if child == 0:
    for use in (lambda: producer.send(topic, b"lost"), lambda: producer.send_batch(topic, {"value": ["lost"]}),
                lambda: producer.flush(), lambda: consumer.poll_arrow(1), lambda: next(iter(consumer))):
        try:
            use()
        except ForkedError:
            print("refused", flush=True)
    producer.close()
    consumer.close()
    with Producer(bootstrap) as mine:
        mine.send(topic, b"child").result(60)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
producer.send(topic, b"again").result(60)
found = []
while len(found) < 3:
    found += consumer.poll_arrow(60)["value"].to_pylist()
print(found)
producer.close()
consumer.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, bootstrap, make_topic(1)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused"] * 5 + ["[b'parent', b'child', b'again']"]


def test_a_program_ends_in_silence_with_clients_open(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    code = """
import sys
from millstream import Consumer, Producer
bootstrap, topic = sys.argv[1:]
producer = Producer(bootstrap)
producer.send(topic, b"v").result(60)
member = Consumer(bootstrap, group_id=topic, auto_offset_reset="earliest")
member.subscribe([topic])
reader = Consumer(bootstrap, auto_offset_reset="earliest")
reader.assign([(topic, 0)])
assert member.poll_records(60) and reader.poll_records(60)
reader.poll(0.1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, bootstrap, make_topic(1)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_fetched_behind_a_stop(bootstrap: str, make_topic: Callable[[int], str], producer: Producer) -> None:
    topic = make_topic(2)
    stopped, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for _ in range(5):
        producer.send_batch(topic, pa.table({"value": [bytes(100)] * 100}), partition=0)
        producer.flush()
    # An answer has one batch of a partition.
    with Consumer(bootstrap, max_partition_fetch_bytes=1_000) as consumer:
        consumer.assign([stopped, other])
        consumer.seek(other, 0)
        consumer.seek(stopped, 0, until=250)
        assert read(consumer, 300).column("offset").to_pylist() == list(range(300))
        for number in range(3):
            producer.send_batch(topic, pa.table({"value": [b"%d" % number]}), partition=1)
            producer.flush()
            assert read(consumer, 1).column("partition").to_pylist() == [1]
        consumer.seek(stopped, 249, until=250)
        assert read(consumer, 51).column("offset").to_pylist() == list(range(249, 300))
        consumer.seek(stopped, 300)
        assert read(consumer, 200).column("offset").to_pylist() == list(range(300, 500))
