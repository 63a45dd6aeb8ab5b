"""kill -9 in the middle of cleaning: the latest acknowledged value of each key is always there.

A thread writes a few keys again and again into a compacted topic of small segments, which the cleaner never stops
cleaning, with a map for all keys, or for some at a time; the broker is killed at random moments and started again.
`make test` runs a few rounds, `make soak` fifty.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from millstream.core.records import BatchBuilder, iter_batches, iter_records
from millstream.testing import broker
from millstream.testing.kafka import free_ports, wait_until
from millstream.testing.raw import ClosedError, RawConnection

KEYS = 50
SEED = 4
TOPIC = "compacted"
SETTINGS = {
    "log.cleaner.backoff.ms": "0",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.segment.delete.delay.ms": "0",
}


def key_of(number: int) -> int:
    """The key that a number is written under."""
    return random.Random(number).randrange(KEYS)


class Load:
    """Writes number after number, each under its key; every segment holds a batch or two."""

    def __init__(self, bootstrap: str, first: int) -> None:
        self._bootstrap = bootstrap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.number = first
        # The newest acknowledged number of each key.
        self.acknowledged: dict[int, int] = {}
        self.errors: list[BaseException] = []

    def start(self) -> None:
        self._thread.start()

    def wait_sent(self, more: int) -> None:
        goal = self.number + more
        wait_until(lambda: self.number >= goal, 150, "the load")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(150)
        assert not self.errors, self.errors[0]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    with RawConnection(self._bootstrap) as raw:
                        while not self._stop.is_set():
                            self._send(raw)
                except (OSError, ClosedError):
                    time.sleep(0.01)  # it is being started again
        except BaseException as error:
            self.errors.append(error)

    def _send(self, raw: RawConnection) -> None:
        builder = BatchBuilder()
        numbers = range(self.number, self.number + 10)
        for number in numbers:
            value = b"" if number % 7 == 0 else b"x" * 100
            builder.append(1_700_000_000_000 + number, b"%d" % key_of(number), b"%d " % number + value)
        self.number += 10
        answer = raw.produce(TOPIC, 0, builder.build())
        if answer.error_code == 0:
            self.acknowledged.update({key_of(number): number for number in numbers})


def latest(bootstrap: str) -> dict[int, int]:
    """The newest number of each key, read from the log's start to its end."""
    found: dict[int, int] = {}
    last = -1
    with RawConnection(bootstrap) as raw:
        at, end = 0, raw.offset(TOPIC, 0)
        while at < end:
            answer = raw.fetch(TOPIC, 0, at)
            assert answer.error_code == 0, answer
            for header, batch in iter_batches(answer.records):
                at = header.last_offset + 1
                for record in iter_records(batch):
                    assert record.offset > last
                    last = record.offset
                    assert record.key is not None
                    assert record.value is not None
                    found[int(record.key)] = int(record.value.split(b" ")[0])
    return found


def is_unfinished(file: Path) -> bool:
    """Whether a cleaning in progress made the file."""
    return file.name.endswith((".cleaned", ".swap"))


@pytest.fixture
def rounds(soak: bool) -> int:
    """How often the broker is killed."""
    return 50 if soak else 3


@pytest.mark.parametrize("map_bytes", [100_000, 30 * 24], ids=["a map for all keys", "a map for half of them"])
def test_kill_nine_while_cleaning_loses_no_latest_value(rounds: int, map_bytes: int) -> None:
    draw = random.Random(SEED)
    interrupted = 0
    settings = SETTINGS | {"log.cleaner.dedupe.buffer.size": str(map_bytes)}
    with broker(settings, port=free_ports(1)[0]) as running:
        with RawConnection(running.bootstrap_servers) as raw:
            raw.create_topic(TOPIC, 1, cleanup_policy="compact", segment_ms=1)
        folder = Path(running.log_dir) / f"{TOPIC}-0"
        number = 0
        done = 0
        # The cleaning that is waited for may be over before the kill: then more rounds, until one was cut short.
        while done < rounds or (not interrupted and done < 10 * rounds):
            done += 1
            load = Load(running.bootstrap_servers, number)
            load.start()
            try:
                load.wait_sent(draw.randrange(1, 800))
                wait_until(lambda: any(map(is_unfinished, folder.iterdir())), 150, "a cleaning")
                running.kill()
            finally:
                load.stop()
            number = load.number
            interrupted += any(map(is_unfinished, folder.iterdir()))
            running.start()
            found = latest(running.bootstrap_servers)
            for key, number in load.acknowledged.items():
                assert found[key] >= number, f"key {key}: {number} was acknowledged, {found[key]} is there"
        checkpoint_text = Path(running.log_dir, "cleaner-offset-checkpoint").read_text()
        print(f"{done} kills, {interrupted} with a cleaning on the disk, seed {SEED}")
    assert interrupted
    assert int(checkpoint_text.split()[-1]) > 0
