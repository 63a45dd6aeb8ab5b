"""Exchanges over HTTP: one shell that blocks and one that awaits, both fed by Attempts.

A connection belongs to the process that opened it: in a forked one a new HTTP client is made, and what was inherited
is left alone. In asyncio it belongs to its loop, and another one is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from millstream.schemas.client.attempts import AGAIN, Attempt, Attempts
from millstream.schemas.client.calls import Exchange
from millstream.schemas.client.config import RegistryConfig
from millstream.schemas.client.errors import RegistryError

if TYPE_CHECKING:
    import httpx2

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_ACCEPTED: Final = f"{CONTENT_TYPE}, application/vnd.schemaregistry+json, application/json"
# Connections kept open, and at all: a client is used by a program's threads, not by thousands.
_KEPT_CONNECTIONS: Final = 4
_CONNECTIONS_MAX: Final = 32
# Shorter than servers keep one that nobody uses (ours, five seconds): a request is not to meet the end of it.
_KEPT_S: Final = 3.0


class BlockingHttp:
    """Runs exchanges on the caller's thread; for any thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        # By process: a forked one finds the parent's and makes its own. No lock, as in BoundedCache.
        self._clients: dict[int, httpx2.Client] = {}
        self._first = 0

    def __call__(self, exchange: Exchange) -> Any:
        """Return the answer. Raises RegistryError, RegistryUnavailableError."""
        attempts = _attempts(self._config, self._first, exchange)
        content = _content(exchange)
        while True:
            attempt = attempts.next(time.monotonic())
            if attempt.pause_s:
                time.sleep(attempt.pause_s)
            outcome = self._send(exchange, content, attempt)
            if isinstance(outcome, _Failure):
                attempts.failed(outcome.reason, begun=outcome.begun)
            elif (answer := attempts.answered(*outcome)) is not AGAIN:
                self._first = attempts.index
                return answer

    def close(self) -> None:
        """Close the connections; the next exchange opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _opened(self) -> httpx2.Client:
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            import httpx2

            made = httpx2.Client(**_settings(self._config))
            client = self._clients.setdefault(process, made)
            if client is not made:
                # Another thread was first.
                made.close()
        return client

    def _send(self, exchange: Exchange, content: bytes | None, attempt: Attempt) -> tuple[int, bytes] | _Failure:
        import httpx2

        deadline = time.monotonic() + attempt.timeout_s
        client = self._opened()
        request = _request(client, self._config, exchange, content, attempt)
        try:
            response = client.send(request, stream=True)
            try:
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    _check(self._config, attempt, len(body), deadline)
            finally:
                response.close()
        except httpx2.RequestError as error:
            return _Failure.of(error)
        except _OverdueError:
            return _Failure(f"no whole answer within {attempt.timeout_s:g} s", begun=True)
        return response.status_code, bytes(body)


class AwaitingHttp:
    """Runs exchanges on an event loop."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._client: tuple[int, asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None
        self._first = 0

    async def __call__(self, exchange: Exchange) -> Any:
        """Return the answer. Raises RegistryError, RegistryUnavailableError."""
        attempts = _attempts(self._config, self._first, exchange)
        content = _content(exchange)
        while True:
            attempt = attempts.next(time.monotonic())
            if attempt.pause_s:
                await asyncio.sleep(attempt.pause_s)
            outcome = await self._send(exchange, content, attempt)
            if isinstance(outcome, _Failure):
                attempts.failed(outcome.reason, begun=outcome.begun)
            elif (answer := attempts.answered(*outcome)) is not AGAIN:
                self._first = attempts.index
                return answer

    async def aclose(self) -> None:
        """Close the connections; the next exchange opens new ones."""
        owned = self._client
        if owned is not None and owned[0] == os.getpid() and owned[1] is asyncio.get_running_loop():
            self._client = None
            await owned[2].aclose()

    def _opened(self) -> httpx2.AsyncClient:
        owned, loop = self._client, asyncio.get_running_loop()
        if owned is not None and owned[0] == os.getpid() and owned[1] is not loop:
            raise RuntimeError(
                "this client has connections on another event loop: make one per loop, or close it there"
            )
        if owned is None or owned[0] != os.getpid():
            import httpx2

            self._client = owned = (os.getpid(), loop, httpx2.AsyncClient(**_settings(self._config)))
        return owned[2]

    async def _send(self, exchange: Exchange, content: bytes | None, attempt: Attempt) -> tuple[int, bytes] | _Failure:
        import httpx2

        client = self._opened()
        request = _request(client, self._config, exchange, content, attempt)
        deadline = time.monotonic() + attempt.timeout_s
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await client.send(request, stream=True)
                try:
                    body = bytearray()
                    async for part in response.aiter_bytes():
                        body += part
                        _check(self._config, attempt, len(body), deadline)
                finally:
                    await response.aclose()
        except httpx2.RequestError as error:
            return _Failure.of(error)
        except (TimeoutError, _OverdueError):
            return _Failure(f"no whole answer within {attempt.timeout_s:g} s", begun=True)
        return response.status_code, bytes(body)


