"""The REST interface as an ASGI application.

`RegistryApp` stands in front of Starlette's router. It answers what was asked before and has not changed (a client
asks for a schema by id once per process, and there are many), authenticates, bounds bodies, and puts contexts and
aliases into the path. Everything else is an endpoint's: `routes/`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import (
    BODY_TYPES,
    JSON_TYPES,
    Answer,
    ApiRequest,
    Endpoint,
    answer_of,
    error_answer,
)
from millstream.schemas.server.auth import BasicAuthentication
from millstream.schemas.server.errors import RegistryRefusal, not_found
from millstream.schemas.server.forwarding import FORWARD_HEADER, POSITION_HEADER, Forwarder, UnreachableLeaderError
from millstream.schemas.server.openapi import OPENAPI_ENDPOINTS
from millstream.schemas.server.paths import joined, query_of, segments_of, with_alias, within_context
from millstream.schemas.server.registry import NotLeadingError, Registry
from millstream.schemas.server.routes import ENDPOINTS

_logger: Final = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Answers larger than this are not kept.
CACHED_SIZE_BYTES_MAX: Final = 1024 * 1024
# Nor are answers to what was asked in more bytes than this.
CACHED_KEY_SIZE_BYTES_MAX: Final = 4096
# What an answer takes beside its body and what was asked.
_ENTRY_SIZE_BYTES: Final = 1024
# How often a write looks for the leader anew, when it changes meanwhile.
_LEADERS_MAX: Final = 3
# In the scope: the ApiRequest, and what its answer is kept under.
_API_REQUEST: Final = "millstream.request"
_CACHE_KEY: Final = "millstream.cache_key"


def create_app(registry: Registry) -> RegistryApp:
    """Return the ASGI application of a registry, which its caller starts and closes."""
    return RegistryApp(registry)


class RegistryApp:
    """See the module; owned by the loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        config = registry.config
        self._forwarder = Forwarder(config)
        self._authentication = None
        if config.string("authentication.method") == "BASIC":
            users = Path(config.string("authentication.users.location"))
            self._authentication = BasicAuthentication.load(users, config.string("authentication.realm"))
        self._body_size_max = config.integer("request.size.bytes.max")
        self._cache_size_max = config.integer("response.cache.size.bytes")
        # Messages to send by (path, query, wanted type), as long as the state is at _cache_revision.
        self._cache: dict[tuple[bytes, bytes, bytes], tuple[MutableMapping[str, Any], MutableMapping[str, Any]]] = {}
        self._cache_size = 0
        self._cache_revision = registry.state.revision
        endpoints = (*ENDPOINTS, *OPENAPI_ENDPOINTS)
        routes = [Route(path, _Methods(self, of_path), methods=None) for path, of_path in _by_path(endpoints).items()]
        self._router = Router(routes, redirect_slashes=False, default=_nowhere)
        self._requests = {
            (one.method, one.path): registry.metrics_of_endpoint(one.method, one.path) for one in endpoints
        }

    async def close(self) -> None:
        """Close the connections to the leader."""
        await self._forwarder.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        authentication = self._authentication
        if authentication is not None and not await authentication.allows(_header(scope, b"authorization")):
            error = RegistryRefusal(RegistryErrorCode.UNAUTHORIZED, "Unauthorized: give a user and a password")
            challenge = {"www-authenticate": authentication.challenge}
            await _response(error_answer(error), _wanted_type(scope), challenge)(scope, receive, send)
            return
        if scope["method"] == "GET":
            if self._cache_revision != self._registry.state.revision:
                self._clear_cache()
            key = (scope["raw_path"], scope["query_string"], _header(scope, b"accept") or b"")
            scope[_CACHE_KEY] = key
            kept = self._cache.get(key)
            if kept is not None:
                await send(kept[0])
                await send(kept[1])
                return
        try:
            await self._route(scope, receive, send)
        except RegistryRefusal as error:
            await _response(error_answer(error), _wanted_type(scope))(scope, receive, send)
        except HTTPException as error:
            refusal = (
                not_found()
                if error.status_code == 404
                else RegistryRefusal(RegistryErrorCode(error.status_code), f"HTTP {error.status_code} {error.detail}")
            )
            allowed = dict(error.headers or {})
            await _response(error_answer(refusal), _wanted_type(scope), allowed)(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            _logger.exception("%s %s", scope["method"], scope["path"])
            refusal = RegistryRefusal(RegistryErrorCode.INTERNAL, "Internal Server Error")
            await _response(error_answer(refusal), _wanted_type(scope))(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            query = query_of(scope["query_string"])
            segments = within_context(segments_of(scope["raw_path"]), query)
        except ValueError as error:
            raise RegistryRefusal(RegistryErrorCode.BAD_REQUEST, f"The address is none: {error}") from error
        if not _was_forwarded(scope):
            segments = with_alias(segments, query, self._registry.catalog.aliased)
        path = joined(segments)
        request = Request(scope, receive)
        body = await self._body(request) if scope["method"] in ("POST", "PUT", "DELETE") else b""
        routed = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        routed[_API_REQUEST] = ApiRequest(
            scope["method"], path, {}, query, dict(request.headers), body, urlencode(query, doseq=True)
        )
        await self._router(routed, receive, send)

    async def _body(self, request: Request) -> bytes:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._body_size_max:
                raise RegistryRefusal(
                    RegistryErrorCode.BODY_TOO_LARGE, f"The body is larger than {self._body_size_max} bytes"
                )
            parts.append(part)
        if size and given and given not in BODY_TYPES:
            raise RegistryRefusal(RegistryErrorCode.UNSUPPORTED_MEDIA_TYPE, "HTTP 415 Unsupported Media Type")
        return b"".join(parts)

    async def answer(self, endpoint: Endpoint, scope: Scope) -> Response:
        """Have an endpoint answer a request that was routed to it."""
        request: ApiRequest = scope[_API_REQUEST]
        request.values = {name: unquote(str(value)) for name, value in scope["path_params"].items()}
        content_type = _wanted_type(scope)
        started = time.monotonic_ns()
        revision = self._registry.state.revision
        try:
            answer = await self._answer(endpoint, request)
        except RegistryRefusal as error:
            answer = error_answer(error)
        self._requests[endpoint.method, endpoint.path].observe((time.monotonic_ns() - started) // 1000)
        response = _response(answer, content_type)
        if endpoint.cached and endpoint.method == "GET" and answer.status == 200:
            self._keep(scope, response, revision)
        return response

    async def _answer(self, endpoint: Endpoint, request: ApiRequest) -> Answer:
        registry = self._registry
        if endpoint.ahead is not None:
            try:
                found = await endpoint.ahead(registry, request)
            except RegistryRefusal:
                if registry.is_leading:
                    raise
                found = None  # the leader may know already what this instance has still to read
            if found is not None:
                return answer_of(found)
        if not endpoint.writes:
            return answer_of(await endpoint.handler(registry, request))
        for _ in range(_LEADERS_MAX):
            try:
                async with registry.leading():
                    answer = answer_of(await endpoint.handler(registry, request))
                    return answer._replace(position=registry.store.position)
            except NotLeadingError as error:
                leader = error.leader
            if leader is None:
                break
            if registry.election is not None and leader.url == registry.election.identity.url:
                continue
            if request.headers.get(FORWARD_HEADER) == "true":
                raise RegistryRefusal(
                    RegistryErrorCode.UNKNOWN_LEADER, f"This instance does not lead, {leader.url} does; try again"
                )
            try:
                answer = await self._forwarder.forward(leader, request)
            except UnreachableLeaderError:
                # One that has left is known to have with the next heartbeat; one that was killed, much later.
                if await registry.is_left(leader):
                    continue
                raise
            if answer.position is not None:
                # Whoever asks this instance next finds what was written.
                await registry.store.catch_up(answer.position)
            return answer
        raise RegistryRefusal(RegistryErrorCode.UNKNOWN_LEADER, "Leader not known; try again")

    def _keep(self, scope: Scope, response: Response, revision: int) -> None:
        """Keep an answer for who asks again, if it still holds."""
        if revision != self._registry.state.revision or len(response.body) > CACHED_SIZE_BYTES_MAX:
            return
        if self._cache_revision != revision:
            self._clear_cache()
        key: tuple[bytes, bytes, bytes] = scope[_CACHE_KEY]
        key_size = sum(map(len, key))
        if key_size > CACHED_KEY_SIZE_BYTES_MAX:
            return
        size = len(response.body) + key_size + _ENTRY_SIZE_BYTES
        if self._cache_size + size > self._cache_size_max:
            self._clear_cache()
            if size > self._cache_size_max:
                return
        self._cache_size += size
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        body = {"type": "http.response.body", "body": response.body}
        self._cache[key] = start, body

    def _clear_cache(self) -> None:
        self._cache.clear()
        self._cache_size = 0
        self._cache_revision = self._registry.state.revision


async def _nowhere(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise not_found(scope["path"])


class _Methods:
    """The endpoints of one path, as an ASGI application: Starlette's Route stands in front of it."""

    def __init__(self, app: RegistryApp, endpoints: Iterable[Endpoint]) -> None:
        self._app = app
        self._endpoints = {one.method: one for one in endpoints}
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]._replace(cached=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise HTTPException(405, "Method Not Allowed", {"allow": ", ".join(sorted(self._endpoints))})
        response = await self._app.answer(endpoint, scope)
        await response(scope, receive, send)


def _by_path(endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    return by_path


def _response(answer: Answer, content_type: str, headers: dict[str, str] | None = None) -> Response:
    """Return what is sent. Starlette's own Response would say `charset` behind a JSON type."""
    response = Response(answer.body, answer.status, headers)
    if answer.body is not None:
        response.headers["content-type"] = answer.content_type or content_type
    if answer.position is not None:
        response.headers[POSITION_HEADER] = str(answer.position)
    return response


def _wanted_type(scope: Scope) -> str:
    """Return the JSON type that the client prefers; Confluent's newest where it does not say, or knows none of them."""
    accept = _header(scope, b"accept")
    if accept is None:
        return JSON_TYPES[0]
    preferred: list[tuple[float, int, str]] = []
    for given in accept.decode("latin-1").split(","):
        media, _, parameters = given.partition(";")
        media = media.strip().lower()
        if media in JSON_TYPES:
            preferred.append((-_quality(parameters), JSON_TYPES.index(media), media))
    return min(preferred)[2] if preferred else JSON_TYPES[0]


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _was_forwarded(scope: Scope) -> bool:
    """Whether another instance has put the alias in already; only writes are forwarded."""
    return scope["method"] not in ("GET", "HEAD") and _header(scope, FORWARD_HEADER.encode()) == b"true"


def _header(scope: Scope, name: bytes) -> bytes | None:
    value: bytes
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None
