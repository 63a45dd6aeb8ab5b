"""What the clients without await have in common: each has a client of asyncio, on the process's background loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from millstream.core.client.blocking.loop_thread import background_loop
from millstream.core.client.unclosed import warn_unclosed
from millstream.core.client.unpicklable import Unpicklable
from millstream.core.config.client_config import ClientConfig


class Owned(Protocol):
    """A client of asyncio."""

    config: ClientConfig
    warns_unclosed: bool

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        ...

    def close(self) -> Coroutine[Any, Any, None]:
        """End it."""
        ...


class BlockingClient(Unpicklable):
    """The base of Producer, Consumer and Admin without await."""

    def __init__(self, owned: Owned) -> None:
        owned.warns_unclosed = False
        self._owned = owned
        self._thread = background_loop()

    def __del__(self) -> None:
        # One whose configuration was refused has no thread; one in a forked child is the parent's to close.
        thread = getattr(self, "_thread", None)
        if thread is not None and thread.is_ours and self._owned.is_open:
            # A group waits for its member, and records given to a producer are sent all the same.
            thread.run_soon(self._owned.close)
            warn_unclosed(self)

    @property
    def config(self) -> ClientConfig:
        """What it was given, and the defaults of the rest."""
        return self._owned.config

    @property
    def is_open(self) -> bool:
        """Whether it has been used and not closed."""
        return self._owned.is_open

    def __repr__(self) -> str:
        return repr(self._owned)
