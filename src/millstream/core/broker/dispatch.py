"""The table from an API's key to what serves it: versions, codecs, handler, counters. Filled on first use.

Owned by the event loop.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Any, Final

from millstream.core.broker.direct_send import Part
from millstream.core.broker.error_answers import error_answer
from millstream.core.broker.fetch_codec import read_request
from millstream.core.broker.handlers import HANDLERS, Handler, load_handler
from millstream.core.broker.handlers.encoded import Encoded, EncodedParts
from millstream.core.wire import (
    APIS,
    Api,
    ApiKey,
    ErrorCode,
    KafkaError,
    RequestHeader,
    WireError,
    decoder,
    encode_response_header,
    parts_encoder,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker_metrics import BrokerMetrics, RequestMetrics
    from millstream.core.broker.context import RequestContext
    from millstream.core.wire import Decoder, PartsEncoder

logger = logging.getLogger(__name__)

_LENGTH: Final = struct.Struct(">i")
_FETCH: Final = int(ApiKey.FETCH)
_PRODUCE: Final = int(ApiKey.PRODUCE)


class Route:
    """What serves one API."""

    __slots__ = ("_decoders", "_encoders", "api", "handler", "key", "metrics", "name", "versions")

    def __init__(self, api: Api, handler: Handler, metrics: RequestMetrics) -> None:
        self.api = api
        self.key = api.key
        self.name = api.name
        self.versions = api.versions
        self.handler = handler
        self.metrics = metrics
        # By version, as they come up.
        self._decoders: dict[int, Decoder[Any]] = {}
        self._encoders: dict[int, PartsEncoder] = {}

    def decode(self, version: int, frame: memoryview, position: int) -> Any:
        """Read the request's body; record bytes in it are views of `frame`. Raises WireError."""
        if self.key == _FETCH:
            return read_request(version, frame, position)
        decode = self._decoders.get(version)
        if decode is None:
            decode = self._decoders[version] = decoder(self.api.request, version)
        return decode(frame, position)[0]

    def encode(self, response: Any, version: int, correlation_id: int) -> list[Part]:
        """The whole response behind its frame length, as parts to be sent in order; large record bytes aren't
        copied.
        """
        header = encode_response_header(self.key, version, correlation_id)
        if type(response) is EncodedParts:
            size = len(header) + len(response.head) + sum(map(len, response.others))
            return [b"".join((_LENGTH.pack(size), header, response.head)), *response.others]
        if isinstance(response, Encoded):
            parts: list[Any] = [header, response.body]
        else:
            encode = self._encoders.get(version)
            if encode is None:
                encode = self._encoders[version] = parts_encoder(self.api.response, version)
            parts = encode(response, header)
            if len(parts) == 1:
                (part,) = parts
                return [_LENGTH.pack(len(part)) + part]
        parts[0] = _LENGTH.pack(sum(map(len, parts))) + parts[0]
        return parts

    def observe(self, version: int, time_us: int, response: Any) -> None:
        """Count one answered request."""
        metrics = self.metrics
        metrics.version(version).value += 1
        metrics.total_time_us.observe(time_us)
        if type(response) is EncodedParts:
            for code, count in response.error_codes.items():
                metrics.error(code).value += count
            return
        if self.key != _PRODUCE:
            metrics.error(getattr(response, "error_code", 0)).value += 1
        elif response:
            for topic in response.responses:
                for partition in topic.partition_responses:
                    metrics.error(partition.error_code).value += 1


class Routes:
    """All of them by API key; a handler's module is imported with its first request."""

    def __init__(self, metrics: BrokerMetrics) -> None:
        self._metrics = metrics
        self._routes: dict[int, Route] = {}

    def get(self, api_key: int) -> Route | None:
        """Return what serves the API; None where nothing does."""
        route = self._routes.get(api_key)
        if route is None and api_key in HANDLERS:
            key = ApiKey(api_key)
            route = self._routes[api_key] = Route(APIS[key], load_handler(key), self._metrics.request(key))
        return route

    def refuse_version(self, header: RequestHeader) -> list[Part] | None:
        """Return the answer to an unknown version: ApiVersions says in its version 0 what there is (KIP-511),
        others None.
        """
        if header.api_key != ApiKey.API_VERSIONS:
            return None
        from millstream.core.broker.handlers.api_versions import unsupported_version_response

        route = self.get(header.api_key)
        assert route is not None, "ApiVersions is served"
        return route.encode(unsupported_version_response(), 0, header.correlation_id)


def error_response(route: Route, request: Any, context: RequestContext, error: BaseException) -> Any | None:
    """Return a response that says `error` to the whole request; None where there is no place for it, or no response."""
    if isinstance(error, KafkaError):
        code = error.code
    elif isinstance(error, WireError):
        code = ErrorCode.INVALID_REQUEST
    else:
        code = ErrorCode.UNKNOWN_SERVER_ERROR
        logger.error("%s of client %s at %s failed", route.name, context.client_id, context.host, exc_info=error)
    if route.key == ApiKey.PRODUCE and request.acks == 0:
        return None
    message = error.message if isinstance(error, KafkaError) else code.sentence
    return error_answer(route.key, request, context.api_version, code, message)
