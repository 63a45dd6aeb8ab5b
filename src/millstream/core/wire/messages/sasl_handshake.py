"""SaslHandshake (key 17): agree on a SASL mechanism.

Versions  0 bare tokens follow in frames of their own   1 SaslAuthenticate carries the tokens (KIP-152)

It never became flexible: old clients can't negotiate a higher version here (KAFKA-9577).
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, message


@message(key=17, versions="0-1", flexible="none")
class SaslHandshakeRequest:
    mechanism: str = ""


@message(key=17, versions="0-1", flexible="none")
class SaslHandshakeResponse:
    error_code: int16 = 0
    mechanisms: list[str] = field(factory=list)
