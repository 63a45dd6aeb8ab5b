"""Bearer tokens from an OAuth 2 token endpoint, by the client credentials grant (RFC 6749 section 4.4, KIP-768).

A token is kept and used for every new connection until it is due for renewal; one request at a time asks for the next.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

from millstream.core.client.backoff import Backoff
from millstream.core.client.security import Token, TokenProvider
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.definition import ConfigError
from millstream.core.security import AuthenticationError

RESPONSE_BYTES_MAX: Final = 1024 * 1024
TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 3
# Where the endpoint does not say how long a token lives (RFC 6749 recommends that it does).
_LIFETIME_S: Final = 300.0


def endpoint_of(config: ClientConfig) -> TokenProvider | None:
    """Return a provider for the endpoint that `config` names, None where it names none. Raises ConfigError."""
    url = config.string_or_none("sasl.oauthbearer.token.endpoint.url")
    if url is None:
        return None
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise ConfigError(f"sasl.oauthbearer.token.endpoint.url {url} is no https address")
    client = config.string_or_none("sasl.oauthbearer.client.credentials.client.id")
    secret = config.string_or_none("sasl.oauthbearer.client.credentials.client.secret")
    if not client or not secret:
        raise ConfigError(
            "sasl.oauthbearer.token.endpoint.url needs sasl.oauthbearer.client.credentials.client.id and .secret"
        )
    return TokenEndpoint(config, url, client, secret).token


class TokenEndpoint:
    """Asks one endpoint as one client; owned by one event loop, the request itself is made on a thread."""

    def __init__(self, config: ClientConfig, url: str, client: str, secret: str) -> None:
        self._url = url
        self._scope = config.string_or_none("sasl.oauthbearer.scope")
        quoted = config.boolean("sasl.oauthbearer.header.urlencode")
        pair = ":".join(urllib.parse.quote_plus(each) if quoted else each for each in (client, secret))
        self._authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        read_ms = config["sasl.login.read.timeout.ms"]
        self._timeout_s = read_ms / 1000 if isinstance(read_ms, int) else TIMEOUT_S
        self._backoff = Backoff(
            config.seconds("sasl.login.retry.backoff.ms"), config.seconds("sasl.login.retry.backoff.max.ms")
        )
        self._renew_share = config.number("sasl.login.refresh.window.factor")
        self._spare_s = config.integer("sasl.login.refresh.buffer.seconds")
        self._token: Token | None = None
        # When the next one is asked for, on the monotonic clock.
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> Token:
        """Return a token that is good now. Raises AuthenticationError."""
        async with self._lock:
            if self._token is None or time.monotonic() >= self._renew_at:
                self._token, lifetime_s = await self._fetch()
                # A token that lives shorter than the spare time is used for its share of that life all the same.
                early_s = lifetime_s - self._spare_s
                share_s = lifetime_s * self._renew_share
                self._renew_at = time.monotonic() + (min(share_s, early_s) if early_s > 0 else share_s)
            return self._token

    async def _fetch(self) -> tuple[Token, float]:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return await asyncio.to_thread(self._post)
            except AuthenticationError:
                raise
            except OSError as error:
                if attempt == ATTEMPTS_MAX:
                    raise AuthenticationError(f"the token endpoint {self._url} does not answer: {error}") from error
            await asyncio.sleep(self._backoff.pause_s(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _post(self) -> tuple[Token, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        request = urllib.request.Request(  # noqa: S310  the scheme was checked
            self._url,
            data=urllib.parse.urlencode(form).encode(),
            headers={"Authorization": self._authorization, "Accept": "application/json"},
        )
        context = ssl.create_default_context() if self._url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s, context=context) as answer:  # noqa: S310
                body = answer.read(RESPONSE_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500:
                    raise OSError(f"it answers {error.code}") from error
                raise AuthenticationError(
                    f"the token endpoint {self._url} refuses this client: {error.code}"
                ) from error
        try:
            said = json.loads(body) if len(body) <= RESPONSE_BYTES_MAX else None
        except ValueError:
            said = None
        text = said.get("access_token") if isinstance(said, dict) else None
        if not isinstance(text, str) or not text:
            raise AuthenticationError(f"the token endpoint {self._url} answers without an access_token")
        lifetime = said.get("expires_in") if isinstance(said, dict) else None
        lifetime_s = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else _LIFETIME_S
        return Token(text, int((time.time() + lifetime_s) * 1000)), lifetime_s
