"""Rows of bench/broker.py whose load is one of Kafka's own tools, a JVM each: the slower side more often than not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.load.brokers import Served, cpu_seconds

from millstream.testing.kafka import Java

if TYPE_CHECKING:
    from bench.broker import Bench

TOOLS = "org.apache.kafka.tools."


def run_tool(bench: Bench, name: str, broker: Served, tool: str, *arguments: str) -> tuple[str, float]:
    """What a tool prints, and the broker's CPU-seconds meanwhile."""
    bench.commands.setdefault(name, f"java {TOOLS}{tool} {' '.join(arguments)}")
    before = cpu_seconds(broker.pid)
    done = Java().run(f"{TOOLS}{tool}", "--bootstrap-server", broker.bootstrap, *arguments, timeout_s=300)
    return done.stdout, cpu_seconds(broker.pid) - before


def producer_performance(bench: Bench, name: str) -> None:
    """ProducerPerformance: the broker's CPU tells more than the rate."""
    count = int(400_000 * bench.settings.seconds)
    settings = ("acks=1", "batch.size=1100000", "linger.ms=20", "max.request.size=2097152", "enable.idempotence=false")
    properties = [word for setting in settings for word in ("--command-property", setting)]

    def run(broker: Served, records: int) -> dict[str, float]:
        topic = bench.topic(broker)
        arguments = ("--topic", topic, "--num-records", str(records), "--record-size", "100", "--throughput", "-1")
        told, used = run_tool(bench, name, broker, "ProducerPerformance", *arguments, *properties)
        bench.delete(broker, topic)
        rate = float(told.splitlines()[-1].split(" records/sec")[0].split()[-1])
        return {"records/s": rate, "broker CPU us/record": used / records * 1e6}

    bench.alternate(name, lambda b: run(b, count), warm_up=lambda b: run(b, count // 2))


def consumer_performance(topic: str, prepare: Callable[[Bench, str], None]) -> Callable[[Bench, str], None]:
    """ConsumerPerformance, which joins a group of its own and reads a filled topic; joining is not in its rate."""

    def row(bench: Bench, name: str) -> None:
        prepare(bench, topic)
        records = min(5_000_000, bench.settings.consumed_bytes * 4 // 110 * 9 // 10)

        def run(broker: Served) -> dict[str, float]:
            arguments = ("--topic", topic, "--num-records", str(records), "--group", f"performance-{time.time_ns()}")
            told, used = run_tool(bench, name, broker, "ConsumerPerformance", *arguments, "--hide-header")
            values = told.splitlines()[-1].split(", ")
            taken = int(values[4])
            assert taken >= records, told
            return {
                "records/s": float(values[9]),
                "joining ms": float(values[6]),
                "broker CPU us/record": used / taken * 1e6,
            }

        bench.alternate(name, run, warm_up=run)

    return row


def end_to_end_latency(bench: Bench, name: str) -> None:
    """EndToEndLatency: one record at a time through a producer and a consumer of one JVM; it counts whole ms."""

    def run(broker: Served) -> dict[str, float]:
        topic = bench.topic(broker, 1)
        arguments = ("--topic", topic, "--num-records", str(bench.settings.latencies), "--record-size", "100")
        told, _ = run_tool(bench, name, broker, "EndToEndLatency", *arguments, "--producer-acks", "1")
        average = re.search(r"Avg latency: ([\d.]+) ms", told)
        parts = re.search(r"50th = (\d+), 99th = (\d+), 99.9th = (\d+)", told)
        assert average is not None, told
        assert parts is not None, told
        return {"average ms": float(average[1]), "p99 ms": float(parts[2]), "p999 ms": float(parts[3])}

    bench.alternate(name, run)
