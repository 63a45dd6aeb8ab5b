"""`millstream groups` as a user types it, against Millstream and against Apache Kafka."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from tests.cli.conftest import CommandLine
from typer import BadParameter

from millstream.cli.reset_offsets import duration_ms
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from millstream.core.wire.messages.leave_group import LeaveGroupRequest
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection

TopicName = Callable[[], str]
COUNT = 20
BASE_MS = 1_700_000_000_000


@pytest.fixture
def topic(millstream: CommandLine, topic_name: TopicName) -> str:
    """A topic of two partitions with COUNT records each, a second apart."""
    name = topic_name()
    millstream("topics", "create", name, "-p", "2", "-c", "retention.ms=-1")
    producer = confluent_kafka.Producer({"bootstrap.servers": millstream.bootstrap})
    for partition in range(2):
        for number in range(COUNT):
            producer.produce(name, b"%d" % number, partition=partition, timestamp=BASE_MS + number * 1000)
    assert producer.flush(90) == 0
    return name


@pytest.fixture
def group(millstream: CommandLine, topic: str) -> str:
    """A group without members that committed 5 and 10."""
    commit(millstream, f"of-{topic}", topic, 5, 10)
    return f"of-{topic}"


def commit(millstream: CommandLine, group: str, topic: str, *offsets: int) -> None:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": millstream.bootstrap, "group.id": group})
    committed = [confluent_kafka.TopicPartition(topic, partition, offset) for partition, offset in enumerate(offsets)]
    consumer.commit(offsets=committed, asynchronous=False)
    consumer.close()


@contextmanager
def member(millstream: CommandLine, group: str, topic: str, protocol: str, **settings: str) -> Iterator[Any]:
    """A consumer that has all partitions of a topic while the block runs."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": millstream.bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "client.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **settings,
        }
    )
    try:
        consumer.subscribe([topic])

        def has_both() -> bool:
            consumer.poll(0.05)
            return len(consumer.assignment()) == 2

        wait_until(has_both, 90, "an assignment")
        yield consumer
    finally:
        consumer.close()


def offsets(millstream: CommandLine, group: str) -> dict[int, int]:
    described = millstream("groups", "describe", group, "--json").json[0]
    return {one["partition"]: one["committed"] for one in described["offsets"]}


def test_a_group_without_members_is_listed_and_described(millstream: CommandLine, topic: str, group: str) -> None:
    (listed,) = [one for one in millstream("groups", "list", "--json").json if one["group"] == group]
    assert (listed["state"], listed["type"], listed["protocol"]) == ("Empty", "Classic", "")
    assert group in millstream("groups", "list", "--state", "empty").out
    assert group not in millstream("groups", "list", "--state", "Stable").out
    assert group not in millstream("groups", "list", "--type", "consumer").out
    assert group in millstream("groups", "list", "--type", "classic,consumer").out
    shown = millstream("groups", "describe", group)
    assert "has no members" in shown.err
    assert [line.split()[2:6] for line in shown.out.splitlines()[1:]] == [
        ["0", "5", "20", "15"],
        ["1", "10", "20", "10"],
    ]
    assert "LEADER EPOCH" in millstream("groups", "describe", group, "--verbose").out
    assert topic in millstream("groups", "describe", "--all-groups").out
    described = millstream("groups", "describe", group, "--json").json[0]
    assert (described["members"], described["state"]) == ([], "Empty")
    assert [one["lag"] for one in described["offsets"]] == [15, 10]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_with_a_member(millstream: CommandLine, topic: str, protocol: str) -> None:
    group = f"{protocol}-{topic}"
    with member(millstream, group, topic, protocol, **{"group.instance.id": "first"}) as consumer:
        consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, 3)], asynchronous=False)
        described = wait_until(
            lambda: (found := millstream("groups", "describe", group, "--json").json[0])["state"] == "Stable" and found,
            90,
            "a stable group",
        )
        assert described["type"] == protocol.title()
        assert described["protocol"] == "consumer"
        (only,) = described["members"]
        assert only["instance"] == "first"
        assert only["client"] == "reader"
        assert only["host"].startswith("/")
        assert only["assigned"] == [{"topic": topic, "partition": 0}, {"topic": topic, "partition": 1}]
        assert [(one["committed"], one["lag"]) for one in described["offsets"]] == [(3, 17), (None, None)]
        assert {one["member"] for one in described["offsets"]} == {only["id"]}
        millstream.settings["COLUMNS"] = "300"
        assert " first " in millstream("groups", "describe", group).out
        assert only["id"] in millstream("groups", "describe", group, "--members").out
        assert f"{topic}(0,1)" in millstream("groups", "describe", group, "--members", "--verbose").out
        assert "Stable" in millstream("groups", "describe", group, "--state", "--verbose").out

        assert f"group '{group}' has members" in millstream("groups", "delete", group, "--yes", code=1).err
        assert "is subscribed" in millstream("groups", "delete-offsets", group, "-t", topic, code=1).err
        reset = ("groups", "reset-offsets", group, "--topic", topic, "--to-earliest")
        assert f"group '{group}' is Stable" in millstream(*reset, "--execute", code=1).err


