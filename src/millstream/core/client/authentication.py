"""SASL over an open connection: SaslHandshake, then SaslAuthenticate until both ends believe each other (KIP-152).

The steps of the exchange itself run on a worker thread: they compute, or ask others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from millstream.core.client.security import ClientSecurity
from millstream.core.net import Connection
from millstream.core.security import AuthenticationError
from millstream.core.wire import APIS, ApiKey, ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from millstream.core.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

P = ParamSpec("P")
T = TypeVar("T")

ROUNDS_MAX: Final = 16


async def authenticate(
    connection: Connection, versions: Mapping[int, tuple[int, int]], security: ClientSecurity, *, timeout_s: float
) -> float | None:
    """Say who this client is; return the session's lifetime in seconds (KIP-368), None for no end.

    Raises AuthenticationError where the broker does not accept it, KafkaError where the connection breaks.
    """
    name = security.sasl_mechanism
    assert name is not None
    if ApiKey.SASL_HANDSHAKE not in versions or ApiKey.SASL_AUTHENTICATE not in versions:
        raise AuthenticationError(f"{connection.address} has no SASL on this listener; security.protocol asks for it")
    handshake: SaslHandshakeResponse = await connection.request(
        SaslHandshakeRequest(mechanism=name), ApiKey.SASL_HANDSHAKE, 1, timeout_s=timeout_s
    )
    if handshake.error_code:
        raise AuthenticationError(
            f"{connection.address} does not take sasl.mechanism {name}; it takes {', '.join(handshake.mechanisms)}"
        )
    version = min(APIS[ApiKey.SASL_AUTHENTICATE].versions[-1], versions[ApiKey.SASL_AUTHENTICATE][1])
    exchange = await security.exchange(connection.address.host)
    message: bytes | None = await _on_thread(timeout_s, exchange.start)
    for _ in range(ROUNDS_MAX):
        if message is None:
            break
        answer = await _ask(connection, version, message, timeout_s)
        message = await _on_thread(timeout_s, exchange.respond, answer.auth_bytes)
        if exchange.is_complete and message is None:
            return answer.session_lifetime_ms / 1000 or None
    raise AuthenticationError(f"{connection.address} ended {name} before it had shown who it is")


async def _on_thread(timeout_s: float, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.to_thread(step, *args, **kwargs)
    except TimeoutError as error:
        raise KafkaError(
            ErrorCode.REQUEST_TIMED_OUT, f"this side of SASL was not done within {timeout_s:g} s"
        ) from error


async def _ask(connection: Connection, version: int, message: bytes, timeout_s: float) -> SaslAuthenticateResponse:
    request: Any = SaslAuthenticateRequest(auth_bytes=message)
    response: SaslAuthenticateResponse = await connection.request(
        request, ApiKey.SASL_AUTHENTICATE, version, timeout_s=timeout_s
    )
    code = error_code(response.error_code)
    if code is ErrorCode.NONE:
        return response
    reason = response.error_message or code.sentence
    if code is ErrorCode.SASL_AUTHENTICATION_FAILED:
        raise AuthenticationError(f"{connection.address} refused these credentials: {reason}")
    raise KafkaError(code, f"{connection.address}: {reason}")
