"""What belongs to the process that made it: a client has connections, threads and a loop there."""

from __future__ import annotations

from typing import NoReturn


class Unpicklable:
    """The base of clients: one that is pickled by mistake, as part of a closure, says what to do instead."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: make one in the process that uses it")
