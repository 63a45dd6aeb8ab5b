"""The log cleaner inside a broker: it cleans what clients wrote, obeys configs as they change, and tells."""

from __future__ import annotations

from pathlib import Path

from tests.support.broker_thread import BrokerThread

from millstream.core.broker.broker import Broker
from millstream.core.broker.doctor import examine
from millstream.core.log import TopicPartition
from millstream.core.log.cleaner import CleanerConfig
from millstream.core.records import BatchBuilder, read_header
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection

NOW_MS = 1_700_000_000_000
SETTINGS = {
    "log.cleaner.backoff.ms": "50",
    "log.cleaner.dedupe.buffer.size": "1000000",
    "log.segment.ms": "1",
    "log.cleaner.min.cleanable.ratio": "0.01",
}
KEYED = TopicPartition("keyed", 0)


def batch(round_number: int, *, timestamp: int) -> bytes:
    """Ten keys, written anew."""
    builder = BatchBuilder()
    for key in range(10):
        builder.append(timestamp, b"%d" % key, b"%d in round %d" % (key, round_number))
    return builder.build()


def write(raw: RawConnection, rounds: int, first: int = 0) -> None:
    """Each batch gets a segment of its own."""
    for number in range(first, first + rounds):
        assert raw.produce("keyed", 0, batch(number, timestamp=NOW_MS + 10 * number)).error_code == 0


def test_what_clients_wrote_is_cleaned_and_the_metrics_say_so(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data", SETTINGS) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("keyed", cleanup_policy="compact", segment_ms="1")
        write(raw, 20)
        wait_until(
            lambda: served.call(lambda broker: (broker.logs.logs[KEYED].first_dirty_offset or 0) >= 190),
            20,
            "all but the active segment is cleaned",
        )
        log = served.call(lambda broker: broker.logs.logs[KEYED])
        assert len(log.segments) == 2
        assert (log.log_start_offset, log.log_end_offset) == (0, 200)
        text = served.call(lambda broker: "".join(broker.control._metrics_answer().body))
        assert "millstream_cleaner_records_dropped_total 180" in text
        assert f'kafka_log_logcleanermanager_uncleanable_partitions_count{{logdirectory="{tmp_path}/data"}} 0' in text
        for name in ("max_dirty_percent", "time_since_last_run_ms"):
            assert f"kafka_log_logcleanermanager_{name}" in text
    checkpoint = (tmp_path / "data" / "cleaner-offset-checkpoint").read_text()
    assert checkpoint == "0\n1\nkeyed 0 190\n"


def test_a_damaged_batch_stops_cleaning_of_its_partition_loudly(tmp_path: Path) -> None:
    settings = {**SETTINGS, "log.cleaner.threads": "0"}
    with BrokerThread(tmp_path / "data", settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("keyed", cleanup_policy="compact", segment_ms="1")
        write(raw, 5)
        damaged = tmp_path / "data" / "keyed-0" / f"{20:020d}.log"
        data = bytearray(damaged.read_bytes())
        data[-1] ^= 1
        damaged.write_bytes(data)
        served.call(lambda broker: broker.control.cleaning.cleaner.reconfigure(CleanerConfig(threads=1, backoff_ms=10)))
        wait_until(
            lambda: served.call(lambda broker: len(broker.control.cleaning.cleaner.uncleanable)) == 1,
            20,
            "the partition is left alone",
        )
        text = served.call(lambda broker: "".join(broker.control._metrics_answer().body))
        assert f'kafka_log_logcleanermanager_uncleanable_partitions_count{{logdirectory="{tmp_path}/data"}} 1' in text
        assert damaged.read_bytes() == data, "nothing of it is touched"
        assert raw.produce("keyed", 0, batch(9, timestamp=NOW_MS)).error_code == 0, "it is served on"
    findings = [each for each in examine([tmp_path / "data"], None) if each.level == "problem"]
    assert any("keyed-0" in each.subject and "fails its CRC" in each.text for each in findings)
    # The next start tries again, since somebody may have looked.
    with BrokerThread(tmp_path / "data", settings):
        assert not (tmp_path / "data" / "uncleanable-partitions").exists()


def begin_transaction(broker: Broker) -> None:
    """Put a batch into the log as a transaction would; the next produce moves the high watermark past it."""
    builder = BatchBuilder(producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    builder.append(NOW_MS + 1000, b"1", b"open")
    data, log = builder.build(), broker.logs.logs[KEYED]
    log.reserve(data, read_header(data), leader_epoch=0, now_ms=NOW_MS)
    log.write()


def test_nothing_that_may_yet_change_is_cleaned(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data", SETTINGS) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("keyed", cleanup_policy="compact", segment_ms="1")
        write(raw, 2)
        served.call(begin_transaction)
        write(raw, 3, 200)
        limit = served.call(lambda broker: broker.control.cleaning.last_stable_offset(broker.logs.logs[KEYED]))
        assert limit == 20
        wait_until(
            lambda: served.call(lambda broker: (broker.logs.logs[KEYED].first_dirty_offset or 0) == 20),
            20,
            "what lies before the open transaction is cleaned",
        )
