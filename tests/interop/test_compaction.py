"""The log cleaner and Apache Kafka's: each reads, and goes on with, what the other has cleaned."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.dirty_logs import NOW_MS, TOPIC, Kept, Model, Sweep, compacted, read_committed, stored

from millstream.core.log import Log, LogDirectory, LogManager
from millstream.core.records import Compression
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, Java, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]
TOOLS = "org.apache.kafka.tools."


def make_model() -> Model:
    """Codecs, tombstones, transactions committed and aborted, producers; several segments that become few."""
    model = Model(21)
    for _ in range(120):
        model.random_step(keys=25, transactions=True, compress=True)
    model.end_all()
    model.batch([(b"active", b"value")], compression=Compression.LZ4)
    return model


def opened(path: Path) -> LogManager:
    manager = LogManager([LogDirectory(path)])
    manager.load(compacted(segment_bytes=1 << 20, delete_retention_ms=0), cluster_id="a cluster")
    return manager


def dump(jars: Path, *files: Path) -> str:
    names = ",".join(map(str, files))
    return Java(jars).run(TOOLS + "DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", names).stdout


def test_kafka_reads_what_we_cleaned(tmp_path: Path, jars: Path) -> None:
    """DumpLogSegments finds every batch valid and in order, with our delete horizons; indexes pass its check."""
    model = make_model()
    model.write(tmp_path / "data" / str(TOPIC))
    manager = opened(tmp_path / "data")
    log = manager.logs[TOPIC]
    Sweep(manager).run()
    records, headers = stored(log)
    log.flush()
    logs = [Path(f"{segment.stem}.log") for segment in log.segments if segment.size_bytes]
    indexes = [Path(f"{log.segments.first.stem}{suffix}") for suffix in (".index", ".timeindex")]
    text = dump(jars, *logs)
    assert "isvalid: false" not in text
    found = [int(offset) for offset in re.findall(r"^\| offset: (\d+) .*? keySize: \d+ ", text, re.MULTILINE)]
    assert set(found) >= {each.offset for each in records}
    assert len(re.findall(r"^baseOffset: ", text, re.MULTILINE)) == len(headers)
    horizons = sum(header.has_delete_horizon for header in headers)
    assert horizons
    assert len(re.findall(r"deleteHorizonMs: OptionalLong\[\d+\]", text)) == horizons
    checked = (
        Java(jars).run(TOOLS + "DumpLogSegments", "--index-sanity-check", "--files", ",".join(map(str, indexes))).stdout
    )
    assert checked.count("passed sanity check") >= 1, checked
    assert "Mismatches" not in checked
    manager.release()


def swap_in(kafka: ApacheKafka, source: Path) -> None:
    """Give Kafka, stopped, the segments of a folder as its partition's."""
    folder = kafka.data_directory / str(TOPIC)
    for old in folder.iterdir():
        if old.suffix in {".log", ".index", ".timeindex", ".txnindex", ".snapshot"}:
            old.unlink()
    for each in source.iterdir():
        if each.suffix in {".log", ".index", ".timeindex", ".txnindex", ".snapshot"}:
            shutil.copy(each, folder)
    (kafka.data_directory / "recovery-point-offset-checkpoint").write_text("0\n0\n")
    (kafka.data_directory / ".kafka_cleanshutdown").unlink(missing_ok=True)


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    """Kafka with a cleaner that is always at work on whatever is dirty."""
    kafka = ApacheKafka(tmp_path / "kafka", properties={"log.cleaner.backoff.ms": "100"})
    with kafka:
        with RawConnection(kafka.bootstrap_servers) as raw:
            raw.create_topic(
                TOPIC.topic, 1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.0", delete_retention_ms=0
            )
        yield kafka


def check_latest(model: Model, log: Log) -> None:
    committed = {each.key: each for each in read_committed(log)}
    for key, record in model.latest(model.end_offset).items():
        found = committed.get(key)
        assert found == Kept(*record[:4]) or (record.value is None and found is None), key


def test_either_goes_on_where_the_other_stopped(tmp_path: Path, kafka: ApacheKafka) -> None:
    """Cleaned by us, then by Kafka on our folder, then by us on Kafka's: the latest value of each key all the way."""
    model = make_model()
    data = tmp_path / "data"
    model.write(data / str(TOPIC))
    manager = opened(data)
    Sweep(manager).run()
    check_latest(model, manager.logs[TOPIC])
    manager.close()

    kafka.stop()
    swap_in(kafka, data / str(TOPIC))
    checkpoint = kafka.data_directory / "cleaner-offset-checkpoint"
    checkpoint.unlink(missing_ok=True)
    kafka.start()
    with RawConnection(kafka.bootstrap_servers) as raw:
        assert raw.offsets({TOPIC.topic: [0]}) == {TOPIC.topic: {0: model.end_offset}}
    wait_until(
        lambda: checkpoint.exists() and f"{TOPIC.topic} 0 {model.bases[-1]}" in checkpoint.read_text(),
        150,
        "Kafka's cleaner",
    )
    kafka.stop()

    again = tmp_path / "again"
    shutil.copytree(kafka.data_directory / str(TOPIC), again / str(TOPIC))
    manager = opened(again)
    log = manager.logs[TOPIC]
    check_latest(model, log)
    sweep = Sweep(manager, now_ms=NOW_MS + 10**12)
    sweep.run()
    assert not sweep.cleaner.uncleanable
    check_latest(model, log)
    records, _ = stored(log)
    keys = [each.key for each in records if each.offset < (log.first_dirty_offset or 0)]
    assert len(keys) == len(set(keys))
    manager.close()


def test_kafkas_log_compaction_tester(tmp_path: Path, jars: Path) -> None:
    """It writes keys many times over, deletes among them, waits, and reads: the latest of each, and no other."""
    settings = {
        "log.segment.bytes": str(1 << 20),
        "log.cleaner.backoff.ms": "100",
        "log.cleaner.min.cleanable.ratio": "0.01",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.delete.retention.ms": "100",
    }
    with broker(settings, log_dir=tmp_path / "data") as served:
        told = Java(jars).run(
            TOOLS + "LogCompactionTester",
            *("--bootstrap-server", served.bootstrap_servers, "--messages", "120000", "--duplicates", "20"),
            *("--topics", "1", "--percent-deletes", "20", "--sleep", "5"),
            timeout_s=400,
        )
        checkpoint = tmp_path / "data" / "cleaner-offset-checkpoint"
        # The tester waits five seconds for the cleaner, which is not always enough for a first checkpoint.
        wait_until(
            lambda: checkpoint.exists() and "log-cleaner-test" in checkpoint.read_text(), 90, "the topic to be cleaned"
        )
    assert re.search(r"Validated \d{4,} values, 0 mismatches", told.stdout), told.stdout
    assert "Data verification is completed" in told.stdout
