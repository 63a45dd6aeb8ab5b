"""Asking the leader in the name of a client: the request as it came, with `X-Forward`, and its answer as it is."""

from __future__ import annotations

from typing import Final

import httpx2

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import Answer, ApiRequest
from millstream.schemas.server.election import Identity
from millstream.schemas.server.errors import RegistryRefusal
from millstream.schemas.server.settings import RegistryConfig

FORWARD_HEADER: Final = "x-forward"
# Of an answer to a write: the offset behind what was written. Other registries do not send it.
POSITION_HEADER: Final = "x-millstream-position"
_DIGITS_MAX: Final = 19
_PASSED_ON: Final = (
    "content-type",
    "accept",
    "authorization",
    "x-request-id",
    "confluent-accept-unknown-properties",
)
_CONNECTIONS_MAX: Final = 32
# Shorter than the leader keeps a connection that nobody uses: a request is not to meet the end of it.
_KEPT_S: Final = 3.0


class UnreachableLeaderError(RegistryRefusal):
    """There was no connection to the leader: it was not asked."""


class Forwarder:
    """Connections to whoever leads; owned by the loop."""

    def __init__(self, config: RegistryConfig) -> None:
        timeout = httpx2.Timeout(
            config.seconds("leader.read.timeout.ms"), connect=config.seconds("leader.connect.timeout.ms")
        )
        self._client = httpx2.AsyncClient(
            timeout=timeout,
            limits=httpx2.Limits(max_connections=_CONNECTIONS_MAX, keepalive_expiry=_KEPT_S),
            verify=config.leader_tls(),
            # Instances reach each other directly, whatever the environment says of proxies.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def forward(self, leader: Identity, request: ApiRequest) -> Answer:
        """Have the leader answer. Raises RegistryRefusal where it doesn't."""
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = leader.url + request.path + (f"?{request.query_string}" if request.query_string else "")
        try:
            response = await self._client.request(
                request.method, url, content=request.body, headers={**headers, FORWARD_HEADER: "true"}
            )
        except httpx2.HTTPError as error:
            refusal = UnreachableLeaderError if isinstance(error, httpx2.ConnectError) else RegistryRefusal
            raise refusal(
                RegistryErrorCode.FORWARDING_FAILED,
                f"Error while forwarding the request to the leader at {leader.url}: {error or type(error).__name__}",
            ) from error
        body = response.content if response.status_code != 204 else None
        position = response.headers.get(POSITION_HEADER, "")
        return Answer(
            body,
            response.status_code,
            response.headers.get("content-type"),
            int(position) if position.isdigit() and len(position) <= _DIGITS_MAX else None,
        )
