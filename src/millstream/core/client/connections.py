"""Connections to the brokers of a cluster, one per broker and purpose, each with the versions its broker speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.core.net import Address, Connection, ConnectionClosedError
from millstream.core.wire import APIS, ApiKey, ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

BROKERS_MAX: Final = 10_000


class BrokerConnection:
    """An open connection and the version ranges its broker announced (KIP-35)."""

    def __init__(self, connection: Connection, versions: Mapping[int, tuple[int, int]]) -> None:
        self.connection = connection
        self.versions = versions

    @property
    def is_open(self) -> bool:
        return self.connection.is_open

    def version(self, key: ApiKey, *, version_max: int | None = None) -> int:
        """Return the highest version both ends speak, at most `version_max`. Raises KafkaError where there is none."""
        ours = APIS[key].versions
        low, high = ours[0], ours[-1] if version_max is None else min(ours[-1], version_max)
        theirs = self.versions.get(key)
        if theirs is None:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"the broker at {self.connection.address} does not serve {key.name}"
            )
        chosen = min(high, theirs[1])
        if chosen < max(low, theirs[0]):
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the broker at {self.connection.address} speaks {key.name} {theirs[0]}-{theirs[1]}, "
                f"this client {low}-{high}",
            )
        return chosen

    async def request(self, message: Any, *, timeout_s: float, version_max: int | None = None) -> Any:
        """Send `message` in the highest version both ends speak and return its answer. Raises KafkaError."""
        key = ApiKey(message.__wire__.key)
        version = self.version(key, version_max=version_max)
        return await self.connection.request(message, key, version, timeout_s=timeout_s)

    async def send_unanswered(self, message: Any, *, timeout_s: float) -> None:
        """Send a `message` that has no answer (Produce with acks=0)."""
        key = ApiKey(message.__wire__.key)
        await self.connection.send_unanswered(message, key, self.version(key), timeout_s=timeout_s)


class Connections:
    """Opens connections on demand and keeps one per address and lane; a lost one is opened anew by its next use.

    A lane keeps requests that wait at the broker (Fetch) from holding up those that don't.
    """

    def __init__(self, *, client_id: str, software_version: str, connect_timeout_s: float) -> None:
        self._client_id = client_id
        self._software_version = software_version
        self._connect_timeout_s = connect_timeout_s
        # Invariant: at most two lanes of BROKERS_MAX addresses.
        self._open: dict[tuple[Address, str], BrokerConnection] = {}
        self._opening: dict[tuple[Address, str], asyncio.Task[BrokerConnection]] = {}
        self._closed = False

    async def get(self, address: Address, *, lane: str = "") -> BrokerConnection:
        """Return an open connection to `address`. Raises KafkaError."""
        if self._closed:
            raise ConnectionClosedError("this client is closed")
        key = (address, lane)
        known = self._open.get(key)
        if known is not None and known.is_open:
            return known
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = asyncio.create_task(self._connect(key))
        return await asyncio.shield(opening)

    async def first_of(self, addresses: Sequence[Address]) -> BrokerConnection:
        """Return a connection to the first of `addresses` that takes one; each is tried once. Raises KafkaError."""
        errors: list[KafkaError] = []
        for address in addresses:
            try:
                return await self.get(address)
            except KafkaError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise ConnectionClosedError(
            f"no broker of {len(errors)} answers: {'; '.join(error.message for error in errors)}"
        ) from errors[-1]

    async def close(self) -> None:
        """Close every connection and wait until their sockets are gone."""
        self._closed = True
        for opening in list(self._opening.values()):
            opening.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        connections = [known.connection for known in self._open.values()]
        self._open.clear()
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))

    async def _connect(self, key: tuple[Address, str]) -> BrokerConnection:
        try:
            connection = await Connection.open(key[0], client_id=self._client_id, timeout_s=self._connect_timeout_s)
            try:
                versions = await self._negotiate(connection)
            except BaseException:
                connection.close()
                raise
            if key not in self._open and len(self._open) >= 2 * BROKERS_MAX:
                connection.close()
                raise ConnectionClosedError(f"this client holds {len(self._open)} connections, its bound")
            self._open[key] = BrokerConnection(connection, versions)
            return self._open[key]
        finally:
            del self._opening[key]

    async def _negotiate(self, connection: Connection) -> dict[int, tuple[int, int]]:
        request = ApiVersionsRequest(client_software_name="millstream", client_software_version=self._software_version)
        version = APIS[ApiKey.API_VERSIONS].versions[-1]
        while True:
            response: ApiVersionsResponse = await connection.request(
                request, ApiKey.API_VERSIONS, version, timeout_s=self._connect_timeout_s
            )
            if response.error_code == ErrorCode.UNSUPPORTED_VERSION and version > 0:
                # KIP-511: the broker answers in version 0 and names the versions it has.
                named = [api.max_version for api in response.api_keys if api.api_key == ApiKey.API_VERSIONS]
                version = min(version - 1, *named) if named else 0
                continue
            if response.error_code:
                code = error_code(response.error_code)
                raise KafkaError(code, f"{connection.address} refused ApiVersions: {code.sentence}")
            return {api.api_key: (api.min_version, api.max_version) for api in response.api_keys}
