"""The log cleaner inside a broker: it cleans what clients wrote, obeys configs as they change, and tells."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.support.broker_thread import BrokerThread

from millstream.core.broker.broker import Broker
from millstream.core.broker.doctor import examine
from millstream.core.log import TopicPartition
from millstream.core.log.cleaner import CleanerConfig
from millstream.core.records import BatchBuilder, iter_batches, iter_records, read_header
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.testing.kafka import wait_until
from millstream.testing.raw import EARLIEST, RawConnection

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
            90,
            "all but the active segment is cleaned",
        )
        log = served.call(lambda broker: broker.logs.logs[KEYED])
        assert len(log.segments) == 2
        assert (log.log_start_offset, log.log_end_offset) == (0, 200)

        def metrics() -> str:
            return served.call(lambda broker: "".join(broker.control._metrics_answer().body))

        # Counted when the checkpoint has moved.
        wait_until(
            lambda: "millstream_cleaner_records_dropped_total 180" in metrics(), 90, "the cleaning to be counted"
        )
        text = metrics()
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
            90,
            "the partition is left alone",
        )
        text = served.call(lambda broker: "".join(broker.control._metrics_answer().body))
        of_directory = f'{{logdirectory="{tmp_path}/data"}}'
        assert f"kafka_log_logcleanermanager_uncleanable_partitions_count{of_directory} 1" in text
        # Nothing of it was clean yet.
        size = sum(each.stat().st_size for each in damaged.parent.glob("*.log"))
        assert f"kafka_log_logcleanermanager_uncleanable_bytes{of_directory} {size}" in text
        assert damaged.read_bytes() == data, "nothing of it is touched"
        assert raw.produce("keyed", 0, batch(9, timestamp=NOW_MS)).error_code == 0, "it is served on"
    (problem,) = [each for each in examine([tmp_path / "data"], None) if each.level == "problem"]
    assert problem.subject == f"{tmp_path}/data/keyed-0"
    assert problem.text == (
        f"is not cleaned any more and grows: {damaged}: the batch at byte 0, offset 20 or behind it, fails its CRC. "
        "What else is in it is served; mend or remove that segment with the broker stopped (another replica or a "
        "backup may have it whole), then start again"
    )
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
            90,
            "what lies before the open transaction is cleaned",
        )


class Reader(threading.Thread):
    """Reads the topic from its start to `end_offset`, and behind what is deleted under it, again and again."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(name="reader", daemon=True)
        self._raw = RawConnection(bootstrap, timeout_s=120)
        self._stop_asked = threading.Event()
        self.rounds = 0
        self.wrong: list[object] = []

    def run(self) -> None:
        with self._raw as raw:
            while not self._stop_asked.is_set():
                try:
                    self._read(raw)
                except (AssertionError, KafkaError) as error:
                    self.wrong.append(error)
                    return
                self.rounds += 1

    def _read(self, raw: RawConnection) -> None:
        at, end = raw.offset("keyed", 0, EARLIEST), raw.offset("keyed", 0)
        while at < end:
            # Waits: all that lay before the end of the moment may be cleaned away for what came behind it.
            answer = raw.fetch("keyed", 0, at, wait_ms=60_000)
            if answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
                start = raw.offset("keyed", 0, EARLIEST)
                assert start > at, f"{at} is out of range, the log starts at {start}"
                at = start
                continue
            assert answer.error_code == 0, error_code(answer.error_code)
            before = at
            for header, data in iter_batches(answer.records):
                for record in iter_records(data):
                    key, number = record.offset % 10, record.offset // 10
                    assert (record.key, record.value) == (b"%d" % key, b"%d in round %d" % (key, number)), record
                at = header.last_offset + 1
            assert at > before, f"nothing at {at}, the end is {end}"

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(90)


def test_compact_and_delete_while_clients_write_and_read(tmp_path: Path) -> None:
    """Retention takes segments from the front while the cleaner swaps them; who reads meets nothing that never was."""
    settings = {**SETTINGS, "log.cleaner.backoff.ms": "5", "log.retention.check.interval.ms": "50"}
    now_ms = time.time_ns() // 1_000_000
    with BrokerThread(tmp_path / "data", settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(
            "keyed", cleanup_policy="compact,delete", segment_ms="1", retention_ms="3600000", file_delete_delay_ms="0"
        )
        reader = Reader(served.bootstrap_servers)
        reader.start()

        def write_at(first_ms: int, start: int, rounds: int) -> None:
            for number in range(start, start + rounds):
                assert raw.produce("keyed", 0, batch(number, timestamp=first_ms + 10 * number)).error_code == 0

        def done() -> tuple[int, int]:
            log = served.call(lambda broker: broker.logs.logs[KEYED])
            return log.log_start_offset, log.first_dirty_offset or 0

        # Older than the retention, so that they go from the front, whether they were cleaned before or not.
        write_at(now_ms - 10_000_000, 0, 60)
        wait_until(lambda: done()[0] > 0, 60, "retention took segments")
        write_at(now_ms - 100_000, 60, 200)
        wait_until(lambda: done()[1] >= 2500, 60, "the rest is cleaned")
        reader.stop()
        assert reader.wrong == []
        assert reader.rounds > 0
        dropped = served.call(lambda broker: broker.control.cleaning.cleaner.stats.records_dropped)
        assert dropped > 0
        assert not served.call(lambda broker: broker.control.cleaning.cleaner.uncleanable)
        values: dict[bytes | None, bytes | None] = {}
        at = raw.offset("keyed", 0, EARLIEST)
        while at < 2600:
            for header, data in iter_batches(raw.fetch("keyed", 0, at).records):
                values |= {record.key: record.value for record in iter_records(data)}
                at = header.last_offset + 1
        assert values == {b"%d" % key: b"%d in round 259" % key for key in range(10)}
