"""Users' passwords for SCRAM (KIP-554): which there are, never what they are; given and taken away.

A password is salted and hashed here; brokers never see it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from millstream.core.client.admin.results import check, error_of
from millstream.core.client.client import Client
from millstream.core.wire import KafkaError
from millstream.core.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from millstream.core.wire.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    UserName,
)

ITERATIONS_DEFAULT: Final = 4_096  # Kafka's least
_SALT_BYTES: Final = 24


class ScramMechanism(IntEnum):
    """Kafka's numbers."""

    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

    @property
    def hash_name(self) -> str:
        return "sha256" if self is ScramMechanism.SCRAM_SHA_256 else "sha512"


class ScramCredential(NamedTuple):
    """That a user has a password for a mechanism."""

    mechanism: ScramMechanism
    iterations: int


class ScramPassword:
    """A user's new password for a mechanism. Its repr does not show it."""

    __slots__ = ("iterations", "mechanism", "password", "salt", "user")

    def __init__(
        self,
        user: str,
        password: str,
        mechanism: ScramMechanism = ScramMechanism.SCRAM_SHA_512,
        *,
        iterations: int = ITERATIONS_DEFAULT,
        salt: bytes | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.mechanism = mechanism
        self.iterations = iterations
        self.salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt

    def salted(self) -> bytes:
        """Return what brokers keep keys of: the password hashed `iterations` times (RFC 5802)."""
        return hashlib.pbkdf2_hmac(self.mechanism.hash_name, self.password.encode(), self.salt, self.iterations)

    def __repr__(self) -> str:
        return f"ScramPassword({self.user!r}, [hidden], {self.mechanism.name}, iterations={self.iterations})"


class ScramDeletion(NamedTuple):
    """A user's password for a mechanism, to be taken away."""

    user: str
    mechanism: ScramMechanism


async def describe_user_scram_credentials(
    client: Client, users: Iterable[str] | None, *, timeout_ms: int
) -> dict[str, tuple[ScramCredential, ...] | KafkaError]:
    """Return what passwords users have, these or all that have any."""
    request = DescribeUserScramCredentialsRequest(
        users=None if users is None else [UserName(name=name) for name in dict.fromkeys(users)]
    )
    response: DescribeUserScramCredentialsResponse = await client.request(request, timeout_ms=timeout_ms)
    check(response.error_code, response.error_message, "users were not described")
    results: dict[str, tuple[ScramCredential, ...] | KafkaError] = {}
    for result in response.results:
        error = error_of(result.error_code, result.error_message, f"user {result.user!r}")
        results[result.user] = error or tuple(
            sorted(ScramCredential(ScramMechanism(one.mechanism), one.iterations) for one in result.credential_infos)
        )
    return results


async def alter_user_scram_credentials(
    client: Client, changes: Iterable[ScramPassword | ScramDeletion], *, timeout_ms: int
) -> dict[str, KafkaError | None]:
    """Give users passwords, or take them away; return per user None or why not."""
    listed = list(changes)
    # Thousands of hashes each: not on the loop.
    passwords = [one for one in listed if isinstance(one, ScramPassword)]
    salted = await asyncio.to_thread(lambda: [one.salted() for one in passwords])
    request = AlterUserScramCredentialsRequest(
        deletions=[
            ScramCredentialDeletion(name=one.user, mechanism=one.mechanism)
            for one in listed
            if isinstance(one, ScramDeletion)
        ],
        upsertions=[
            ScramCredentialUpsertion(
                name=one.user,
                mechanism=one.mechanism,
                iterations=one.iterations,
                salt=one.salt,
                salted_password=hashed,
            )
            for one, hashed in zip(passwords, salted, strict=True)
        ],
    )
    response: AlterUserScramCredentialsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    return {
        result.user: error_of(result.error_code, result.error_message, f"user {result.user!r} was not altered")
        for result in response.results
    }
