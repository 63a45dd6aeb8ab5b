"""A response that a handler has encoded already, or kept from before."""

from __future__ import annotations

from typing import NamedTuple


class Encoded(NamedTuple):
    """The body of a response in the version that was asked for, without its header."""

    body: bytes
