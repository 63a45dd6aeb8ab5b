"""AlterClientQuotas (key 49): set and remove the limits of users, client ids and addresses (KIP-546).

Versions  0 all of it   1 flexible
"""

from __future__ import annotations

from millstream.core.wire.fields import field, float64, int16, int32, message, struct


@struct
class EntityData:
    entity_type: str = ""
    # Null for the default entity.
    entity_name: str | None = ""


@struct
class OpData:
    key: str = ""
    value: float64 = 0.0
    remove: bool = False


@struct
class EntryData:
    entity: list[EntityData] = field(factory=list)
    ops: list[OpData] = field(factory=list)


@message(key=49, versions="0-1", flexible="1+")
class AlterClientQuotasRequest:
    entries: list[EntryData] = field(factory=list)
    validate_only: bool = False


@struct
class EntityDataResponse:
    entity_type: str = ""
    entity_name: str | None = ""


@struct
class EntryDataResponse:
    error_code: int16 = 0
    error_message: str | None = ""
    entity: list[EntityDataResponse] = field(factory=list)


@message(key=49, versions="0-1", flexible="1+")
class AlterClientQuotasResponse:
    throttle_time_ms: int32 = 0
    entries: list[EntryDataResponse] = field(factory=list)
