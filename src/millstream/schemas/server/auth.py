"""Basic authentication: users and passwords from a file, one a line.

    alice:secret
    bob:scrypt:SALT:HASH       salt and hash in hexadecimal, as `password_line` writes them
    # a comment

Whoever has given the right password once is known by the header's digest, so that scrypt runs once per user and not
per request. The file is read at the start. A name that is not there takes as long to refuse as one that is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from millstream.core.config import ConfigError

_SCHEME: Final = "scrypt"
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1
_SALT_SIZE: Final = 16
KNOWN_MAX: Final = 10_000
HEADER_SIZE_MAX: Final = 4096
# Passwords that are hashed at a time, each on a thread and in 16 MiB.
_HASHING_MAX: Final = 2


class BasicAuthentication:
    """Who may ask."""

    def __init__(self, users: dict[str, str], realm: str) -> None:
        """`users` are what stands behind the names in the file."""
        self._users = users
        self._known: set[bytes] = set()
        self._hashing = asyncio.Semaphore(_HASHING_MAX)
        # What the password for a name that is not there is held against.
        self._nobody = f"{_SCHEME}:{secrets.token_hex(_SALT_SIZE)}:00"
        # For WWW-Authenticate.
        self.challenge = f'Basic realm="{realm}", charset="UTF-8"'

    @classmethod
    def load(cls, path: Path, realm: str) -> BasicAuthentication:
        """Read the file. Raises OSError, and ConfigError for a line that is none of ours."""
        users: dict[str, str] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            name, colon, rest = entry.partition(":")
            if not colon or not name or not rest:
                raise ConfigError(f"{path}:{number}: a line is NAME:PASSWORD or NAME:scrypt:SALT:HASH")
            users[name] = rest
        return cls(users, realm)

    async def allows(self, header: bytes | None) -> bool:
        """Whether an Authorization header names a user by the right password."""
        if header is None or len(header) > HEADER_SIZE_MAX:
            return False
        digest = hashlib.sha256(header).digest()
        if digest in self._known:
            return True
        scheme, _, encoded = header.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        if not colon:
            return False
        wanted = self._users.get(name, self._nobody)
        async with self._hashing:
            is_right = await asyncio.to_thread(_is_right, password, wanted)
        if not is_right or name not in self._users:
            return False
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(digest)
        return True


def password_line(name: str, password: str) -> str:
    """Return a line for the file that does not give the password away."""
    salt = secrets.token_bytes(_SALT_SIZE)
    return f"{name}:{_SCHEME}:{salt.hex()}:{_hashed(password, salt).hex()}"


def _is_right(password: str, wanted: str) -> bool:
    scheme, _, rest = wanted.partition(":")
    if scheme != _SCHEME:
        return hmac.compare_digest(password.encode(), wanted.encode())
    salt, _, hashed = rest.partition(":")
    try:
        return hmac.compare_digest(_hashed(password, bytes.fromhex(salt)), bytes.fromhex(hashed))
    except ValueError:
        return False


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL)
