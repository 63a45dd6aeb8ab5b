"""Saying that a client was dropped without `close`, as Python's files and sockets do: by a ResourceWarning."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

from millstream.core.client.unpicklable import Unpicklable


class WarnsUnclosed(Unpicklable, ABC):
    """The base of clients that have something to close."""

    # A client inside another one leaves it to that one.
    warns_unclosed = True

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is something to close; asked also of one whose `__init__` raised."""

    def __del__(self) -> None:
        if self.warns_unclosed and self.is_open:
            warn_unclosed(self)


def warn_unclosed(client: object) -> None:
    """Warn of a client that nothing refers to any more."""
    warnings.warn(f"unclosed {client!r}: use `with`, or close it", ResourceWarning, stacklevel=3, source=client)
