"""A well-behaved client in a thread: while others do their worst it produces and reads back, undisturbed."""

import threading
import time
from types import TracebackType
from typing import Self

from millstream.core.records import BatchBuilder, iter_batches, iter_records
from millstream.testing.raw import RawConnection


class Witness:
    """A context manager; leaving it ends the thread and raises what went wrong in it.

    Each round produces one record with acks=all, reads it back by its offset and compares it. `rounds` counts them,
    `slowest_s` is the longest one.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="witness")
        self.rounds = 0
        self.slowest_s = 0.0

    def _run(self) -> None:
        try:
            with RawConnection(self._bootstrap, timeout_s=90) as raw:
                while not self._stop.is_set():
                    started = time.monotonic()
                    self._round(raw)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                    self.rounds += 1
                    self._stop.wait(0.005)
        except BaseException as error:
            self._error = error

    def _round(self, raw: RawConnection) -> None:
        value = b"round %d" % self.rounds
        builder = BatchBuilder()
        builder.append(int(time.time() * 1000), b"witness", value)
        answer = raw.produce(self._topic, 0, builder.build())
        assert answer.error_code == 0, f"produce: error {answer.error_code} {answer.error_message}"
        assert answer.base_offset == self.rounds, f"offset {answer.base_offset}, expected {self.rounds}"
        found = raw.fetch(self._topic, 0, answer.base_offset, wait_ms=10_000)
        assert found.error_code == 0, f"fetch: error {found.error_code}"
        values = [record.value for _, batch in iter_batches(found.records) for record in iter_records(batch)]
        assert values == [value], values

    def wait_rounds(self, count: int, timeout_s: float = 150) -> None:
        """Until it has gone on for `count` rounds more."""
        goal = self.rounds + count
        deadline = time.monotonic() + timeout_s
        while self.rounds < goal and self._error is None:
            assert time.monotonic() < deadline, f"{self.rounds} rounds, {goal} wanted within {timeout_s:g} s"
            time.sleep(0.005)

    def __enter__(self) -> Self:
        with RawConnection(self._bootstrap) as raw:
            raw.create_topic(self._topic)
        self._thread.start()
        self.wait_rounds(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(150)
        if self._error is not None and error is None:
            raise AssertionError(f"the well-behaved client failed after {self.rounds} rounds") from self._error
