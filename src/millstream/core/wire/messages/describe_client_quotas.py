"""DescribeClientQuotas (key 48): the limits that users, client ids and addresses have (KIP-546).

Versions  0 all of it   1 flexible
"""

from __future__ import annotations

from millstream.core.wire.fields import field, float64, int8, int16, int32, message, struct


@struct
class ComponentData:
    entity_type: str = ""
    # 0 this name, 1 the default entity, 2 any name.
    match_type: int8 = 0
    match: str | None = ""


@message(key=48, versions="0-1", flexible="1+")
class DescribeClientQuotasRequest:
    components: list[ComponentData] = field(factory=list)
    # Whether entities with other parts than the named ones are left out.
    strict: bool = False


@struct
class EntityData:
    entity_type: str = ""
    # Null for the default entity.
    entity_name: str | None = ""


@struct
class ValueData:
    key: str = ""
    value: float64 = 0.0


@struct
class EntryData:
    entity: list[EntityData] = field(factory=list)
    values: list[ValueData] = field(factory=list)


@message(key=48, versions="0-1", flexible="1+")
class DescribeClientQuotasResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""
    entries: list[EntryData] | None = field(factory=list)
