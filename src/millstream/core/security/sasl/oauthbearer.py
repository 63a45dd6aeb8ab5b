"""OAUTHBEARER (RFC 7628, KIP-255): a token that somebody else vouches for; TLS should protect it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from millstream.core.security.sasl.mechanism import AuthenticationError

_SEPARATOR: Final = "\x01"


class OAuthBearer:
    """One exchange with a `token`; `extensions` are SASL extensions (KIP-342), as brokers of others want them."""

    name = "OAUTHBEARER"

    def __init__(self, token: str, extensions: Mapping[str, str] | None = None) -> None:
        pairs = {"auth": f"Bearer {token}", **(extensions or {})}
        for name, value in pairs.items():
            if _SEPARATOR in name or _SEPARATOR in value:
                raise AuthenticationError(f"OAUTHBEARER cannot send {name!r}: it holds a control character")
        self._message = f"n,,{_SEPARATOR}{''.join(f'{name}={value}{_SEPARATOR}' for name, value in pairs.items())}"
        self._refusal: str | None = None
        self.is_complete = False

    def start(self) -> bytes:
        return (self._message + _SEPARATOR).encode()

    def respond(self, challenge: bytes) -> bytes | None:
        if challenge:
            # The server says why in JSON, and fails the exchange once the client has acknowledged that.
            if self._refusal is not None:
                raise AuthenticationError(f"the broker refused the token: {self._refusal}")
            self._refusal = _status(challenge)
            return _SEPARATOR.encode()
        if self._refusal is not None:
            raise AuthenticationError(f"the broker refused the token: {self._refusal}")
        self.is_complete = True
        return None


def _status(challenge: bytes) -> str:
    try:
        said = json.loads(challenge)
    except ValueError:
        return "it does not say why"
    status = said.get("status") if isinstance(said, dict) else None
    return str(status)[:200] if status else "it does not say why"
