"""What the writers of all file systems have in common: small writes gathered into chunks, and the states of a file.

A Parquet or Avro writer hands over pages and blocks of any size, headers of some bytes among them. A call to a server,
even to a thread with a deadline, costs the same for 20 bytes as for many, so what is small is gathered into one buffer;
what is as large as a chunk already passes without a copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Self

from millstream.hadoop_loader.filesystem.errors import UnavailableError, UnknownOutcomeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Buffer

# Bytes gathered before they are sent: large against the cost of a call, small against a worker's memory.
CHUNK_BYTES: Final = 1 << 20


class ChunkedOutputFile(ABC):
    """An OutputFile (see the interface) over four acts of a file system; owned by one thread at a time.

    States: OPEN -> CLOSED (close) | BROKEN (an act raised) -> ABANDONED (abandon, from OPEN and BROKEN).
    """

    def __init__(self, path: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.path = path
        # Bytes taken by write. Invariant: size_bytes = bytes sent + len(_gathered) while OPEN.
        self.size_bytes = 0
        self._chunk_bytes = chunk_bytes
        self._gathered = bytearray()
        self._state = "OPEN"

    @abstractmethod
    def _send(self, data: memoryview) -> None:
        """Append `data`; it is not looked at after this returns."""

    @abstractmethod
    def _sync(self) -> None:
        """Have what was sent on disk."""

    @abstractmethod
    def _finish(self) -> None:
        """End the file, whole."""

    @abstractmethod
    def _give_up(self) -> None:
        """Drop the file without ending it as if whole, and try to delete it; may raise."""

    def write(self, data: Buffer, /) -> int:
        """Append all of `data`; returns its size in bytes."""
        self._check_open()
        view = memoryview(data).cast("B")
        size = view.nbytes
        self.size_bytes += size
        if len(self._gathered) + size < self._chunk_bytes:
            self._gathered += view
            return size
        self._flush()
        if size < self._chunk_bytes:
            self._gathered += view
        else:
            self._do(lambda: self._send(view))
        return size

    def sync(self) -> None:
        """Have everything written so far on disk."""
        self._check_open()
        self._flush()
        self._do(self._sync)

    def close(self) -> None:
        """Send the rest and end the file."""
        if self._state == "CLOSED":
            return
        self._check_open()
        self._flush()
        self._do(self._finish)
        self._state = "CLOSED"

    def abandon(self) -> bool:
        """Drop the file and try to delete it; never raises, and does nothing to a file that is closed.

        Returns whether the file system answered.
        """
        if self._state in {"CLOSED", "ABANDONED"}:
            return True
        self._state = "ABANDONED"
        self._gathered = bytearray()
        # What is left lies where nobody reads, and whoever cleans staging deletes it.
        try:
            self._give_up()
        except (UnavailableError, UnknownOutcomeError):
            return False
        except Exception:  # noqa: BLE001  whatever it says, it answers
            return True
        return True

    def _flush(self) -> None:
        if self._gathered:
            data, self._gathered = self._gathered, bytearray()
            self._do(lambda: self._send(memoryview(data)))

    def _do(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException:
            self._state = "BROKEN"
            raise

    def _check_open(self) -> None:
        if self._state != "OPEN":
            raise ValueError(f"{self.path} is {self._state.lower()}: nothing can be written to it any more")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
            return
        try:
            self.close()
        except BaseException:
            self.abandon()
            raise
