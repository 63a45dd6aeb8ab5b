"""Which answer belongs to which request: sans-I/O.

A broker answers the requests of one connection in their order, each answer carrying the request's correlation id. So
the requests in flight are a queue, and an answer that does not carry the id of its head means that the two ends have
lost each other: the connection is of no more use. A request that has no answer (Produce with acks=0) is never queued.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple, Protocol

from millstream.core.net.framing import frame
from millstream.core.wire import (
    APIS,
    ApiKey,
    Buffer,
    ErrorCode,
    WireError,
    decode,
    encode_parts,
    encode_request_header,
    parse_response_header,
)

_CORRELATION_ID_MAX: Final = 2**31 - 1
_CORRELATION_ID_SIZE: Final = 4
_new_tuple: Final = tuple.__new__  # a NamedTuple's own constructor costs twice this
# A broker too old for the version of an ApiVersions request answers with this error in version 0 (KIP-511).
_UNSUPPORTED_VERSION: Final = int(ErrorCode.UNSUPPORTED_VERSION).to_bytes(2, "big")


class Encoded(Protocol):
    """A request that makes its own frame and reads its own answer: for those that messages would cost too much."""

    @property
    def api_key(self) -> ApiKey: ...

    @property
    def version(self) -> int: ...

    def frame(self, correlation_id: int, /) -> list[Buffer]: ...

    def read(self, body: memoryview, /) -> Any:
        """Return what the answer is to its token; `body` begins with the correlation id. Raises WireError."""
        ...


class Pending(NamedTuple):
    """A request in flight, and what its sender wants to be reminded of."""

    correlation_id: int
    api_key: ApiKey
    version: int
    token: Any
    # What reads the answer, where that isn't the codec.
    encoded: Encoded | None = None


class Correlator:
    """The requests in flight on one connection, at most `in_flight_max`, oldest first."""

    def __init__(self, client_id: str | None, *, in_flight_max: int) -> None:
        self._client_id = client_id
        self._in_flight_max = in_flight_max
        self._next_id = 0
        # Invariant: len(_pending) <= _in_flight_max.
        self._pending: deque[Pending] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        return len(self._pending) >= self._in_flight_max

    @property
    def oldest(self) -> Pending | None:
        return self._pending[0] if self._pending else None

    def send(self, message: Any, api_key: ApiKey, version: int, token: Any) -> list[Buffer]:
        """Return the frame of a request that will be answered, and remember it with its `token`."""
        assert not self.is_full, f"{len(self._pending)} requests are in flight"
        parts = self._frame(message, api_key, version)
        self._pending.append(Pending(self._next_id, api_key, version, token))
        self._advance()
        return parts

    def send_encoded(self, encoded: Encoded, token: Any) -> list[Buffer]:
        """Do as `send` for a request that makes its own frame."""
        assert not self.is_full, f"{len(self._pending)} requests are in flight"
        parts = encoded.frame(self._next_id)
        self._pending.append(_new_tuple(Pending, (self._next_id, encoded.api_key, encoded.version, token, encoded)))
        self._advance()
        return parts

    def send_encoded_unanswered(self, encoded: Encoded) -> list[Buffer]:
        """Do as `send_unanswered` for a request that makes its own frame."""
        parts = encoded.frame(self._next_id)
        self._advance()
        return parts

    def send_unanswered(self, message: Any, api_key: ApiKey, version: int) -> list[Buffer]:
        """Return the frame of a request that has no answer."""
        parts = self._frame(message, api_key, version)
        self._advance()
        return parts

    def receive(self, body: memoryview) -> tuple[Pending, Any]:
        """Return the request that the frame `body` answers, and the decoded answer. Raises WireError."""
        if not self._pending:
            raise WireError("an answer came while no request was in flight")
        pending = self._pending[0]
        correlation_id = int.from_bytes(body[:_CORRELATION_ID_SIZE], "big", signed=True)
        if correlation_id != pending.correlation_id:
            raise WireError(
                f"an answer has correlation id {correlation_id} where {pending.correlation_id} "
                f"({pending.api_key.name}) is the next"
            )
        response = pending.encoded.read(body) if pending.encoded is not None else _read(pending, body)
        # Not before it is read: one that can't be is still in flight, and fails with the connection.
        self._pending.popleft()
        return pending, response

    def abandon(self) -> list[Pending]:
        """Forget every request in flight and return them, oldest first: the connection is gone."""
        abandoned = list(self._pending)
        self._pending.clear()
        return abandoned

    def _frame(self, message: Any, api_key: ApiKey, version: int) -> list[Buffer]:
        header = encode_request_header(api_key, version, self._next_id, self._client_id)
        return frame((header, *encode_parts(message, version)))

    def _advance(self) -> None:
        self._next_id = self._next_id + 1 if self._next_id < _CORRELATION_ID_MAX else 0


def _read(pending: Pending, body: memoryview) -> Any:
    """Decode the answer to a message."""
    version = pending.version
    _, position = parse_response_header(pending.api_key, version, body)
    if pending.api_key is ApiKey.API_VERSIONS and bytes(body[position : position + 2]) == _UNSUPPORTED_VERSION:
        version = 0
    response, _ = decode(APIS[pending.api_key].response, version, body, position)
    return response