def test_offsets_are_deleted_and_groups_too(millstream: CommandLine, topic: str, group: str) -> None:
    millstream("groups", "delete-offsets", group, "--topic", f"{topic}:1")
    assert offsets(millstream, group) == {0: 5}
    (result,) = millstream("groups", "delete", group, "--yes", "--json").json
    assert result == {"group": group, "changed": True, "error": None, "message": None}
    assert f"there is no group '{group}'" in millstream("groups", "describe", group, code=1).err
    assert f"there is no group '{group}'" in millstream("groups", "delete", group, "--yes", code=1).err
    assert "say --yes" in millstream("groups", "delete", group, code=1).err


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (("--to-earliest",), {0: 0, 1: 0}),
        (("--to-latest",), {0: 20, 1: 20}),
        (("--to-current",), {0: 5, 1: 10}),
        (("--to-offset", "7"), {0: 7, 1: 7}),
        (("--to-offset", "1000"), {0: 20, 1: 20}),
        (("--shift-by", "3"), {0: 8, 1: 13}),
        (("--shift-by", "-7"), {0: 0, 1: 3}),
        (("--to-datetime", str(BASE_MS + 3500)), {0: 4, 1: 4}),
        (
            ("--to-datetime", datetime.datetime.fromtimestamp(BASE_MS / 1000 + 12, datetime.UTC).isoformat()),
            {0: 12, 1: 12},
        ),
        (("--by-duration", "PT1S"), {0: 20, 1: 20}),
        (("--by-duration", "P36500D"), {0: 0, 1: 0}),
    ],
)
def test_offsets_are_reset(
    millstream: CommandLine, topic: str, group: str, how: tuple[str, ...], expected: dict[int, int]
) -> None:
    reset = ("groups", "reset-offsets", group, "--all-topics", *how)
    planned = millstream(*reset, "--json").json
    assert {one["partition"]: one["new_offset"] for one in planned} == expected
    assert {one["partition"]: one["offset"] for one in planned} == {0: 5, 1: 10}
    assert not any(one["changed"] for one in planned)
    assert "nothing was changed" in millstream(*reset).err
    assert offsets(millstream, group) == {0: 5, 1: 10}
    millstream("groups", "reset-offsets", group, "--topic", f"{topic}:1", *how, "--execute")
    assert offsets(millstream, group) == {0: 5, 1: expected[1]}
    millstream("groups", "reset-offsets", group, "--topic", f"{topic}:0", *how, "--execute")
    assert offsets(millstream, group) == expected


