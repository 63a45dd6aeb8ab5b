"""Request and response headers, and whole requests and responses behind them.

Request   api_key int16, api_version int16, correlation_id int32, client_id nullable string with an int16 length; from
          an API's first flexible version on tagged fields (header v2; KIP-482). The client id never became compact.
Response  correlation_id int32; from the first flexible version on tagged fields (header v1). ApiVersions has header v0
          in every version, because the client does not know yet which versions the broker speaks (KIP-511).

Kafka's frames carry an int32 length before the header; it belongs to `millstream.core.net`, not here.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from millstream.core.wire.api import APIS, ApiKey
from millstream.core.wire.codec import encode
from millstream.core.wire.errors import WireError
from millstream.core.wire.runtime import Buffer, overrun, skip_tags

_REQUEST: Final = struct.Struct(">hhih")
_CORRELATION_ID: Final = struct.Struct(">i")

# From which version on an API's messages and headers are flexible; for keys we do not serve there is no telling.
_FLEXIBLE_FROM: Final[dict[int, int]] = {key: api.flexible_from for key, api in APIS.items()}
_NEVER: Final = 2**15
_new_tuple: Final = tuple.__new__  # a NamedTuple's own constructor costs twice this


class RequestHeader(NamedTuple):
    """Who asks for what: `api_key` is a plain number, since it may be none of ours."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None


def parse_request_header(data: Buffer, position: int = 0) -> tuple[RequestHeader, int]:
    """Read a request header; returns it with the position of the request's body. Raises WireError.

    For an API or a version that is not in `APIS` the header is still read, so that the request can be refused by its
    correlation id; where the body would start is then unknown.
    """
    try:
        key, version, correlation_id, size = _REQUEST.unpack_from(data, position)
        position += _REQUEST.size
        if size == -1:
            client_id = None
        else:
            end = position + size
            if end > len(data) or size < 0:
                raise overrun(size, len(data) - position)
            client_id = str(data[position:end], "utf-8")
            position = end
        if version >= _FLEXIBLE_FROM.get(key, _NEVER):
            position = position + 1 if data[position] == 0 else skip_tags(data, position, len(data))
    except (struct.error, IndexError, ValueError) as error:
        raise WireError(f"request header at byte {position}: {error}") from error
    return _new_tuple(RequestHeader, (key, version, correlation_id, client_id)), position


def encode_request(message: Any, version: int, correlation_id: int, client_id: str | None) -> bytes:
    """A request behind its header, without the frame's length."""
    return encode(message, version, encode_request_header(message.__wire__.key, version, correlation_id, client_id))


def encode_request_header(api_key: int, version: int, correlation_id: int, client_id: str | None) -> bytes:
    """The header of a request of `version`."""
    name = b"" if client_id is None else client_id.encode()
    head = _REQUEST.pack(api_key, version, correlation_id, -1 if client_id is None else len(name)) + name
    return head + b"\0" if version >= _FLEXIBLE_FROM[api_key] else head


def encode_response_header(api_key: int, version: int, correlation_id: int) -> bytes:
    """The header of the response to a request of `version`."""
    head = _CORRELATION_ID.pack(correlation_id)
    return head + b"\0" if version >= _FLEXIBLE_FROM[api_key] and api_key != ApiKey.API_VERSIONS else head


def parse_response_header(api_key: int, version: int, data: Buffer, position: int = 0) -> tuple[int, int]:
    """Read the header of the response to a request of `version`: its correlation id and the body's position."""
    try:
        (correlation_id,) = _CORRELATION_ID.unpack_from(data, position)
        position += _CORRELATION_ID.size
        if version >= _FLEXIBLE_FROM[api_key] and api_key != ApiKey.API_VERSIONS:
            position = skip_tags(data, position, len(data))
    except (struct.error, IndexError, ValueError) as error:
        raise WireError(f"response header at byte {position}: {error}") from error
    return correlation_id, position
