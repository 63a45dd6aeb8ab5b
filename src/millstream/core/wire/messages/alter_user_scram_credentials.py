"""AlterUserScramCredentials (key 51): give users salted passwords for SCRAM and take them away (KIP-554).

Versions  0 all of it
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class ScramCredentialDeletion:
    name: str = ""
    # 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    mechanism: int8 = 0


@struct
class ScramCredentialUpsertion:
    name: str = ""
    mechanism: int8 = 0
    iterations: int32 = 0
    salt: bytes = b""
    salted_password: bytes = b""


@message(key=51, versions="0", flexible="0+")
class AlterUserScramCredentialsRequest:
    deletions: list[ScramCredentialDeletion] = field(factory=list)
    upsertions: list[ScramCredentialUpsertion] = field(factory=list)


@struct
class AlterUserScramCredentialsResult:
    user: str = ""
    error_code: int16 = 0
    error_message: str | None = ""


@message(key=51, versions="0", flexible="0+")
class AlterUserScramCredentialsResponse:
    throttle_time_ms: int32 = 0
    results: list[AlterUserScramCredentialsResult] = field(factory=list)
