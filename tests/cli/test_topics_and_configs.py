"""`millstream topics`, `configs` and `offsets` as a user types them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cli.conftest import CommandLine

from millstream.testing.kafka import wait_until

TopicName = Callable[[], str]


def test_a_topic_is_created_shown_grown_and_deleted(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    assert millstream("topics", "create", name, "-p", "2", "-c", "retention.ms=60000").out == f"{name}: created\n"

    (listed,) = [topic for topic in millstream("topics", "list", "--json").json if topic["name"] == name]
    assert (listed["partitions"], listed["replication_factor"], listed["internal"]) == (2, 1, False)
    assert len(listed["id"]) == 22

    assert millstream("topics", "alter", name, "--partitions", "4").out == f"{name}: has 4 partitions\n"
    (described,) = millstream("topics", "describe", name, "--json").json
    assert described["configs"]["retention.ms"] == "60000"
    assert [one["partition"] for one in described["partitions"]] == [0, 1, 2, 3]
    assert {(one["start_offset"], one["end_offset"]) for one in described["partitions"]} == {(0, 0)}
    text = millstream("topics", "describe", name).out
    assert "retention.ms = 60000" in text
    assert "PARTITION" in text

    refused = millstream("topics", "delete", name, code=1)
    assert "--yes" in refused.err
    assert millstream("topics", "delete", name, "--yes", "--json").json == [
        {"topic": name, "changed": True, "error": None, "message": None}
    ]
    assert f"there is no topic '{name}'" in millstream("topics", "describe", name, code=1).err


def test_what_exists_or_is_missing_can_be_forgiven(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name)
    assert "already exists" in millstream("topics", "create", name, code=1).err
    assert millstream("topics", "create", name, "--if-not-exists").out == f"{name}: unchanged\n"
    millstream("topics", "delete", name, "--yes")
    assert millstream("topics", "delete", name, "--yes", "--if-exists").out == f"{name}: unchanged\n"


def test_a_topic_that_is_missing_is_said_by_every_command(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    for command in (
        ("topics", "describe", name),
        ("topics", "delete", name, "--yes"),
        ("topics", "alter", name, "-p", "2"),
        ("configs", "describe", "-t", name),
        ("configs", "set", "-t", name, "retention.ms=1"),
        ("offsets", name),
        ("consume", name),
    ):
        assert f"there is no topic '{name}'" in millstream(*command, code=1).err, command


def test_a_topic_is_tried_before_it_is_created(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    assert millstream("topics", "create", name, "--dry-run").out == f"{name}: could be created\n"
    assert not millstream("topics", "create", name, "--dry-run", "--json").json[0]["changed"]
    assert "nonsense" in millstream("topics", "create", name, "-c", "nonsense=1", "--dry-run", code=1).err
    assert name not in millstream("topics", "list").out


def test_every_topic_is_described_or_only_partitions_in_trouble(millstream: CommandLine, topic_name: TopicName) -> None:
    name, other = topic_name(), topic_name()
    millstream("topics", "create", name, other)
    assert {name, other} <= {one["name"] for one in millstream("topics", "describe", "--json").json}
    for trouble in ("--under-replicated", "--unavailable"):
        result = millstream("topics", "describe", trouble)
        assert (result.out, result.err) == ("", "there is no such partition\n")


def test_records_are_trimmed_by_offset_and_by_time(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "2")
    millstream("produce", name, "-p", "0", stdin="a\nb\nc\n")
    assert "--yes" in millstream("topics", "trim", name, "--offset", "1", code=1).err
    trimmed = millstream("topics", "trim", name, "-p", "0", "--offset", "1", "--yes")
    assert trimmed.out == f"{name}-0: starts at offset 1\n"
    assert millstream("consume", name).out == "b\nc\n"
    assert "offset 9 is past its end" in millstream("topics", "trim", name, "--offset", "9", "-y", code=1).err
    assert millstream("topics", "trim", name, "--time", "1970-01-02", "-y", "--json").json == [
        {"topic": name, "partition": 0, "earliest": 1},
        {"topic": name, "partition": 1, "earliest": 0},
    ]
    millstream("topics", "trim", name, "--time", "latest", "--yes")
    assert [one["earliest"] for one in millstream("offsets", name, "--json").json] == [3, 0]
    for wrong in ((), ("--offset", "1", "--time", "latest")):
        assert "give one of" in millstream("topics", "trim", name, "-y", *wrong, code=2).err


def test_one_bad_topic_does_not_keep_the_others_from_being_made(millstream: CommandLine, topic_name: TopicName) -> None:
    good = topic_name()
    result = millstream("topics", "create", "no spaces", good, code=1)
    assert result.out == f"{good}: created\n"
    assert "no spaces" in result.err


def configs_once(
    millstream: CommandLine, condition: Callable[[dict[str, Any]], bool], *resource: str
) -> dict[str, Any]:
    """The configs that are set, by name, once they are as wanted: a Kafka broker hears of a change a little later."""
    found: dict[str, Any] = {}

    def is_so() -> bool:
        found.clear()
        found.update({one["name"]: one for one in millstream("configs", "describe", *resource, "--json").json})
        return condition(found)

    wait_until(is_so, 60, "the change of configs to be seen")
    return found


def test_configs_are_set_shown_and_taken_back(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name)
    set_ = millstream("configs", "set", "--topic", name, "retention.ms=60000", "cleanup.policy+=compact")
    assert f"topic {name}: retention.ms = 60000" in set_.out

    shown = configs_once(millstream, lambda shown: "retention.ms" in shown, "--topic", name)
    assert shown["retention.ms"]["value"] == "60000"
    assert shown["retention.ms"]["source"] == "DYNAMIC_TOPIC_CONFIG"
    assert set(shown["cleanup.policy"]["value"].split(",")) == {"compact", "delete"}
    assert "segment.ms" not in shown
    everything = millstream("configs", "describe", "--topic", name, "--all", "--docs", "--json").json
    assert {"segment.ms", "retention.ms"} <= {one["name"] for one in everything}
    assert all(one["documentation"] for one in everything)

    millstream("configs", "set", "--topic", name, "retention.ms=1", "--dry-run")
    millstream("configs", "delete", "--topic", name, "cleanup.policy")
    left = configs_once(millstream, lambda left: "cleanup.policy" not in left, "-t", name)
    assert left["retention.ms"]["value"] == "60000"

    assert "retention.ms" in millstream("configs", "set", "--topic", name, "retention.ms=soon", code=1).err
    millstream("configs", "set", "--topic", name, "retention.ms", code=2)
    millstream("configs", "describe", code=2)


def test_configs_of_a_group(millstream: CommandLine, topic_name: TopicName) -> None:
    group = f"group-of-{topic_name()}"
    of_group = ("--group", group)
    assert f"group {group} has its default" in millstream("configs", "describe", *of_group).err
    everything = {one["name"]: one for one in millstream("configs", "describe", *of_group, "--all", "--json").json}
    assert everything["consumer.session.timeout.ms"]["value"] == "45000"
    set_ = millstream("configs", "set", "-g", group, "consumer.session.timeout.ms=50000")
    assert set_.out == f"group {group}: consumer.session.timeout.ms = 50000\n"
    (shown,) = configs_once(millstream, bool, *of_group).values()
    assert (shown["name"], shown["value"], shown["source"]) == ("consumer.session.timeout.ms", "50000", "GROUP_CONFIG")
    assert "  group" in millstream("configs", "describe", *of_group).out
    assert "retention.ms" in millstream("configs", "set", *of_group, "retention.ms=1", code=1).err
    assert millstream("configs", "set", *of_group, "consumer.session.timeout.ms=1", code=1).err
    millstream("configs", "delete", *of_group, "consumer.session.timeout.ms")
    configs_once(millstream, lambda shown: not shown, *of_group)
    assert "name one of --topic" in millstream("configs", "describe", *of_group, "--topic", "t", code=2).err


def test_offsets_at_both_ends_and_by_time(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "2")
    millstream("produce", name, "--partition", "1", stdin="a\nb\nc\n")

    assert millstream("offsets", name, "--json").json == [
        {"topic": name, "partition": 0, "earliest": 0, "latest": 0},
        {"topic": name, "partition": 1, "earliest": 0, "latest": 3},
    ]
    for kafkas, ours in (("-1", "latest"), ("-2", "earliest"), ("-3", "max-timestamp")):
        assert millstream("offsets", name, "--time", kafkas).out == millstream("offsets", name, "--time", ours).out
    assert [one["latest"] for one in millstream("offsets", name, "--read-committed", "--json").json] == [0, 3]
    (at,) = millstream("offsets", name, "-p", "1", "--time", "1970-01-02", "--json").json
    assert at["offset"] == 0
    assert at["timestamp"] > 1_600_000_000_000
    (later,) = millstream("offsets", name, "-p", "1", "--time", "2100-01-01T00:00:00Z", "--json").json
    assert later == {"topic": name, "partition": 1, "offset": None, "timestamp": None}
    assert "LATEST" in millstream("offsets", name).out
    assert "has no partition 7" in millstream("offsets", name, "-p", "7", code=2).err
    assert "is no time" in millstream("offsets", name, "--time", "tomorrow", code=2).err
