"""Finding where a damaged batch ends, when only the broker has seen it and does not say how far it reaches.

A broker refuses a fetch at every offset of the batch, and answers one behind it. So offsets ever further on are asked
for until one is answered; the answer's first batch begins at or before that offset, and between the last refusal and
that beginning the search goes on by halves.
"""

from __future__ import annotations

from typing import Final

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.fetching import VERSION_BY_NAME_MAX
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.offsets import LATEST, list_offsets
from millstream.core.records import HEADER_SIZE, read_header
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic

_READ_COMMITTED: Final = 1


async def find_behind_damage(client: Client, tp: TopicPartition, offset: int, settings: ConsumerSettings) -> int:
    """Return the first offset behind the damaged batch that holds `offset`. Raises KafkaError."""
    end = (await list_offsets(client, {tp: LATEST}, read_committed=settings.read_committed))[tp].offset
    refused, step = offset, 1
    while True:
        probe = min(refused + step, end)
        if probe <= refused:
            return refused + 1
        answered = probe if probe == end else await _probe(client, tp, probe, settings)
        if answered is not None:
            break
        refused, step = probe, step * 2
    # Invariant: `refused` is refused, and `answered` is the start of an intact batch, or the end.
    answered = max(answered, refused + 1)
    while answered - refused > 1:
        middle = (refused + answered) // 2
        found = await _probe(client, tp, middle, settings)
        if found is None:
            refused = middle
        else:
            answered = max(min(found, middle), refused + 1)
    return answered


async def _probe(client: Client, tp: TopicPartition, offset: int, settings: ConsumerSettings) -> int | None:
    """Return the base offset of the batch at `offset`, None where that batch is damaged."""

    async def ask() -> int | None:
        ((node, _),) = (await client.leaders([tp])).items()
        connection = await client.connection(node)
        wanted = FetchPartition(partition=tp.partition, fetch_offset=offset, partition_max_bytes=1)
        response: FetchResponse = await connection.request(
            FetchRequest(
                max_bytes=1,
                isolation_level=_READ_COMMITTED if settings.read_committed else 0,
                topics=[FetchTopic(topic=tp.topic, partitions=[wanted])],
            ),
            timeout_s=settings.request_timeout_ms / 1000,
            version_max=VERSION_BY_NAME_MAX,
        )
        data = response.responses[0].partitions[0]
        code = error_code(data.error_code)
        if code is ErrorCode.CORRUPT_MESSAGE:
            return None
        if code is not ErrorCode.NONE:
            client.forget([tp.topic])
            raise KafkaError(code, f"fetch of {tp} at offset {offset}: {code.sentence}")
        records = memoryview(data.records or b"")
        return min(read_header(records).base_offset, offset) if len(records) >= HEADER_SIZE else offset

    return await client.retried(ask)
