"""SaslHandshake"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, message


@message(key=17, versions="0-1", flexible="none")
class SaslHandshakeRequest:
    mechanism: str = ""


@message(key=17, versions="0-1", flexible="none")
class SaslHandshakeResponse:
    error_code: int16 = 0
    mechanisms: list[str] = field(factory=list)
