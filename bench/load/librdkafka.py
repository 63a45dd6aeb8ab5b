"""confluent-kafka (librdkafka) as the load: reading by assignment from the start, and end-to-end latency.

    python -m bench.load.librdkafka consume --bootstrap 127.0.0.1:9092 --topic t --partitions 4 --records 3000000
    python -m bench.load.librdkafka latency --bootstrap 127.0.0.1:9092 --topic t --count 2000

Prints what bench.load.consume and bench.load.latency print.
"""

import argparse
import json
import resource
import time

import confluent_kafka
from bench.load.latency import percentiles


def consume(bootstrap: str, topic: str, partitions: int, records: int) -> dict[str, float]:
    """Read `records` messages, a list of up to 10,000 a call."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "check.crcs": False,
            "queued.min.messages": 1_000_000,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in range(partitions)])
    taken = size_bytes = 0
    started = time.monotonic()
    while taken < records:
        messages = consumer.consume(10_000, 5.0)
        if not messages:
            raise TimeoutError(f"{taken} of {records} records came, then none for 5 s")
        taken += len(messages)
        size_bytes += sum(map(len, messages))
    took = time.monotonic() - started
    consumer.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"records": taken, "bytes": size_bytes, "seconds": took, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def latency(bootstrap: str, topic: str, count: int, warmup: int, pause_s: float) -> dict[str, float]:
    """One record at a time: produce, and poll a consumer that waits for it already."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "acks": 1, "linger.ms": 0})
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 500,
            "fetch.queue.backoff.ms": 0,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    value = b"x" * 100
    latencies = []
    for number in range(count + warmup):
        time.sleep(pause_s)
        started = time.perf_counter_ns()
        producer.produce(topic, value, partition=0)
        message = consumer.poll(30)
        took = time.perf_counter_ns() - started
        assert message is not None, "no record within 30 s"
        assert message.error() is None, message.error()
        assert message.offset() == number, f"offset {message.offset()}, expected {number}"
        producer.poll(0)
        if number >= warmup:
            latencies.append(took / 1e6)
    producer.flush()
    consumer.close()
    return percentiles(latencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("consume", "latency"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--pause-ms", type=float, default=1.0)
    given = parser.parse_args()
    if given.what == "consume":
        result = consume(given.bootstrap, given.topic, given.partitions, given.records)
    else:
        result = latency(given.bootstrap, given.topic, given.count, given.warmup, given.pause_ms / 1000)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
