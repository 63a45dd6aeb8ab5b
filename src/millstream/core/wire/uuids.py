"""Kafka's ids of 16 bytes (topic, directory, cluster) and their text: URL-safe base64 without padding (KIP-516)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import Final

SIZE: Final = 16
TEXT_SIZE: Final = 22


def uuid_text(value: bytes) -> str:
    """The text of an id, as Kafka prints it."""
    assert len(value) == SIZE, f"{value!r} has {len(value)} bytes"
    return urlsafe_b64encode(value)[:TEXT_SIZE].decode("ascii")


def uuid_from_text(text: str) -> bytes:
    """The id that a text stands for; ValueError for any other text."""
    try:
        value = urlsafe_b64decode(text.encode("ascii") + b"==")
    except (Error, UnicodeEncodeError) as error:
        raise ValueError(f"{text!r} is no id: {error}") from error
    if len(value) != SIZE or uuid_text(value) != text:
        raise ValueError(f"{text!r} is no id of {SIZE} bytes in URL-safe base64 without padding")
    return value
