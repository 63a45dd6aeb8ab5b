"""Every client and every tool of Kafka's against the broker, and what they sent: the table of docs/compatibility.md.

Each does all it can do, one after the other, on a broker of its own; the broker counts requests by API and version. A
client that stops sending something, or a call that begins to fail, fails here. `--rerecord` notes what is sent now, and
writes the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.broker_thread import BrokerThread
from tools import compatibility
from tools.compatibility import Speaker
from tools.differences import DIFFERENCES
from tools.golden_clients import CLIENTS, GoldenClient, Kafka

from millstream.core.broker import HANDLERS, Broker
from millstream.core.log import TopicPartition
from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ApiKey
from millstream.testing.kafka import Java, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(900)]

# Sent after a while only, so that a quick run may not see it.
BY_CHANCE = {"Heartbeat", "OffsetForLeaderEpoch"}
# What is not served yet: transactions, authentication. The stories of the others must go well.
NOT_SERVED = ("transact", "transactions", "sasl")
TOOLS = "org.apache.kafka.tools."
TOPIC = "tools"


class Tool(NamedTuple):
    """One of Kafka's tools: its script, its class, and the arguments of each run."""

    script: str
    name: str
    runs: Sequence[Sequence[str]]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[BrokerThread]:
    settings = {
        "log.dirs": f"{tmp_path}/one,{tmp_path}/two",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
    }
    with BrokerThread(tmp_path / "one", settings) as broker:
        yield broker


# A call that is refused as Kafka refuses it too: the story's directory exists nowhere.
REFUSED = "move to a log dir"


@pytest.fixture
def note(rerecord: bool) -> Callable[[Speaker], None]:
    """Hold what somebody sent against the record, or put it there."""

    def check(found: Speaker) -> None:
        assert set(found.requests) <= {APIS[key].name for key in HANDLERS}
        others = [each for each in compatibility.load() if each.name != found.name]
        if rerecord:
            # Another version of the same client takes the place of the one before.
            word = found.name.split()[0]
            others = [each for each in others if each.name.split()[0] != word]
            compatibility.save([*others, found])
            compatibility.PAGE.write_text(compatibility.page(compatibility.load()))
        recorded = {each.name: each for each in compatibility.load()}.get(found.name)
        assert recorded is not None, f"{found.name} is not in {compatibility.RESULTS.name}: run with --rerecord"
        lost = recorded.requests.keys() - found.requests.keys() - BY_CHANCE
        assert not lost, f"{found.name} does not send {lost} any more"

    return check


def requests(broker: Broker) -> dict[str, dict[int, float]]:
    """How many requests of each API and version there were."""
    found: dict[str, dict[int, float]] = {}
    for (name, version), counter in broker.metrics.requests.children().items():
        found.setdefault(name, {})[int(version)] = counter.value
    return found


def sent(before: dict[str, dict[int, float]], after: dict[str, dict[int, float]]) -> dict[str, list[int]]:
    """The APIs and versions of which there were more requests after than before."""
    found = {
        name: sorted(version for version, count in counts.items() if count > before.get(name, {}).get(version, 0))
        for name, counts in after.items()
    }
    return {name: versions for name, versions in found.items() if versions}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.module)
def test_a_client_does_all_it_can(
    client: GoldenClient, served: BrokerThread, jars: Path, note: Callable[[Speaker], None]
) -> None:
    place = Kafka(
        bootstrap=served.bootstrap_servers,
        sasl_bootstrap="",
        user="",
        password="",
        client_id=client.module,
        topic="does-all",
        java=Java(jars),
    )
    runs, failures = [], []
    for name, story in client.stories(place):
        if name in NOT_SERVED:
            continue
        try:
            story()
        except Exception as error:
            if name != REFUSED:
                failures.append(f"{name}: {error!r}")
        runs.append(name.replace("_", " "))
    assert not failures
    note(Speaker(client.name, runs, sent({}, served.call(requests))))


