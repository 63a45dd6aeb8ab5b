"""SaslAuthenticate (key 36): one step of a SASL exchange.

Versions  0 (KIP-152)   1 lifetime of the session (KIP-368)   2 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int64, message


@message(key=36, versions="0-2", flexible="2+")
class SaslAuthenticateRequest:
    auth_bytes: bytes = b""


@message(key=36, versions="0-2", flexible="2+")
class SaslAuthenticateResponse:
    error_code: int16 = 0
    error_message: str | None = ""
    auth_bytes: bytes = b""
    # After so long the client has to authenticate again; 0 for never.
    session_lifetime_ms: int64 = field(versions="1+", default=0)
