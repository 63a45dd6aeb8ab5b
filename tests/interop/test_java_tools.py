"""Kafka's own command-line tools, each against the broker, with what an operator sees of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import confluent_kafka
import pytest
from tests.interop.conftest import MakeTopic
from tests.support.clients import CODECS, ConfluentKafka, Row, by_assignment

from millstream.testing.kafka import Java

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

TOOLS = "org.apache.kafka.tools."
Tool = Callable[..., str]


@pytest.fixture(scope="session")
def tool(bootstrap: str, jars: Path) -> Tool:
    """tool(class name, arguments..., text=standard input) -> its standard output."""
    java = Java(jars)

    def run(name: str, *arguments: str, text: str | None = None) -> str:
        full = name if name.startswith("kafka.") else TOOLS + name
        return java.run(full, "--bootstrap-server", bootstrap, *arguments, text=text).stdout

    return run


def read_values(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    return [read.row.value for read in ConfluentKafka().read(bootstrap, topic, {0: count})[0]]


def test_console_producer_and_console_consumer(bootstrap: str, tool: Tool, make_topic: MakeTopic) -> None:
    topic = make_topic("console")
    lines: list[str] = []
    for codec in CODECS:
        some = [f"{codec} {i}: Mühlbach {'x' * (i % 50)}" for i in range(100)]
        lines += some
        sent = "".join(f"{line}\n" for line in some)
        tool("ConsoleProducer", "--topic", topic, "--compression-codec", codec, text=sent)
    assert read_values(bootstrap, topic, 500) == [line.encode() for line in lines]
    partition = ("--topic", topic, "--partition", "0")
    read = tool("consumer.ConsoleConsumer", *partition, "--offset", "150", "--max-messages", "50")
    assert read.splitlines() == lines[150:200]
    read = tool(
        "consumer.ConsoleConsumer",
        *(*partition, "--offset", "earliest", "--max-messages", "500", "--formatter-property", "print.offset=true"),
    )
    assert read.splitlines() == [f"Offset:{i}\t{line}" for i, line in enumerate(lines)]


def test_producer_performance(bootstrap: str, tool: Tool, jars: Path, make_topic: MakeTopic) -> None:
    topic = make_topic("performance")
    told = (
        Java(jars)
        .run(
            f"{TOOLS}ProducerPerformance",
            *("--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1"),
            *("--bootstrap-server", bootstrap, "--command-property", "acks=1"),
        )
        .stdout
    )
    assert re.search(r"^20000 records sent", told, re.MULTILINE), told
    values = read_values(bootstrap, topic, 20_000)
    assert len(values) == 20_000
    assert {len(value or b"") for value in values} == {100}


def test_verifiable_producer(bootstrap: str, tool: Tool, make_topic: MakeTopic) -> None:
    topic = make_topic("verifiable")
    told = tool("VerifiableProducer", "--topic", topic, "--max-messages", "1000", "--acks", "-1")
    events = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    acknowledged = {e["offset"]: e["value"] for e in events if e["name"] == "producer_send_success"}
    assert events[-1]["name"] == "tool_data" or any(e["name"] == "tool_data" for e in events)
    assert [value.decode() for value in read_values(bootstrap, topic, 1000) if value is not None] == [
        acknowledged[offset] for offset in range(1000)
    ]


def test_get_offset_shell(bootstrap: str, tool: Tool, make_topic: MakeTopic) -> None:
    topic = make_topic("offsets", 3)
    base = 1_700_000_000_000
    for partition, count in ((0, 10), (1, 20)):
        rows = [Row(base + i, None, b"x") for i in range(count)]
        ConfluentKafka().produce(bootstrap, topic, partition, rows, codec="none", idempotent=False)
    exact = ("--topic", f"^{topic}$")
    assert tool("GetOffsetShell", *exact).split() == [f"{topic}:0:10", f"{topic}:1:20", f"{topic}:2:0"]
    assert tool("GetOffsetShell", *exact, "--time", "earliest").split() == [f"{topic}:{p}:0" for p in range(3)]
    # A partition without such a record is answered with offset -1, which the tool leaves out.
    assert tool("GetOffsetShell", *exact, "--time", str(base + 15)).split() == [f"{topic}:1:15"]
    latest = tool("GetOffsetShell", *exact, "--time", "max-timestamp").split()
    assert latest == [f"{topic}:0:9", f"{topic}:1:19"]


def test_topic_command(tool: Tool) -> None:
    created = ("--topic", "by-command", "--partitions", "3", "--replication-factor", "1")
    assert "Created topic by-command." in tool(
        "TopicCommand", "--create", *created, "--config", "retention.ms=86400000", "--config", "segment.bytes=1048576"
    )
    assert "by-command" in tool("TopicCommand", "--list").split()
    described = tool("TopicCommand", "--describe", "--topic", "by-command")
    assert "PartitionCount: 3" in described
    assert "ReplicationFactor: 1" in described
    assert re.search(r"Configs: .*segment\.bytes=1048576", described), described
    assert re.search(r"Configs: .*retention\.ms=86400000", described), described
    assert len(re.findall(r"Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)) == 3
    tool("TopicCommand", "--alter", "--topic", "by-command", "--partitions", "5")
    assert "PartitionCount: 5" in tool("TopicCommand", "--describe", "--topic", "by-command")
    tool("TopicCommand", "--delete", "--topic", "by-command")
    assert "by-command" not in tool("TopicCommand", "--list").split()


def test_config_command(tool: Tool, make_topic: MakeTopic) -> None:
    topic = make_topic("configured")
    entity = ("kafka.admin.ConfigCommand", "--entity-type", "topics", "--entity-name", topic)
    tool(*entity, "--alter", "--add-config", "retention.ms=3600000,cleanup.policy=[compact,delete]")
    told = tool(*entity, "--describe")
    assert "retention.ms=3600000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=3600000" in told
    assert "cleanup.policy=compact,delete" in told
    every = tool(*entity, "--describe", "--all")
    assert re.search(r"max\.message\.bytes=\d+ sensitive=false synonyms=\{", every), every
    tool(*entity, "--alter", "--delete-config", "retention.ms,cleanup.policy")
    assert "retention.ms=" not in tool(*entity, "--describe")


def test_log_dirs_command(bootstrap: str, tool: Tool, make_topic: MakeTopic) -> None:
    topic = make_topic("sizes", 2)
    rows = [Row(1_700_000_000_000, None, b"x" * 1000) for _ in range(100)]
    ConfluentKafka().produce(bootstrap, topic, 0, rows, codec="none", idempotent=False)
    told = tool("LogDirsCommand", "--describe", "--topic-list", topic)
    answer = json.loads(told.splitlines()[-1])
    directories = [directory for broker in answer["brokers"] for directory in broker["logDirs"]]
    assert all(directory["error"] is None for directory in directories), answer
    sizes = {p["partition"]: p["size"] for directory in directories for p in directory["partitions"]}
    assert set(sizes) == {f"{topic}-0", f"{topic}-1"}
    assert sizes[f"{topic}-0"] > 100_000
    assert sizes[f"{topic}-1"] == 0


def test_delete_records_command(bootstrap: str, tool: Tool, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic("shortened", 2)
    rows = [Row(1_700_000_000_000 + i, None, b"%d" % i) for i in range(100)]
    ConfluentKafka().produce(bootstrap, topic, 0, rows, codec="none", idempotent=False)
    wanted = {"partitions": [{"topic": topic, "partition": 0, "offset": 40}], "version": 1}
    path = tmp_path / "delete.json"
    path.write_text(json.dumps(wanted))
    assert "low_watermark: 40" in tool("DeleteRecordsCommand", "--offset-json-file", str(path))
    assert tool("GetOffsetShell", "--topic", f"^{topic}$", "--time", "earliest").split()[0] == f"{topic}:0:40"
    consumer = by_assignment(bootstrap)
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        message = consumer.poll(30)
        assert message is not None
        assert (message.offset(), message.value()) == (40, b"40")
    finally:
        consumer.close()


def test_broker_api_versions_command(tool: Tool) -> None:
    told = tool("BrokerApiVersionsCommand")
    assert re.search(r"Produce\(0\): 0 to \d+ \[usable: \d+\]", told), told
    assert re.search(r"Fetch\(1\): 4 to \d+ \[usable: \d+\]", told), told
    served = ("Produce", "Fetch", "ListOffsets", "Metadata", "ApiVersions", "CreateTopics", "InitProducerId")
    assert not [name for name in served if re.search(rf"\b{name}\(\d+\): UNSUPPORTED", told)], told
