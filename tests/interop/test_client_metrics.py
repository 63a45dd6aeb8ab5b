"""The clients' metrics beside those of Kafka's own clients: no name of another meaning, and groups' are all there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from millstream import Consumer, Producer
from millstream.testing.kafka import ApacheKafka, Java

pytestmark = pytest.mark.java

PROGRAM = Path(__file__).parents[1] / "support" / "ClientMetrics.java"
# What Kafka's clients do not tell.
OURS = {"fetch_buffer_held_bytes", "records_per_batch_avg"}
PER_PARTITION = "records_lag."


@pytest.fixture(scope="module")
def theirs(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """Names in snake_case, by the kind of client and the group of metrics."""
    java, classes = Java(jars), tmp_path_factory.mktemp("classes")
    java.compile(PROGRAM, classes)
    command = java.command("ClientMetrics")
    command[command.index("-cp") + 1] += f":{classes}"
    printed = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    found: dict[tuple[str, str], set[str]] = {}
    for line in printed.splitlines():
        kind, group, name = line.split("\t")
        found.setdefault((kind, group), set()).add(name.replace("-", "_"))
    return found


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_member_tells_what_kafkas_does(
    apache_kafka: ApacheKafka, theirs: dict[tuple[str, str], set[str]], protocol: str
) -> None:
    topic = f"metrics-{protocol}"
    with Producer(apache_kafka.bootstrap_servers) as producer:
        producer.send(topic, b"v").result(60)
    with Consumer(
        apache_kafka.bootstrap_servers, group_id=topic, group_protocol=protocol, auto_offset_reset="earliest"
    ) as consumer:
        consumer.subscribe([topic])
        while not consumer.poll_records(1):
            pass
        consumer.commit()
        consumer.poll(0.01)
        told = consumer.metrics()
    names = {name for name in told if not name.startswith(PER_PARTITION)}
    known = {name for (kind, _), names in theirs.items() if kind == protocol for name in names}
    missing = theirs[protocol, "consumer-coordinator-metrics"] - names
    assert not missing, missing
    # What a group of the other kind tells is 0 here.
    assert names - known - OURS <= theirs["classic", "consumer-coordinator-metrics"]

    assert told["assigned_partitions"] == 4
    assert (told["rebalance_total"], told["failed_rebalance_total"]) == (1, 0)
    # By the clock of the loop, whose steps are milliseconds.
    assert 0 <= told["rebalance_latency_max"] == told["rebalance_latency_avg"] == told["rebalance_latency_total"]
    assert 0 < told["rebalance_rate_per_hour"] <= 3600 / 30
    assert 0 <= told["last_rebalance_seconds_ago"] < 100
    assert told["commit_total"] == 1
    assert told["commit_latency_max"] >= told["commit_latency_avg"] >= 0
    assert told["time_between_poll_max"] >= told["time_between_poll_avg"] > 0
    assert 0 < told["poll_idle_ratio_avg"] <= 1
    if protocol == "classic":
        assert (told["join_total"], told["sync_total"]) == (1, 1)
        assert 0 < told["join_rate"] <= 1 / 30
    else:
        assert told["join_total"] == 0
        assert told["heartbeat_total"] >= 1
        assert 0 <= told["last_heartbeat_seconds_ago"] < 100


def test_a_producer_tells_nothing_under_a_name_of_its_own(
    apache_kafka: ApacheKafka, theirs: dict[tuple[str, str], set[str]]
) -> None:
    with Producer(apache_kafka.bootstrap_servers) as producer:
        producer.send("metrics", b"v").result(60)
        assert set(producer.metrics()) - OURS <= theirs["producer", "producer-metrics"]
