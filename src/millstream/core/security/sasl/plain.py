"""PLAIN (RFC 4616): the password itself, so only for connections that TLS protects."""

from __future__ import annotations

from millstream.core.security.sasl.mechanism import AuthenticationError


class Plain:
    """authorization identity NUL user NUL password, in one message."""

    name = "PLAIN"

    def __init__(self, username: str, password: str) -> None:
        if "\0" in username or "\0" in password:
            raise AuthenticationError("a user name or password for PLAIN cannot hold a NUL character")
        self._message = f"\0{username}\0{password}".encode()
        self.is_complete = False

    def start(self) -> bytes:
        return self._message

    def respond(self, challenge: bytes) -> bytes | None:
        if challenge:
            raise AuthenticationError(f"the broker answered PLAIN with {len(challenge)} bytes, where there are none")
        self.is_complete = True
        return None
