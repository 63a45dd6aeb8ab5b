"""What callers are told of an error that nothing foresaw: ours, or what the machine has no room for."""

from __future__ import annotations

from millstream.core.wire import ErrorCode, KafkaError


def unforeseen(what: str, error: BaseException) -> KafkaError:
    """Return `error` as a KafkaError that says what failed by it; one that is a KafkaError already stays itself."""
    if isinstance(error, KafkaError):
        return error
    told = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{what} failed: {error!r}")
    told.__cause__ = error
    return told
