"""ListConfigResources (key 74): the resources that can have configs.

Versions  0 client metrics only, as ListClientMetricsResources (KIP-714)   1 any type (KIP-1142)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@message(key=74, versions="0-1", flexible="0+")
class ListConfigResourcesRequest:
    resource_types: list[int8] = field(versions="1+", factory=list)


@struct
class ConfigResource:
    resource_name: str = ""
    resource_type: int8 = field(versions="1+", default=16)


@message(key=74, versions="0-1", flexible="0+")
class ListConfigResourcesResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    config_resources: list[ConfigResource] = field(factory=list)