class _OverdueError(Exception):
    """The answer's bytes come too slowly."""


class _Failure:
    """No answer came; `begun`: the registry may have got the request."""

    __slots__ = ("begun", "reason")

    def __init__(self, reason: str, *, begun: bool) -> None:
        self.reason = reason
        self.begun = begun

    @classmethod
    def of(cls, error: httpx2.RequestError) -> _Failure:
        import httpx2

        before = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
        text = str(error) or ("timed out" if isinstance(error, httpx2.TimeoutException) else type(error).__name__)
        return cls(text, begun=not isinstance(error, before))


def _attempts(config: RegistryConfig, first: int, exchange: Exchange) -> Attempts:
    idempotent, may_lag = exchange.is_idempotent, exchange.may_lag
    return Attempts(config, first, time.monotonic(), is_idempotent=idempotent, may_lag=may_lag)


def _settings(config: RegistryConfig) -> dict[str, Any]:
    import httpx2

    # What the environment says of proxies, certificates and passwords is not ours to read.
    settings: dict[str, Any] = {
        "trust_env": False,
        "proxy": config.proxy,
        "headers": {"Accept": _ACCEPTED, **config.headers},
        "auth": config.auth,
        "limits": httpx2.Limits(
            max_connections=_CONNECTIONS_MAX,
            max_keepalive_connections=_KEPT_CONNECTIONS,
            keepalive_expiry=_KEPT_S,
        ),
        "follow_redirects": False,
    }
    settings["verify"] = config.ssl_context() if any(url.startswith("https:") for url in config.urls) else False
    return settings


def _content(exchange: Exchange) -> bytes | None:
    return None if exchange.body is None else json.dumps(exchange.body, ensure_ascii=False).encode()


def _request(
    client: httpx2.Client | httpx2.AsyncClient,
    config: RegistryConfig,
    exchange: Exchange,
    content: bytes | None,
    attempt: Attempt,
) -> httpx2.Request:
    import httpx2

    headers: Mapping[str, str] = {} if content is None else {"Content-Type": CONTENT_TYPE}
    if config.token is not None:
        token = config.token if isinstance(config.token, str) else config.token()
        headers = {**headers, "Authorization": f"Bearer {token}"}
    timeout = httpx2.Timeout(attempt.timeout_s, connect=min(config.connect_timeout_s, attempt.timeout_s))
    url = f"{attempt.url}/{exchange.path}"
    return client.build_request(exchange.method, url, content=content, headers=headers, timeout=timeout)


def _check(config: RegistryConfig, attempt: Attempt, size_bytes: int, deadline: float) -> None:
    if size_bytes > config.response_bytes_max:
        reason = f"{attempt.url} answered over {config.response_bytes_max:,} bytes; `response_bytes_max` takes more"
        raise RegistryError(200, 200, reason)
    if time.monotonic() > deadline:
        raise _OverdueError
