"""A model cluster behind sockets: what no real broker does on demand, done to a real consumer.

async with ModelBrokers(cluster) as brokers:
    Consumer(brokers.bootstrap_servers, ...)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from tests.support.model_cluster import ModelCluster

from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import (
    APIS,
    ApiKey,
    ErrorCode,
    decode,
    encode,
    encode_response_header,
    parse_request_header,
)
from millstream.core.wire.messages.api_versions import ApiVersion, ApiVersionsResponse
from millstream.core.wire.messages.fetch import FetchRequest, FetchResponse
from millstream.core.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

# Topics go by name.
VERSIONS = {
    ApiKey.API_VERSIONS: (0, 3),
    ApiKey.METADATA: (1, 9),
    ApiKey.FETCH: (4, 12),
    ApiKey.LIST_OFFSETS: (1, 7),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
}


class ModelBrokers:
    """One listener for each node. A fetch that brings nothing waits, as a broker's does, and tells `on_fetch`."""

    def __init__(self, cluster: ModelCluster) -> None:
        self.cluster = cluster
        # May change what a Fetch is answered with.
        self.on_fetch: Callable[[int, FetchRequest, FetchResponse], FetchResponse] | None = None
        self.requests: list[tuple[int, Any]] = []
        # How long a Fetch that brings nothing waits.
        self.wait_s = 0.01
        self._servers: dict[int, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for node in self.cluster.nodes:
            self._servers[node] = await asyncio.start_server(self._accept(node), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port(0)}"

    def _port(self, node: int) -> int:
        port: int = self._servers[node].sockets[0].getsockname()[1]
        return port

    def _accept(self, node: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(node, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accept

    async def _serve(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                body = memoryview(await reader.readexactly(size))
                header, position = parse_request_header(body)
                key = ApiKey(header.api_key)
                version = min(header.api_version, VERSIONS[key][1])
                request = decode(APIS[key].request, version, body, position)[0]
                self.requests.append((node, request))
                answer = encode(await self._answer(node, key, request), version)
                head = encode_response_header(key, version, header.correlation_id)
                writer.write((len(head) + len(answer)).to_bytes(4, "big") + head + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, node: int, key: ApiKey, request: Any) -> Any:
        cluster = self.cluster
        if key is ApiKey.API_VERSIONS:
            return ApiVersionsResponse(
                api_keys=[
                    ApiVersion(api_key=one, min_version=low, max_version=high) for one, (low, high) in VERSIONS.items()
                ]
            )
        if key is ApiKey.METADATA:
            return self._metadata(request)
        if key is ApiKey.LIST_OFFSETS:
            return cluster.list_offsets(node, request)
        if key is ApiKey.OFFSET_FOR_LEADER_EPOCH:
            return cluster.epoch_ends(node, request)
        response = cluster.fetch(node, request)
        if self.on_fetch is not None:
            response = self.on_fetch(node, request, response)
        if not response.error_code and not any(
            one.records or one.error_code for topic in response.responses for one in topic.partitions
        ):
            await asyncio.sleep(self.wait_s)
        return response

    def _metadata(self, request: Any) -> MetadataResponse:
        known = self.cluster.metadata()
        names = sorted(known.topics) if request.topics is None else [topic.name for topic in request.topics]
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=node, host="127.0.0.1", port=self._port(node))
                for node in self.cluster.nodes
            ],
            controller_id=0,
            topics=[
                MetadataResponseTopic(
                    name=name,
                    error_code=ErrorCode.NONE if name in known.topics else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    partitions=[
                        MetadataResponsePartition(
                            partition_index=tp.partition,
                            leader_id=log.leader,
                            leader_epoch=log.epoch,
                            replica_nodes=list(self.cluster.nodes),
                            isr_nodes=list(self.cluster.nodes),
                        )
                        for tp, log in self.cluster.logs.items()
                        if name in known.topics
                    ],
                )
                for name in names
            ],
        )


def log_of(cluster: ModelCluster, partition: int = 0) -> Any:
    """The log of a partition of the only topic."""
    return cluster.logs[TopicPartition("t", partition)]
