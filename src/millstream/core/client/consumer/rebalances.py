"""Group callbacks, brought from the membership's task into poll.

The membership calls `on_revoked`, `on_assigned` and `on_lost` and waits; the next poll runs what is queued here, so the
application's listener is never run beside its own code. While no poll can come (unsubscribe, close) they run at once.
One is run to its end even when the poll that began it is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.delivery import Delivery
from millstream.core.client.consumer.engine import FetchEngine
from millstream.core.client.consumer.listeners import RebalanceListener
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.wire import KafkaError

_log = logging.getLogger(__name__)

_Work = tuple[Callable[[list[TopicPartition]], Awaitable[None]], list[TopicPartition], "asyncio.Future[None]"]


class Rebalances:
    """What the membership calls, as its listener; owned by the loop."""

    def __init__(
        self,
        engine: FetchEngine,
        subscription: SubscriptionState,
        delivery: Delivery,
        *,
        commit_consumed: Callable[[], Awaitable[Any]] | None,
    ) -> None:
        self.listener = RebalanceListener()
        # Set while the application is in unsubscribe or close, so that no poll will come.
        self.runs_at_once = False
        self._engine = engine
        self._subscription = subscription
        self._delivery = delivery
        self._commit_consumed = commit_consumed
        self._waiting: deque[_Work] = deque()
        self._running: asyncio.Task[None] | None = None
        # What the application's listener raised, for the poll that ran it.
        self._errors: list[Exception] = []

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions came."""
        await self._in_poll(self._assigned, partitions)

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions are to be given up; the group waits until this returns."""
        await self._in_poll(self._revoked, partitions)

    async def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions are others' already."""
        await self._in_poll(self._lost, partitions)

    def on_failed(self, error: Exception) -> None:
        """The member cannot go on; polls say why."""
        _log.error("the group member failed: %s", error)
        self._engine.progress.set()

    async def run_waiting(self) -> None:
        """Run the callbacks that wait. Raises what the application's listener raised."""
        while self._running is not None or self._waiting:
            if self._running is None:
                self._running = asyncio.create_task(self._run(self._waiting.popleft()))
            await asyncio.shield(self._running)
        if self._errors:
            raise self._errors.pop(0)

    async def run_at_once(self) -> None:
        """No poll will come: run what waits now, and what comes when it comes. The application's errors are logged."""
        self.runs_at_once = True
        while self._running is not None or self._waiting or self._errors:
            try:
                await self.run_waiting()
            except Exception as error:  # noqa: BLE001  the application's; no poll is there to raise it
                _log.warning("the rebalance listener raised", exc_info=error)

    async def _in_poll(
        self, work: Callable[[list[TopicPartition]], Awaitable[None]], partitions: Collection[TopicPartition]
    ) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, sorted(TopicPartition.of(tp) for tp in partitions), done))
        self._engine.progress.set()
        if self.runs_at_once:
            await self.run_at_once()
        await done

    async def _run(self, work: _Work) -> None:
        callback, partitions, done = work
        try:
            await callback(partitions)
        except Exception as error:  # noqa: BLE001  the application's; its poll raises it
            self._errors.append(error)
        finally:
            self._running = None
            if not done.done():
                done.set_result(None)
            self._engine.wake()

    async def _assigned(self, partitions: list[TopicPartition]) -> None:
        self._subscription.set_assigned([*self._subscription.assigned, *partitions])
        self._hold(partitions, True)
        try:
            await _settled(self.listener.on_assigned(partitions))
        finally:
            self._hold(partitions, False)

    async def _revoked(self, partitions: list[TopicPartition]) -> None:
        self._hold(partitions, True)
        try:
            if self._commit_consumed is not None:
                try:
                    await self._commit_consumed()
                except KafkaError as error:
                    _log.warning("positions were not committed before a rebalance: %s", error)
            await _settled(self.listener.on_revoked(partitions))
        finally:
            self._remove(partitions)

    async def _lost(self, partitions: list[TopicPartition]) -> None:
        self._hold(partitions, True)
        try:
            await _settled(self.listener.on_lost(partitions))
        finally:
            self._remove(partitions)

    def _hold(self, partitions: list[TopicPartition], held: bool) -> None:
        for tp in partitions:
            if (state := self._subscription.find(tp)) is not None:
                state.is_held = held

    def _remove(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._delivery.drop(tp)
        self._subscription.set_assigned(self._subscription.assigned.difference(partitions))


async def _settled(returned: Awaitable[None] | None) -> None:
    if inspect.isawaitable(returned):
        await returned
