"""Kafka's ConsumerGroupCommand, all that it can do, on groups of both protocols and on one that has ended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import pytest
from tests.interop.conftest import MakeTopic

from millstream.testing.kafka import Java, wait_until

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
COUNT = 30


class Command:
    """The tool on one broker."""

    def __init__(self, bootstrap: str, jars: Path) -> None:
        self.bootstrap = bootstrap
        self._java = Java(jars)

    def __call__(self, *arguments: str) -> str:
        """All that it prints."""
        done = self._run(*arguments)
        return done.stdout + done.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._java.run(COMMAND, "--bootstrap-server", self.bootstrap, *arguments, check=False)

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        """A table that it prints, by its columns' names; what it logs goes to its standard error."""
        told = (line.strip() for line in self._run(*arguments).stdout.splitlines())
        lines = [line for line in told if line and not line.startswith("Consumer group ")]
        head = next(index for index, line in enumerate(lines) if line.startswith("GROUP "))
        names = re.split(r"\s{2,}|\s(?=[A-Z#])", lines[head].strip())
        return [dict(zip(names, line.split(), strict=False)) for line in lines[head + 1 :]]

    def offsets(self, group: str) -> dict[int, tuple[str, str, str]]:
        """Partition -> (committed, end, lag)."""
        rows = self.rows("--describe", "--group", group)
        return {int(row["PARTITION"]): (row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) for row in rows}


@pytest.fixture(scope="session")
def command(bootstrap: str, jars: Path) -> Command:
    return Command(bootstrap, jars)


def fill(bootstrap: str, topic: str) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap})
    for partition in range(2):
        for number in range(COUNT):
            producer.produce(topic, b"x", partition=partition, timestamp=1_700_000_000_000 + number * 1000)
    assert producer.flush(90) == 0


@contextmanager
def member(bootstrap: str, group: str, topic: str, protocol: str) -> Iterator[confluent_kafka.Consumer]:
    """A consumer that has both partitions, and has committed 10 and 20, while the block runs."""
    settings: dict[str, object] = {"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol}
    settings |= {"client.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = confluent_kafka.Consumer(settings)
    try:
        consumer.subscribe([topic])

        def has_both() -> bool:
            consumer.poll(0.05)
            return len(consumer.assignment()) == 2

        wait_until(has_both, 90, "an assignment")
        offsets = [confluent_kafka.TopicPartition(topic, partition, 10 * (partition + 1)) for partition in range(2)]
        consumer.commit(offsets=offsets, asynchronous=False)
        yield consumer
    finally:
        consumer.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_what_is_told_of_a_group(command: Command, make_topic: MakeTopic, protocol: str) -> None:
    topic = make_topic(f"told-{protocol}", 2)
    group = f"group-{topic}"
    fill(command.bootstrap, topic)
    with member(command.bootstrap, group, topic, protocol):
        assert group in command("--list").split()
        (listed,) = [row for row in command.rows("--list", "--state") if row["GROUP"] == group]
        assert listed["STATE"] == "Stable"
        assert group in command("--list", "--state", "Stable").split()
        assert group not in command("--list", "--state", "Empty").split()
        assert group in command("--list", "--type", protocol).split()
        assert command.offsets(group) == {0: ("10", "30", "20"), 1: ("20", "30", "10")}
        described = command.rows("--describe", "--group", group, "--verbose")
        assert {(row["TOPIC"], row["CLIENT-ID"], row["HOST"]) for row in described} == {(topic, "reader", "/127.0.0.1")}
        (only,) = command.rows("--describe", "--group", group, "--members")
        assert (only["CLIENT-ID"], only["#PARTITIONS"]) == ("reader", "2")
        told = command("--describe", "--group", group, "--members", "--verbose")
        assert re.search(rf"{topic}(\(0,1\)|:0,1)", told), told
        (state,) = command.rows("--describe", "--group", group, "--state")
        assert "Stable" in state.values()
        assert group in command("--describe", "--all-groups", "--state")

        refused = command("--delete", "--group", group)
        assert "GroupNotEmptyException" in refused, refused
        refused = command("--reset-offsets", "--group", group, "--all-topics", "--to-earliest", "--execute")
        assert "is inactive, but the current state is" in refused, refused
        refused = command("--delete-offsets", "--group", group, "--topic", topic)
        assert "GroupSubscribedToTopicException" in refused or "actively subscribed" in refused, refused
    assert "has no active members" in command("--describe", "--group", group)


def test_offsets_are_reset_every_way(command: Command, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic("resetting", 2)
    group = f"group-{topic}"
    fill(command.bootstrap, topic)
    with member(command.bootstrap, group, topic, "classic"):
        pass
    reset = ("--reset-offsets", "--group", group)

    def after(*how: str) -> list[int]:
        rows = command.rows(*reset, *how, "--execute")
        planned = {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in rows}
        told = command.offsets(group)
        assert {partition: int(told[partition][0]) for partition in planned} == planned
        return [int(told[partition][0]) for partition in sorted(told)]

    command(*reset, "--all-topics", "--to-earliest", "--dry-run")
    assert command.offsets(group)[0][0] == "10"
    assert after("--topic", f"{topic}:0", "--to-offset", "7") == [7, 20]
    assert after("--topic", topic, "--shift-by", "-5") == [2, 15]
    exported = command(*reset, "--all-topics", "--to-current", "--export")
    plan = tmp_path / "plan.csv"
    plan.write_text("".join(f"{line}\n" for line in exported.splitlines() if line.count(",") == 2))
    assert after("--all-topics", "--to-latest") == [30, 30]
    assert after("--from-file", str(plan)) == [2, 15]
    assert after("--all-topics", "--to-datetime", "2023-11-14T22:13:25.000") == [5, 5]
    assert after("--all-topics", "--by-duration", "PT1S") == [30, 30]
    assert after("--all-topics", "--to-earliest") == [0, 0]


def test_offsets_and_groups_are_deleted(command: Command, make_topic: MakeTopic) -> None:
    topic = make_topic("forgotten", 2)
    group = f"group-{topic}"
    fill(command.bootstrap, topic)
    with member(command.bootstrap, group, topic, "consumer"):
        pass
    told = command("--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    assert re.search(rf"{topic}\s+0\s+Successful", told), told
    assert set(command.offsets(group)) == {1}
    assert "was successful" in command("--delete", "--group", group)
    assert group not in command("--list").split()
    assert "GroupIdNotFoundException" in command("--describe", "--group", group)
