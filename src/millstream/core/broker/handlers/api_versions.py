"""ApiVersions: which APIs this broker serves, in which versions (KIP-35).

An API is listed when it has a handler. No features are advertised: clients then keep to the first transaction protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.handlers import HANDLERS
from millstream.core.wire import APIS, ApiKey, ErrorCode
from millstream.core.wire.messages.api_versions import ApiVersion, ApiVersionsRequest, ApiVersionsResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.context import RequestContext


def api_versions(_broker: Broker, _request: ApiVersionsRequest, _context: RequestContext) -> ApiVersionsResponse:
    """List the APIs. Whoever asks may know; names of client software are taken as they come."""
    return ApiVersionsResponse(api_keys=[_range(key) for key in sorted(HANDLERS)])


def unsupported_version_response() -> ApiVersionsResponse:
    """Return the answer to a version that is not served: with the range to choose from, in version 0 (KIP-511)."""
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[_range(ApiKey.API_VERSIONS)])


def _range(key: ApiKey) -> ApiVersion:
    api = APIS[key]
    return ApiVersion(api_key=key, min_version=api.advertised_min, max_version=api.version_max)