def test_a_plan_is_exported_changed_and_executed(
    millstream: CommandLine, topic: str, group: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.csv"
    exported = millstream("groups", "reset-offsets", group, "--all-topics", "--to-current", "--export").out
    assert exported == f"{topic},0,5\n{topic},1,10\n"
    plan.write_text(exported.replace(",10", ",2"))
    millstream("groups", "reset-offsets", group, "--from-file", str(plan), "--execute")
    assert offsets(millstream, group) == {0: 5, 1: 2}
    # Of two groups each line says whose it is.
    both = (group, f"second-{group}")
    reset = ("groups", "reset-offsets", *both)
    exported = millstream(*reset, "--topic", topic, "--to-offset", "9", "--export").out
    assert exported.splitlines() == [f"{one},{topic},{partition},9" for one in both for partition in range(2)]
    plan.write_text(exported)
    millstream(*reset, "--from-file", str(plan), "--execute")
    assert [offsets(millstream, one) for one in both] == [{0: 9, 1: 9}] * 2
    # A file that a table program has saved, with a line for a group that was not asked for.
    plan.write_text(f"\ufeff{group}, {topic}, 0, 3\r\nanother,{topic},0,1\r\n\r\n")
    told = millstream("groups", "reset-offsets", group, "--from-file", str(plan), "--execute")
    assert "lines for group 'another' are passed over" in told.err
    assert offsets(millstream, group) == {0: 3, 1: 9}
    for nonsense in (
        "nonsense\n",
        "\0,\u00b2,\u00b2\n",
        f"{topic},0,-1\n",
        f"{topic},\u00b2,1\n",
        f'"{"x" * 200_000}"',
    ):
        plan.write_text(nonsense)
        assert f"{plan}:1: " in millstream(*reset, "--from-file", str(plan), code=1).err
    plan.write_text(f"{topic},0,1\n")
    assert "begins with its group" in millstream(*reset, "--from-file", str(plan), code=1).err
    plan.write_text(f"{group},{topic},7,1\n")
    assert "has no partition 7" in millstream("groups", "reset-offsets", group, "--from-file", str(plan), code=1).err


def test_what_was_committed_for_a_deleted_topic_goes_with_it(
    millstream: CommandLine, topic: str, group: str, topic_name: TopicName
) -> None:
    gone = topic_name()
    millstream("topics", "create", gone, "-p", "2")
    commit(millstream, group, gone, 0, 0)
    millstream("topics", "delete", gone, "--yes")

    def committed() -> set[str]:
        return {one["topic"] for one in millstream("groups", "describe", group, "--json").json[0]["offsets"]}

    wait_until(lambda: committed() == {topic}, 90, "only the topic that is there has committed offsets")
    millstream("groups", "reset-offsets", group, "--all-topics", "--to-earliest", "--execute")
    assert offsets(millstream, group) == {0: 0, 1: 0}
    assert (
        f"no topic '{gone}'"
        in millstream("groups", "reset-offsets", group, "-t", topic, "-t", gone, "--to-latest", "--execute", code=1).err
    )
    assert offsets(millstream, group) == {0: 0, 1: 0}


def test_of_several_groups_one_that_cannot_be_reset_keeps_no_other(
    millstream: CommandLine, topic: str, group: str
) -> None:
    busy = f"busy-{topic}"
    reset = ("groups", "reset-offsets", busy, group, "--topic", f"{topic}:0", "--to-offset", "2", "--execute")
    with member(millstream, busy, topic, "classic"):
        told = millstream(*reset, "--json", code=1)
        assert [(one["group"], one["new_offset"], one["changed"]) for one in told.json] == [(group, 2, True)]
        assert f"group '{busy}' is Stable" in told.err
    assert offsets(millstream, group) == {0: 2, 1: 10}
    told = millstream("groups", "describe", "not-there", group, code=1)
    assert "there is no group 'not-there'" in told.err
    assert topic in told.out


def test_all_groups_are_those_of_consumers(millstream: CommandLine, topic: str, group: str) -> None:
    """A group of Connect's workers is listed, and left alone by what is done to all groups."""
    other = f"connect-{topic}"
    join = JoinGroupRequest(
        group_id=other,
        session_timeout_ms=30_000,
        rebalance_timeout_ms=30_000,
        protocol_type="connect",
        protocols=[JoinGroupRequestProtocol(name="default", metadata=b"")],
    )
    with RawConnection(millstream.bootstrap) as raw:
        joined = raw.call(join, 3)
        assert joined.error_code == 0
        listed = {one["group"]: one for one in millstream("groups", "list", "--json").json}
        assert listed[other]["protocol"] == "connect"
        described = {one["group"] for one in millstream("groups", "describe", "--all-groups", "--json").json}
        assert group in described
        assert other not in described
        assert millstream("groups", "describe", other, "--state", "--json").json[0]["protocol"] == "connect"
        raw.call(LeaveGroupRequest(group_id=other, member_id=joined.member_id), 2)


def test_what_is_asked_wrongly(millstream: CommandLine, topic: str, group: str) -> None:
    reset = ("groups", "reset-offsets", group)
    assert "give one of --to-earliest" in millstream(*reset, "--topic", topic, code=2).err
    assert "give one of --to-earliest" in millstream(*reset, "-t", topic, "--to-latest", "--to-earliest", code=2).err
    assert "give --topic or --all-topics" in millstream(*reset, "--to-latest", code=2).err
    assert "has no partition 7" in millstream(*reset, "-t", f"{topic}:7", "--to-latest", code=2).err
    assert "there is no topic 'nowhere'" in millstream(*reset, "-t", "nowhere", "--to-latest", code=1).err
    assert "names no partitions" in millstream(*reset, "-t", f"{topic}:x", "--to-latest", code=2).err
    assert "name groups" in millstream("groups", "describe", code=2).err
    assert "name groups" in millstream("groups", "delete", code=2).err  # before anybody is asked
    assert "name groups" in millstream("groups", "delete", group, "--all-groups", code=2).err
    shift = ("groups", "reset-offsets", f"new-{group}", "-t", topic, "--shift-by", "1")
    assert "no offset to shift" in millstream(*shift, code=1).err
    assert "there is no state 'stabel'" in millstream("groups", "list", "--state", "stabel", code=2).err
    assert "there is no type 'new'" in millstream("groups", "list", "--type", "new", code=2).err


def test_without_a_cluster_one_sentence(offline: CommandLine) -> None:
    assert len(offline("groups", "list", code=1).err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("P1D", 86_400_000), ("PT1.5S", 1500), ("p1dt2h3m4s", 93_784_000), ("P2W", 1_209_600_000)],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "P1H", "PT1D", "P-1D", f"P{'9' * 400}D"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadParameter):
        duration_ms(text)


def test_json_is_one_document(millstream: CommandLine, group: str) -> None:
    assert json.loads(millstream("groups", "describe", "--all-groups", "--json", process=True).out)
