"""What is not about schemas: the root, who this is, whether it is well, and what it counts."""

from __future__ import annotations

import time
from typing import Any, Final

import millstream
from millstream.core.metrics import CONTENT_TYPE, render
from millstream.schemas.server.api import Answer, ApiRequest, Endpoint
from millstream.schemas.server.records import to_json
from millstream.schemas.server.registry import Registry


async def root(_registry: Registry, _request: ApiRequest) -> Any:
    """Nothing, as a sign of life."""
    return {}


async def cluster_id(registry: Registry, _request: ApiRequest) -> Any:
    """Which Kafka cluster and which group of registries this is."""
    group = registry.config.string("schema.registry.group.id")
    return {
        "id": "",
        "scope": {
            "path": [],
            "clusters": {
                "kafka-cluster": registry.store.cluster_id,
                "schema-registry-cluster": group,
            },
        },
    }


async def server_version(_registry: Registry, _request: ApiRequest) -> Any:
    """Which version of the server this is."""
    return {"version": millstream.__version__, "commitId": ""}


async def deployment(_registry: Registry, _request: ApiRequest) -> Any:
    """What is special about this deployment: nothing."""
    return {"attributes": []}


async def health(registry: Registry, _request: ApiRequest) -> Any:
    """Whether the topic is being read, and who leads."""
    election = registry.election
    leader = election.leader if election is not None else None
    report = {
        "status": "ok" if registry.is_healthy else "failing",
        "reason": registry.store.failure,
        "offset": registry.store.position,
        "leader": None if leader is None else leader.url,
        "is_leader": registry.is_leading,
    }
    return Answer(to_json(report), 200 if registry.is_healthy else 503)


async def metrics(registry: Registry, _request: ApiRequest) -> Any:
    """What is counted, as Prometheus reads it."""
    return Answer(render(registry.metrics, time.time_ns() // 1_000_000).encode(), content_type=CONTENT_TYPE)


ENDPOINTS: Final = (
    Endpoint("GET", "/", root, "Say that a registry is here", answer="Object"),
    Endpoint("POST", "/", root, "Say that a registry is here", answer="Object"),
    Endpoint("GET", "/v1/metadata/id", cluster_id, "Get the ids of the clusters", answer="Object", cached=False),
    Endpoint("GET", "/v1/metadata/version", server_version, "Get the version of the server", answer="Object"),
    Endpoint("GET", "/v1/metadata/deployment", deployment, "Get what is special about it", answer="Object"),
    Endpoint("GET", "/healthz", health, "Say whether the registry is well", answer="Object", cached=False),
    Endpoint("GET", "/metrics", metrics, "Get what is counted, as Prometheus reads it", cached=False),
)
