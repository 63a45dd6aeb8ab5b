"""An answer that comes later: what a handler returns when it must wait.

A Delayed is lighter than a future: no loop pass lies between `complete` and its callback, so a fetch that waits in
purgatory leaves in the same pass in which its records were written. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, cast

R = TypeVar("R")

_UNSET: Final = object()


class Delayed(Generic[R]):
    """One answer, completed once.

    States: WAITING -> DONE (complete) | FAILED (fail) | CANCELLED (cancel: the connection has gone).
    A cancelled one ignores what comes later, so whoever works for it need not know. An ended one refers to nobody: a
    cycle through its callbacks would keep the answer's megabytes until the next run of the cyclic collector.
    """

    __slots__ = ("_cancelled", "_error", "_on_cancel", "_on_complete", "_result")

    def __init__(self) -> None:
        self._result: object = _UNSET
        self._error: BaseException | None = None
        self._cancelled = False
        self._on_complete: Callable[[Delayed[R]], None] | None = None
        self._on_cancel: Callable[[], None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is an answer or an error to take."""
        return self._result is not _UNSET or self._error is not None

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled

    def result(self) -> R:
        """Return the answer; raises what `fail` was given."""
        if self._error is not None:
            raise self._error
        assert self._result is not _UNSET, "the answer is not there yet"
        return cast("R", self._result)

    def complete(self, response: R) -> None:
        """Give the answer; the one who waits is called at once."""
        if self._cancelled:
            return
        assert self._result is _UNSET, f"completed twice: {self._result!r}, then {response!r}"
        assert self._error is None, f"completed after its end: {self._error!r}"
        self._result = response
        self._end()

    def fail(self, error: BaseException) -> None:
        """End in an error; the one who waits is called at once."""
        if self._cancelled:
            return
        assert not self.is_done, f"failed after its end: {error!r}"
        self._error = error
        self._end()

    def on_complete(self, callback: Callable[[Delayed[R]], None]) -> None:
        """Call `callback` with this object once it is done; at once where it is."""
        assert self._on_complete is None, "one waits for an answer, not several"
        if self.is_done:
            callback(self)
        else:
            self._on_complete = callback

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when nobody wants the answer any more, so that a waiter leaves nothing behind."""
        if not self.is_done:
            self._on_cancel = callback

    def cancel(self) -> None:
        """Nobody wants the answer any more: the connection has gone."""
        if self._cancelled or self.is_done:
            return
        self._cancelled = True
        self._on_complete = None
        on_cancel, self._on_cancel = self._on_cancel, None
        if on_cancel is not None:
            on_cancel()

    def _end(self) -> None:
        on_complete, self._on_complete = self._on_complete, None
        self._on_cancel = None
        if on_complete is not None:
            on_complete(self)

    @classmethod
    def from_coroutine(cls, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R]) -> Delayed[R]:
        """Run a coroutine as a task, for handlers that await: metadata commits, work on threads.

        A cancelled answer does not cancel the task: what a client asked for is carried through when it hangs up.
        """
        delayed = cls()
        task = loop.create_task(coroutine)

        def finished(task: asyncio.Task[R]) -> None:
            if task.cancelled():
                delayed.fail(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                delayed.fail(error)
            else:
                delayed.complete(task.result())

        task.add_done_callback(finished)
        return delayed
