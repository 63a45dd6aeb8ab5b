"""SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): both ends show that they know the password, unsent.

    client   n,,n=USER,r=NONCE
    server   r=NONCE+MORE,s=SALT,i=ITERATIONS
    client   c=biws,r=NONCE+MORE,p=PROOF
    server   v=SIGNATURE

States: NEW -> STARTED (start) -> PROVEN (the server's challenge) -> COMPLETE (its signature holds).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from millstream.core.security.sasl.mechanism import AuthenticationError

DIGESTS: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
# Kafka's own least; the most is a bound on what a hostile server can make a client compute (about a second).
ITERATIONS_MIN: Final = 4_096
ITERATIONS_MAX: Final = 1_000_000
_NONCE_BYTES: Final = 24
_NO_CHANNEL_BINDING: Final = "n,,"


class Scram:
    """One exchange for a user. `nonce` makes the client's random text."""

    def __init__(self, name: str, username: str, password: str, *, nonce: Callable[[], str] | None = None) -> None:
        self.name = name
        self._digest = DIGESTS[name]
        self._password = password.encode()
        self._nonce = (nonce or _nonce)()
        self._first = f"n={_escaped(username)},r={self._nonce}"
        # What the server must sign to show that it knows the password too; None until the client has shown it.
        self._signature: bytes | None = None
        self.is_complete = False

    def start(self) -> bytes:
        return (_NO_CHANNEL_BINDING + self._first).encode()

    def respond(self, challenge: bytes) -> bytes | None:
        try:
            text = challenge.decode()
        except UnicodeDecodeError as error:
            raise AuthenticationError(f"the broker's {self.name} message is not text") from error
        if self._signature is None:
            return self._proof(text)
        fields = _fields(text)
        if "e" in fields:
            raise AuthenticationError(f"the broker refused {self.name}: {fields['e']}")
        if not hmac.compare_digest(_decoded(fields.get("v", "")), self._signature):
            raise AuthenticationError(
                f"the broker does not know this user's password: its {self.name} signature is wrong"
            )
        self.is_complete = True
        return None

    def _proof(self, text: str) -> bytes:
        fields = _fields(text)
        if "e" in fields:
            raise AuthenticationError(f"the broker refused {self.name}: {fields['e']}")
        nonce, salt = fields.get("r", ""), _decoded(fields.get("s", ""))
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationError(f"the broker's {self.name} nonce does not begin with this client's")
        iterations = int(fields["i"]) if fields.get("i", "").isascii() and fields.get("i", "").isdigit() else 0
        if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX or not salt:
            raise AuthenticationError(
                f"the broker wants {iterations} {self.name} iterations; {ITERATIONS_MIN} to {ITERATIONS_MAX} are done"
            )
        salted = hashlib.pbkdf2_hmac(self._digest, self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", self._digest)
        stored_key = hashlib.new(self._digest, client_key).digest()
        last = f"c={base64.b64encode(_NO_CHANNEL_BINDING.encode()).decode()},r={nonce}"
        message = f"{self._first},{text},{last}".encode()
        proof = _xor(client_key, hmac.digest(stored_key, message, self._digest))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", self._digest), message, self._digest)
        return f"{last},p={base64.b64encode(proof).decode()}".encode()


def _nonce() -> str:
    return secrets.token_urlsafe(_NONCE_BYTES)


def _escaped(username: str) -> str:
    return username.replace("=", "=3D").replace(",", "=2C")


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise AuthenticationError("the broker's SCRAM message is no list of fields")
        fields.setdefault(name, value)
    return fields


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuthenticationError("the broker's SCRAM message holds what is no base64") from error


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(left, right, strict=True))
