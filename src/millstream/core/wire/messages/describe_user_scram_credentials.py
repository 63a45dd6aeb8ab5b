"""DescribeUserScramCredentials (key 50): which users have passwords for SCRAM, never the passwords (KIP-554).

Versions  0 all of it
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class UserName:
    name: str = ""


@message(key=50, versions="0", flexible="0+")
class DescribeUserScramCredentialsRequest:
    # Null or empty for all users.
    users: list[UserName] | None = field(factory=list)


@struct
class CredentialInfo:
    # 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    mechanism: int8 = 0
    iterations: int32 = 0


@struct
class DescribeUserScramCredentialsResult:
    user: str = ""
    error_code: int16 = 0
    error_message: str | None = ""
    credential_infos: list[CredentialInfo] = field(factory=list)


@message(key=50, versions="0", flexible="0+")
class DescribeUserScramCredentialsResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""
    results: list[DescribeUserScramCredentialsResult] = field(factory=list)
