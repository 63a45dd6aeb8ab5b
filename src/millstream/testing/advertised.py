"""The brokers' addresses in answers, replaced: what keeps a client behind the proxy that it speaks through.

Metadata, FindCoordinator and DescribeCluster name brokers, and so do Produce and Fetch where a leader has moved
(KIP-951). Versions of these that are unknown here could not be read, so ApiVersions is answered without them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from millstream.core.wire import (
    APIS,
    ApiKey,
    Buffer,
    ErrorCode,
    WireError,
    decode,
    encode,
    encode_response_header,
    parse_response_header,
)

Address = tuple[str, int]
Replace = Callable[[str, int], Awaitable[Address]]

_log: Final = logging.getLogger(__name__)

# The first version of each that names brokers.
NAMING_BROKERS: Final = {
    ApiKey.METADATA: 0,
    ApiKey.FIND_COORDINATOR: 0,
    ApiKey.DESCRIBE_CLUSTER: 0,
    ApiKey.PRODUCE: 10,
    ApiKey.FETCH: 16,
}


async def with_replaced_addresses(api_key: int, version: int, answer: Buffer, replace: Replace) -> Buffer:
    """Return the answer (header and body) to a request with every address in it replaced."""
    if api_key == ApiKey.API_VERSIONS:
        return _within_known_versions(version, answer)
    if version < NAMING_BROKERS.get(ApiKey(api_key) if api_key in APIS else ApiKey.API_VERSIONS, version + 1):
        return answer
    key = ApiKey(api_key)
    try:
        correlation_id, position = parse_response_header(key, version, answer)
        message, _ = decode(APIS[key].response, version, answer, position)
    except WireError as error:
        _log.warning("an answer to %s version %d passes as it is: %s", key.name, version, error)
        return answer
    places = list(_places(message))
    for place in places:
        place.host, place.port = await replace(place.host, place.port)
    return encode(message, version, encode_response_header(key, version, correlation_id)) if places else answer


def _places(message: Any) -> Iterable[Any]:
    """Every part of the message that has an address in it."""
    for name in ("brokers", "coordinators", "node_endpoints"):
        for place in getattr(message, name, ()):
            if place.host:
                yield place
    if getattr(message, "host", ""):
        yield message


def _within_known_versions(version: int, answer: Buffer) -> Buffer:
    correlation_id, position = parse_response_header(ApiKey.API_VERSIONS, version, answer)
    if int.from_bytes(answer[position : position + 2], "big") == ErrorCode.UNSUPPORTED_VERSION:
        version = 0
    try:
        message: Any = decode(APIS[ApiKey.API_VERSIONS].response, version, answer, position)[0]
    except WireError as error:
        _log.warning("an answer to ApiVersions version %d passes as it is: %s", version, error)
        return answer
    for api in message.api_keys:
        if api.api_key in NAMING_BROKERS:
            api.max_version = min(api.max_version, APIS[ApiKey(api.api_key)].version_max)
    return encode(message, version, encode_response_header(ApiKey.API_VERSIONS, version, correlation_id))