def tools(folder: Path, directories: Sequence[str]) -> Iterator[Tool]:
    """Every tool of Kafka's that a broker of ours serves, with the ways in which it is run."""
    records = folder / "records.json"
    records.write_text(json.dumps({"partitions": [{"topic": TOPIC, "partition": 0, "offset": 1}], "version": 1}))
    moves = folder / "moves.json"
    placed = {"topic": TOPIC, "partition": 0, "replicas": [1], "log_dirs": [directories[1]]}
    moves.write_text(json.dumps({"partitions": [placed], "version": 1}))
    broker, topic = (
        ("--entity-type", "brokers", "--entity-name", "1"),
        ("--entity-type", "topics", "--entity-name", TOPIC),
    )
    group = ("--group", "some")
    yield Tool(
        "kafka-topics.sh",
        f"{TOOLS}TopicCommand",
        [
            ("--list",),
            ("--describe", "--topic", TOPIC),
            ("--create", "--topic", "made", "--partitions", "2", "--replication-factor", "1"),
            ("--alter", "--topic", "made", "--partitions", "3"),
            ("--delete", "--topic", "made"),
        ],
    )
    yield Tool(
        "kafka-configs.sh",
        "kafka.admin.ConfigCommand",
        [
            (*topic, "--describe", "--all"),
            (*topic, "--alter", "--add-config", "retention.ms=3600000"),
            (*broker, "--describe", "--all"),
            (*broker, "--alter", "--add-config", "log.retention.ms=7200000"),
            (*broker, "--alter", "--delete-config", "log.retention.ms"),
            ("--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "max.connections=1000"),
            ("--entity-type", "users", "--describe"),
            ("--entity-type", "groups", "--describe"),
        ],
    )
    yield Tool(
        "kafka-get-offsets.sh", f"{TOOLS}GetOffsetShell", [("--topic", TOPIC), ("--topic", TOPIC, "--time", "-2")]
    )
    yield Tool("kafka-log-dirs.sh", f"{TOOLS}LogDirsCommand", [("--describe",)])
    yield Tool("kafka-delete-records.sh", f"{TOOLS}DeleteRecordsCommand", [("--offset-json-file", str(records))])
    yield Tool(
        "kafka-leader-election.sh",
        f"{TOOLS}LeaderElectionCommand",
        [
            ("--election-type", "preferred", "--topic", TOPIC, "--partition", "0"),
            ("--election-type", "unclean", "--all-topic-partitions"),
        ],
    )
    yield Tool("kafka-broker-api-versions.sh", f"{TOOLS}BrokerApiVersionsCommand", [()])
    yield Tool(
        "kafka-reassign-partitions.sh",
        f"{TOOLS}reassign.ReassignPartitionsCommand",
        [
            ("--reassignment-json-file", str(moves), "--execute", "--replica-alter-log-dirs-throttle", "100000000"),
            ("--reassignment-json-file", str(moves), "--verify"),
            ("--list",),
        ],
    )
    yield Tool("kafka-client-metrics.sh", f"{TOOLS}ClientMetricsCommand", [("--list",)])
    yield Tool("kafka-cluster.sh", f"{TOOLS}ClusterTool", [("cluster-id",), ("list-endpoints",)])
    yield Tool(
        "kafka-consumer-groups.sh",
        f"{TOOLS}consumer.group.ConsumerGroupCommand",
        [
            (*group, "--reset-offsets", "--to-latest", "--topic", TOPIC, "--execute"),
            ("--list",),
            ("--describe", *group),
            ("--delete-offsets", *group, "--topic", TOPIC),
            ("--delete", *group),
        ],
    )


def test_kafkas_tools(served: BrokerThread, jars: Path, tmp_path: Path, note: Callable[[Speaker], None]) -> None:
    java, bootstrap = Java(jars), served.bootstrap_servers
    builder = BatchBuilder()
    for number in range(10):
        builder.append(1_700_000_000_000, b"key", b"%d" % number)
    with RawConnection(bootstrap) as raw:
        raw.create_topic(TOPIC, 2)
        assert raw.produce(TOPIC, 0, builder.build()).error_code == 0
    directories = served.call(lambda broker: [each.path for each in broker.logs.directories])
    failures: list[str] = []
    for tool in tools(tmp_path, directories):
        before = served.call(requests)
        for run in tool.runs:
            where: tuple[str, ...] = ("--bootstrap-server", bootstrap)
            arguments = (run[0], *where, *run[1:]) if tool.script == "kafka-cluster.sh" else (*where, *run)
            done = java.run(tool.name, *arguments, check=False)
            if done.returncode:
                failures.append(f"{tool.script} {' '.join(run)}: {done.stdout[-500:]} {done.stderr[-500:]}")
        shown = [" ".join(_shown(each, tmp_path) for each in run) for run in tool.runs if run]
        note(Speaker(tool.script, shown, sent(before, served.call(requests))))
    assert not failures, "\n".join(failures)

    def directory(broker: Broker) -> str:
        log = broker.logs.logs[TopicPartition(TOPIC, 0)]
        return log.directory.path

    wait_until(lambda: served.call(directory) == directories[1], 30, "the replica that was reassigned")


def _shown(argument: str, folder: Path) -> str:
    return Path(argument).name if argument.startswith(str(folder)) else argument


def test_the_page_is_up_to_date() -> None:
    assert compatibility.PAGE.read_text() == compatibility.page(compatibility.load()), (
        "run python -m tools.compatibility"
    )


def test_differences_name_the_files_that_decide_them() -> None:
    assert len({each.subject for each in DIFFERENCES}) == len(DIFFERENCES)
    assert not [each.where for each in DIFFERENCES if not (compatibility.ROOT / each.where).is_file()]


def test_every_api_was_sent_by_somebody() -> None:
    everything = {name for each in compatibility.load() for name in each.requests}
    served = {APIS[ApiKey(key)].name for key in HANDLERS}
    assert served - everything <= {"OffsetForLeaderEpoch"}
