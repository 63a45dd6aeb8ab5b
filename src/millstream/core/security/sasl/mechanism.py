"""What every SASL mechanism does, and how one fails."""

from __future__ import annotations

from typing import Protocol

from millstream.core.wire import ErrorCode, KafkaError


class AuthenticationError(KafkaError):
    """The two ends do not believe each other; trying again with the same credentials helps nobody."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.SASL_AUTHENTICATION_FAILED, message)


class Mechanism(Protocol):
    """One exchange: `start`, then `respond` to each challenge until `is_complete`. Used once.

    A step may take its time (SCRAM computes, Kerberos asks its key server): it is for a worker thread.
    """

    name: str

    @property
    def is_complete(self) -> bool:
        """Whether this end has all it needs to believe the other."""
        ...

    def start(self) -> bytes:
        """Return the first message."""
        ...

    def respond(self, challenge: bytes) -> bytes | None:
        """Return the answer to a `challenge`, None where there is no more to say. Raises AuthenticationError."""
        ...
