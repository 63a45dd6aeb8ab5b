"""Where the coordinator of one group is, and asking it.

It is looked up by FindCoordinator when it is needed and not known, by one lookup for all that wait, and stays known
until somebody finds that it is not there, or not the coordinator any more (`forget`).

JoinGroup and SyncGroup wait at the broker, which serves a connection's requests one after the other. So they have a
connection of their own (ROUNDS), and commits and goodbyes another one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from millstream.core.client.client import Client
from millstream.core.wire import ApiKey, ErrorCode, KafkaError, WireError, error_code
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse

ROUNDS: Final = "group"
_SEVERAL_KEYS_VERSION: Final = 4  # of FindCoordinator
_UNKNOWN: Final = -1


class GroupCoordinator:
    """One group's coordinator; owned by the loop."""

    def __init__(self, client: Client, group_id: str) -> None:
        self._client = client
        self.group_id = group_id
        self._node = _UNKNOWN
        self._looking: asyncio.Task[int] | None = None

    @property
    def node(self) -> int | None:
        """The broker that it is, as far as is known."""
        return None if self._node == _UNKNOWN else self._node

    def forget(self) -> None:
        """It is not there, or not the coordinator: the next request looks it up."""
        self._node = _UNKNOWN

    async def version(self, key: ApiKey, *, timeout_s: float) -> int:
        """Return the version in which the coordinator is asked. Raises KafkaError."""
        version: int = (await self._connection("", timeout_s)).version(key)
        return version

    async def request(self, message: Any, *, timeout_s: float, lane: str = "") -> Any:
        """Ask the coordinator once. Raises KafkaError: what answers say of the coordinator is the caller's to see."""
        connection = await self._connection(lane, timeout_s)
        try:
            return await connection.request(message, timeout_s=timeout_s)
        except WireError as error:
            raise KafkaError(
                ErrorCode.UNKNOWN_SERVER_ERROR, f"the coordinator's answer can't be read: {error}"
            ) from error

    async def _connection(self, lane: str, timeout_s: float) -> Any:
        if self._node == _UNKNOWN:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_up(), name=f"coordinator of {self.group_id}")
                self._looking.add_done_callback(self._found)
            try:
                self._node = await asyncio.wait_for(asyncio.shield(self._looking), timeout_s)
            except TimeoutError as error:
                raise KafkaError(
                    ErrorCode.COORDINATOR_NOT_AVAILABLE, f"no coordinator of group {self.group_id!r} in {timeout_s:g} s"
                ) from error
        return await self._client.connection(self._node, lane=lane)

    def _found(self, task: asyncio.Task[int]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # those that wait have it

    async def _look_up(self) -> int:
        """Ask until there is one; raises KafkaError for what asking again does not mend, or not for long."""

        async def look() -> int:
            connection = await self._client.connection()
            request = FindCoordinatorRequest(key=self.group_id, coordinator_keys=[self.group_id])
            response: FindCoordinatorResponse = await connection.request(
                request, timeout_s=self._client.request_timeout_ms / 1000
            )
            one: Any = response
            if connection.version(ApiKey.FIND_COORDINATOR) >= _SEVERAL_KEYS_VERSION:
                (one,) = response.coordinators
            if one.error_code:
                code = error_code(one.error_code)
                message = (one.error_message or code.sentence).rstrip(".")
                raise KafkaError(code, f"coordinator of group {self.group_id!r}: {message}")
            node = int(one.node_id)
            if node not in self._client.cluster.brokers:
                brokers = (await self._client.metadata([])).brokers
                if node not in brokers:
                    raise KafkaError(
                        ErrorCode.COORDINATOR_NOT_AVAILABLE, f"the cluster has no broker {node}, the coordinator"
                    )
            return node

        return await self._client.retried(look)

    async def close(self) -> None:
        """Give up a lookup under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
