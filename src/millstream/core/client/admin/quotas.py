"""Limits of users, client ids and addresses (KIP-546)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from millstream.core.client.admin.results import check, error_of
from millstream.core.client.client import Client
from millstream.core.wire import KafkaError
from millstream.core.wire.messages import alter_client_quotas as alter_wire
from millstream.core.wire.messages.describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)


class Match(Enum):
    """Which names of a kind are meant, where it is not one of them."""

    DEFAULT = "default"  # the limit of those that have none of their own
    ANY = "any"


DEFAULT: Final = Match.DEFAULT
ANY: Final = Match.ANY

# Numbers of DescribeClientQuotas.
_EXACT: Final = 0
_MATCH_TYPES: Final = {Match.DEFAULT: 1, Match.ANY: 2}


class QuotaEntity(NamedTuple):
    """Whom a limit holds for; a part is None where it does not matter, DEFAULT for whoever has no limit of his own.

    QuotaEntity(user="alice"), QuotaEntity(user="alice", client_id=DEFAULT), QuotaEntity(ip="10.0.0.7")
    """

    user: str | Match | None = None
    client_id: str | Match | None = None
    ip: str | Match | None = None

    def parts(self) -> dict[str, str | Match]:
        """Return what matters by Kafka's names."""
        named = {"user": self.user, "client-id": self.client_id, "ip": self.ip}
        return {kind: name for kind, name in named.items() if name is not None}

    def __str__(self) -> str:
        return ", ".join(
            f"{kind} {name}" if isinstance(name, str) else f"{name.value} {kind}" for kind, name in self.parts().items()
        )


async def describe_client_quotas(
    client: Client, entity: QuotaEntity, *, strict: bool, timeout_ms: int
) -> dict[QuotaEntity, dict[str, float]]:
    """Return the limits of those that match `entity`, by Kafka's names as producer_byte_rate."""
    components = [
        ComponentData(entity_type=kind, match_type=_EXACT, match=name)
        if isinstance(name, str)
        else ComponentData(entity_type=kind, match_type=_MATCH_TYPES[name], match=None)
        for kind, name in entity.parts().items()
    ]
    response: DescribeClientQuotasResponse = await client.request(
        DescribeClientQuotasRequest(components=components, strict=strict), timeout_ms=timeout_ms
    )
    check(response.error_code, response.error_message, "quotas were not described")
    return {
        _entity({part.entity_type: part.entity_name for part in entry.entity}): {
            value.key: value.value for value in entry.values
        }
        for entry in response.entries or ()
    }


async def alter_client_quotas(
    client: Client,
    changes: Mapping[QuotaEntity, Mapping[str, float | None]],
    *,
    validate_only: bool,
    timeout_ms: int,
) -> dict[QuotaEntity, KafkaError | None]:
    """Set limits, or (None) take them away; return per entity None or why not."""
    request = alter_wire.AlterClientQuotasRequest(
        entries=[
            alter_wire.EntryData(
                entity=[
                    alter_wire.EntityData(entity_type=kind, entity_name=name if isinstance(name, str) else None)
                    for kind, name in entity.parts().items()
                ],
                ops=[
                    alter_wire.OpData(key=key, value=value or 0.0, remove=value is None)
                    for key, value in limits.items()
                ],
            )
            for entity, limits in changes.items()
        ],
        validate_only=validate_only,
    )
    response: alter_wire.AlterClientQuotasResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    results: dict[QuotaEntity, KafkaError | None] = {}
    for entry in response.entries:
        entity = _entity({part.entity_type: part.entity_name for part in entry.entity})
        results[entity] = error_of(entry.error_code, entry.error_message, f"quotas of {entity} were not altered")
    return results


def _entity(parts: Mapping[str, str | None]) -> QuotaEntity:
    def part(kind: str) -> str | Match | None:
        return (parts[kind] or Match.DEFAULT) if kind in parts else None

    return QuotaEntity(part("user"), part("client-id"), part("ip"))
