"""Errors as sentences, for the commands and for the light path alike."""

from __future__ import annotations


class CommandError(Exception):
    """What the user has to hear, in one sentence; the command ends with exit code 1."""


def os_sentence(error: OSError) -> str:
    """Return what the operating system said and of which file, without the number before it."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason.lower()}" if error.filename is not None else reason
