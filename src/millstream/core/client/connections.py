"""Connections to the brokers of a cluster, one per broker and purpose, each with the versions its broker speaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.core.client.authentication import authenticate
from millstream.core.client.backoff import Backoff
from millstream.core.client.security import ClientSecurity
from millstream.core.config.client_config import ClientConfig
from millstream.core.net import Address, BufferPool, Connection, ConnectionClosedError, SocketSettings
from millstream.core.wire import APIS, ApiKey, ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

BROKERS_MAX: Final = 10_000
# A session is renewed after this share of its lifetime (Kafka's clients: 0.85 to 0.95).
_SESSION_SHARE: Final = 0.85
_RETIRED_CHECK_S: Final = 1.0
# Buffers for large answers that are kept for the next ones; a consumer's are no more than its buffer.memory.
POOLED_BYTES_MAX: Final = 64 * 1024 * 1024


class BrokerConnection:
    """An open connection and the version ranges its broker announced (KIP-35)."""

    def __init__(
        self, connection: Connection, versions: Mapping[int, tuple[int, int]], *, lifetime_s: float | None = None
    ) -> None:
        self.connection = connection
        self.versions = versions
        # On the monotonic clock, with time to spare: the broker ends connections whose session has ended.
        self._expires_at = None if lifetime_s is None else time.monotonic() + _SESSION_SHARE * lifetime_s

    @property
    def is_open(self) -> bool:
        return self.connection.is_open

    @property
    def is_expiring(self) -> bool:
        """Whether its SASL session is about to end."""
        return self._expires_at is not None and time.monotonic() >= self._expires_at

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

    A lane keeps requests that wait at the broker (Fetch) from holding up those that don't. An address that was not
    reached is left alone for a while (KIP-144); a connection that nothing uses for long is closed, and one whose SASL
    session nears its end is replaced once its answers are in (KIP-368).
    """

    def __init__(
        self,
        config: ClientConfig,
        security: ClientSecurity,
        *,
        software_version: str,
        buffer_pool: BufferPool | None = None,
    ) -> None:
        """Large answers go into buffers of `buffer_pool`, which stays its owner's; without one into some of its own."""
        self._client_id = config.string("client.id")
        self._software_version = software_version
        self._security = security
        self._settings = SocketSettings(
            security.tls, config.integer("send.buffer.bytes"), config.integer("receive.buffer.bytes")
        )
        self._setup_timeout = Backoff(
            config.seconds("socket.connection.setup.timeout.ms"),
            config.seconds("socket.connection.setup.timeout.max.ms"),
        )
        self._request_timeout_s = config.seconds("request.timeout.ms")
        self._backoff = Backoff(config.seconds("reconnect.backoff.ms"), config.seconds("reconnect.backoff.max.ms"))
        self._idle_s = config.seconds("connections.max.idle.ms")
        self.pool = buffer_pool if buffer_pool is not None else make_buffer_pool(config)
        self._owns_pool = buffer_pool is None
        # Invariant: at most two lanes of BROKERS_MAX addresses.
        self._open: dict[tuple[Address, str], BrokerConnection] = {}
        self._opening: dict[tuple[Address, str], asyncio.Task[BrokerConnection]] = {}
        # Failures in a row of each address that was not reached the last time, and when it may be tried again.
        self._failures: dict[Address, tuple[int, float]] = {}
        # Replaced connections that wait for their last answers.
        self._retired: set[BrokerConnection] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def get(self, address: Address, *, lane: str = "") -> BrokerConnection:
        """Return an open connection to `address`. Raises KafkaError."""
        if self._closed:
            raise ConnectionClosedError("this client is closed")
        key = (address, lane)
        known = self._open.get(key)
        if known is not None and known.is_open:
            if not known.is_expiring:
                return known
            self._retire(key, known)
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = asyncio.create_task(self._connect(key))
            # Whoever asked may have given up meanwhile: its error is told to the next one.
            opening.add_done_callback(_retrieve)
        return await asyncio.shield(opening)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def is_connected(self, address: Address) -> bool:
        """Whether a connection to `address` is open now."""
        known = self._open.get((address, ""))
        return known is not None and known.is_open

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
        if final := [error for error in errors if not error.code.retriable]:
            raise final[0]
        raise ConnectionClosedError(
            f"no broker of {len(errors)} answers: {'; '.join(error.message for error in errors)}"
        ) from errors[-1]

    async def close(self) -> None:
        """Close every connection and wait until their sockets are gone."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for opening in list(self._opening.values()):
            opening.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        connections = [known.connection for known in (*self._open.values(), *self._retired)]
        self._open.clear()
        self._retired.clear()
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))
        if self._owns_pool:
            self.pool.clear()

    async def _connect(self, key: tuple[Address, str]) -> BrokerConnection:
        address = key[0]
        failures, retry_at = self._failures.get(address, (0, 0.0))
        try:
            if (pause_s := retry_at - time.monotonic()) > 0:
                await asyncio.sleep(pause_s)
            try:
                opened = await self._open_one(address, failures)
            except KafkaError:
                self._failures[address] = (failures + 1, time.monotonic() + self._backoff.pause_s(failures + 1))
                raise
            self._failures.pop(address, None)
            if key not in self._open and len(self._open) >= 2 * BROKERS_MAX:
                opened.connection.close()
                raise ConnectionClosedError(f"this client holds {len(self._open)} connections, its bound")
            self._open[key] = opened
            self._watch_idle()
            return opened
        finally:
            del self._opening[key]

    async def _open_one(self, address: Address, failures: int) -> BrokerConnection:
        timeout_s = min(self._setup_timeout.pause_s(failures + 1), self._request_timeout_s)
        connection = await Connection.open(
            address, client_id=self._client_id, timeout_s=timeout_s, settings=self._settings, pool=self.pool
        )
        try:
            versions = await self._negotiate(connection)
            lifetime_s = None
            if self._security.sasl_mechanism is not None:
                lifetime_s = await authenticate(connection, versions, self._security, timeout_s=self._request_timeout_s)
        except BaseException:
            connection.close()
            raise
        return BrokerConnection(connection, versions, lifetime_s=lifetime_s)

    def _retire(self, key: tuple[Address, str], known: BrokerConnection) -> None:
        """Take a connection out of use; it is closed when what it was asked has been answered."""
        del self._open[key]
        self._retired.add(known)
        self._watch_idle()

    def _watch_idle(self) -> None:
        if self._idle_timer is None and not self._closed:
            pause_s = _RETIRED_CHECK_S if self._retired else max(_RETIRED_CHECK_S, self._idle_s / 4)
            if self._retired or self._idle_s >= 0:
                self._idle_timer = asyncio.get_running_loop().call_later(pause_s, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_timer = None
        now = asyncio.get_running_loop().time()
        for known in [known for known in self._retired if not known.connection.in_flight]:
            self._retired.discard(known)
            known.connection.close("its SASL session was about to end")
        for key, known in list(self._open.items()):
            if not known.is_open:
                del self._open[key]
            elif 0 <= self._idle_s <= now - known.connection.used_at and not known.connection.in_flight:
                del self._open[key]
                known.connection.close(f"nothing used it for {self._idle_s:g} s")
        if self._open or self._retired:
            self._watch_idle()

    async def _negotiate(self, connection: Connection) -> dict[int, tuple[int, int]]:
        request = ApiVersionsRequest(client_software_name="millstream", client_software_version=self._software_version)
        version = APIS[ApiKey.API_VERSIONS].versions[-1]
        while True:
            response: ApiVersionsResponse = await connection.request(
                request, ApiKey.API_VERSIONS, version, timeout_s=self._request_timeout_s
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


def make_buffer_pool(config: ClientConfig) -> BufferPool:
    """Return a pool as large as clients with this configuration make use of."""
    bound = config.integer("buffer.memory") if "buffer.memory" in config else POOLED_BYTES_MAX
    # Twice the bound: what is in use may take all of it, and the next buffers would be made and thrown away.
    return BufferPool(min(2 * bound, POOLED_BYTES_MAX))


def _retrieve(task: asyncio.Task[BrokerConnection]) -> None:
    """Look at a task's error, so that one nobody waits for any more is not reported as forgotten."""
    if not task.cancelled():
        task.exception()
