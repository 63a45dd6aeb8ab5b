"""Senders that wait, for room or for the metadata of a topic, on any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable


class Waiter:
    """One waiting sender; `wake` may be called from any thread, any number of times."""

    __slots__ = ("lacking_bytes", "topic", "wake")

    def __init__(self, topic: str, lacking_bytes: int, wake: Callable[[], object]) -> None:
        self.topic = topic
        # The room it waits for; 0 where it waits for metadata.
        self.lacking_bytes = lacking_bytes
        self.wake = wake


class Waiters:
    """Those who wait, in the order they came. Waking is the loop's; they come, and give up, on any thread meanwhile."""

    def __init__(self) -> None:
        self._for_room: deque[Waiter] = deque()
        self._for_topics: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._for_room) + len(self._for_topics)

    @property
    def is_room_wanted(self) -> bool:
        return bool(self._for_room)

    def add(self, waiter: Waiter) -> None:
        """Have a waiter woken once; it adds itself again if that was too early."""
        (self._for_room if waiter.lacking_bytes else self._for_topics).append(waiter)

    def discard(self, waiter: Waiter) -> None:
        """Forget one that waits no more."""
        for waiting in (self._for_room, self._for_topics):
            with contextlib.suppress(ValueError):
                waiting.remove(waiter)

    def wake_for_room(self, available_bytes: int) -> None:
        """Wake those, oldest first, whom so many bytes are enough for."""
        while (waiter := _oldest(self._for_room)) is not None and waiter.lacking_bytes <= available_bytes:
            self.discard(waiter)
            available_bytes -= waiter.lacking_bytes
            waiter.wake()

    def wake_for_metadata(self) -> None:
        """Wake all that wait for a topic: there is news."""
        for _ in range(len(self._for_topics)):
            if (waiter := _oldest(self._for_topics)) is not None:
                self.discard(waiter)
                waiter.wake()

    def wake_all(self) -> None:
        """Wake everybody: the producer closes."""
        self.wake_for_metadata()
        while (waiter := _oldest(self._for_room)) is not None:
            self.discard(waiter)
            waiter.wake()


def _oldest(waiting: deque[Waiter]) -> Waiter | None:
    """Return the first; None where there is none, or the last one has just given up."""
    try:
        return waiting[0]
    except IndexError:
        return None


def event_waiter(topic: str, lacking_bytes: int) -> tuple[Waiter, threading.Event]:
    """Return a waiter that sets an event."""
    event = threading.Event()
    return Waiter(topic, lacking_bytes, event.set), event


def future_waiter(topic: str, lacking_bytes: int) -> tuple[Waiter, asyncio.Future[None]]:
    """Return a waiter that finishes a future of the running loop, which is the producer's."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    return Waiter(topic, lacking_bytes, wake), future
