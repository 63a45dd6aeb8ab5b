"""The doctor: what it finds in directories of every kind, and open transactions found and aborted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker.doctor import Finding, abort_transactions, examine, open_transactions
from millstream.core.config import BrokerConfig
from millstream.core.log import LogConfig, LogDirectory, LogLockedError, LogManager, TopicPartition
from millstream.core.log.directory import read_meta_properties
from millstream.core.records import BatchBuilder, read_header
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, Java
from millstream.testing.raw import RawConnection

READ_COMMITTED = 1


def findings(*data_dirs: Path, config: BrokerConfig | None = None) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in examine(data_dirs, config):
        found.setdefault(finding.subject, []).append(finding)
    return found


def test_the_machine() -> None:
    found = findings()
    assert found["kernels"][0].level == "ok", found["kernels"][0].text
    assert found["uvloop"][0].level == "ok"
    assert found["open files"][0].level in ("ok", "warning")


def test_directories_of_every_kind(tmp_path: Path) -> None:
    used, empty, missing = tmp_path / "used", tmp_path / "empty", tmp_path / "missing"
    empty.mkdir()
    with BrokerThread(used):
        pass
    (used / "lost-0.0123456789abcdef0123456789abcdef-stray").mkdir()
    (used / "lost-0.0123456789abcdef0123456789abcdef-stray" / "00000000000000000000.log").write_bytes(bytes(5 << 20))
    config = BrokerConfig({"log.dirs": str(used), "node.id": "9", "millstream.disk.free.min.bytes": str(2**62)})

    found = findings(used, empty, missing)
    assert any("no broker has used it" in each.text for each in found[str(empty)])
    assert "does not exist" in found[str(missing)][0].text
    texts = {each.text: each.level for each in found[str(used)]}
    assert any(text.startswith("belongs to cluster") and level == "ok" for text, level in texts.items())
    assert any("1 folders of no known partition, 5 MB" in text and level == "warning" for text, level in texts.items())

    levels = {each.text.partition(",")[0]: each.level for each in findings(used, config=config)[str(used)]}
    assert "problem" in levels.values(), levels
    assert any(
        "node.id is 9" in each.text and each.level == "problem" for each in findings(used, config=config)[str(used)]
    )
    assert any("read-only" in each.text and each.level == "problem" for each in found_space(used, config))


def found_space(path: Path, config: BrokerConfig) -> list[Finding]:
    return [each for each in findings(path, config=config)[str(path)] if "are free" in each.text]


def leave_open(path: Path, tp: TopicPartition, producer_id: int) -> None:
    """Put a transaction's records into a stopped broker's log, and no marker."""
    properties = read_meta_properties(str(path))
    directory = LogDirectory(path)
    directory.open(properties["cluster.id"], int(properties["node.id"]))
    logs = LogManager([directory])
    log = logs.load(LogConfig())[tp]
    builder = BatchBuilder(producer_id=producer_id, producer_epoch=3, base_sequence=0, transactional=True)
    builder.append(1_700_000_000_000, None, b"never committed")
    batch = bytearray(builder.build())
    log.reserve(batch, read_header(batch), leader_epoch=0, now_ms=1_700_000_000_000)
    log.write()
    logs.close()


def test_an_open_transaction_is_found_and_aborted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    served = BrokerThread(data)
    plain = BatchBuilder()
    plain.append(1_700_000_000_000, None, b"plain")
    with served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("flights", 2, retention_ms=-1)
        raw.produce("flights", 1, plain.build())
    leave_open(data, TopicPartition("flights", 1), 4711)

    (found,) = open_transactions([data])
    assert (found.topic, found.partition, found.producer_id, found.producer_epoch) == ("flights", 1, 4711, 3)
    assert found.first_offset == 1
    with served:
        stable = served.call(lambda broker: [part.last_stable_offset for part in broker.partitions.of_topic("flights")])
        assert stable == [0, 1], "the open transaction holds read_committed readers back"

    assert abort_transactions([data], [found]) == [found]

    assert open_transactions([data]) == []
    assert abort_transactions([data], [found]) == []
    with served, RawConnection(served.bootstrap_servers) as raw:
        stable = served.call(lambda broker: [part.last_stable_offset for part in broker.partitions.of_topic("flights")])
        assert stable == [0, 3]
        assert raw.fetch("flights", 1, 0).error_code == 0


def test_a_running_broker_keeps_the_doctor_out(tmp_path: Path) -> None:
    with broker(log_dir=tmp_path / "data"), pytest.raises(LogLockedError, match="in use"):
        open_transactions([tmp_path / "data"])


@pytest.mark.java
def test_a_directory_of_apache_kafka(tmp_path: Path, jars: Path) -> None:
    with ApacheKafka(tmp_path / "kafka", jars=jars) as kafka, RawConnection(kafka.bootstrap_servers) as raw:
        raw.create_topic("flights", 2)
    data = kafka.data_directory

    notes = [each for each in findings(data)[str(data)] if each.level == "note"]
    assert "written by Apache Kafka" in notes[0].text
    assert open_transactions([data]) == []
    # Kafka itself still reads what the doctor opened and closed.
    dumped = Java(jars).run(
        "org.apache.kafka.tools.DumpLogSegments", "--files", str(data / "flights-0" / "00000000000000000000.log")
    )
    assert "starting offset: 0" in dumped.stdout + dumped.stderr
