"""What is wrong with a batch, for those who read it and for those who sent it."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.core.wire import ErrorCode, KafkaError


class CorruptRecordError(ValueError):
    """Bytes that are no batch, no record, or no output of their codec; `position` is where, or -1."""

    def __init__(self, message: str, position: int = -1) -> None:
        super().__init__(message)
        self.position = position


class DecompressedTooLargeError(CorruptRecordError):
    """A batch that would decompress to more than its bound; no more than the bound was made of it."""


class InvalidBatchError(KafkaError):
    """A produced batch that is refused; nothing of it may be appended.

    `record_errors` names the records at fault, (index in the batch, message), as Produce v8+ answers them (KIP-467); it
    is empty where the batch as a whole is refused.
    """

    def __init__(self, code: ErrorCode, message: str, record_errors: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(code, message)
        self.record_errors = list(record_errors)
