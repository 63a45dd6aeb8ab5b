"""Which brokers a client goes to when those it knows are gone or silent, and what becomes of idle connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.calm_brokers import calm, calm_brokers
from tests.support.model_broker import ModelBrokers

from millstream.core.client import Client
from millstream.core.wire import ApiKey, KafkaError
from millstream.core.wire.messages.metadata import MetadataResponse

DEADLINE_S = 60.0


class Misleading(ModelBrokers):
    """Brokers whose metadata names another's port as their own."""

    port = 0

    def _metadata(self, request: Any) -> MetadataResponse:
        answer = super()._metadata(request)
        del answer.brokers[1:]
        answer.brokers[0].port = self.port
        return answer


class Silent(ModelBrokers):
    """Brokers that take connections and say what versions they have, and then nothing."""

    async def _answer(self, node: int, key: ApiKey, request: Any) -> Any:
        if key is not ApiKey.API_VERSIONS:
            await asyncio.Event().wait()
        return await super()._answer(node, key, request)


@asynccontextmanager
async def led_astray(**configs: Any) -> AsyncIterator[tuple[Client, Misleading]]:
    """A client that was told of one broker, which is silent."""
    async with calm(Misleading) as bootstrap, calm(Silent) as silent:
        bootstrap.port = int(silent.bootstrap_servers.rpartition(":")[2])
        async with Client(bootstrap.bootstrap_servers, request_timeout_ms=200, **configs) as client:
            await client.metadata([])
            yield client, bootstrap


async def test_silence_leads_back_to_the_bootstrap_servers() -> None:
    """KIP-1102: brokers that are there and say nothing of use are not asked for ever."""
    async with led_astray(metadata_recovery_rebootstrap_trigger_ms=500) as (client, bootstrap):
        asked = len(bootstrap.requests)
        cluster = await client.metadata([], timeout_ms=int(DEADLINE_S * 1000))
        assert [broker.address.port for broker in cluster.brokers.values()] == [bootstrap.port]
        assert len(bootstrap.requests) == asked + 1


@pytest.mark.parametrize(
    "configs", [{}, {"metadata_recovery_rebootstrap_trigger_ms": 0, "metadata_recovery_strategy": "none"}]
)
async def test_silence_is_waited_out_before(configs: dict[str, Any]) -> None:
    async with led_astray(**configs) as (client, bootstrap):
        asked = len(bootstrap.requests)
        with pytest.raises(KafkaError, match="did not answer METADATA"):
            await client.metadata([], timeout_ms=1_500)
        assert len(bootstrap.requests) == asked


async def test_an_idle_connection_is_closed_and_the_next_use_opens_another() -> None:
    async with calm_brokers() as brokers, Client(brokers.bootstrap_servers, connections_max_idle_ms=100) as client:
        first = await client.connection()
        async with asyncio.timeout(DEADLINE_S):
            await first.connection.wait_closed()
        assert not first.is_open
        second = await client.connection()
        assert second is not first
        assert second.is_open
