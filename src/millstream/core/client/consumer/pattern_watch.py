"""A pattern of Python's `re` that a subscription follows: topics that match are subscribed to as they come.

RE2 patterns are the membership's, or the broker's (KIP-848); they know nothing of Python's syntax.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping

from millstream.core.client.cluster import TopicInfo
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.unforeseen import unforeseen
from millstream.core.wire import KafkaError

_log = logging.getLogger(__name__)


class PatternWatch:
    """Lists the topics each metadata.max.age.ms and says which match, when that has changed."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        pattern: re.Pattern[str],
        list_topics: Callable[[], Awaitable[Mapping[str, TopicInfo]]],
        subscribe: Callable[[Iterable[str]], None],
        failed: Callable[[KafkaError], None],
    ) -> None:
        """Follow `pattern`, in place of an earlier one; `failed` is told of errors that do not mend by themselves."""
        self.stop()
        self._task = asyncio.create_task(self._watch(pattern, list_topics, subscribe, failed))

    def stop(self) -> None:
        """Follow none."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(
        self,
        pattern: re.Pattern[str],
        list_topics: Callable[[], Awaitable[Mapping[str, TopicInfo]]],
        subscribe: Callable[[Iterable[str]], None],
        failed: Callable[[KafkaError], None],
    ) -> None:
        matching: list[str] | None = None
        while True:
            try:
                topics = await list_topics()
                found = sorted(
                    name
                    for name, topic in topics.items()
                    if pattern.fullmatch(name) and not (topic.is_internal and self._settings.exclude_internal_topics)
                )
                if found != matching:
                    subscribe(found)
                    matching = found
            except Exception as raised:  # noqa: BLE001  whatever it is, polls say it
                error = unforeseen("listing the topics that match the subscription", raised)
                _log.warning("topics could not be listed: %s", error)
                if not error.code.retriable:
                    failed(error)
            await asyncio.sleep(self._settings.metadata_age_ms_max / 1000)
