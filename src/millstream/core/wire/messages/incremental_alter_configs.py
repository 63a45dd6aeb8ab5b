"""IncrementalAlterConfigs (key 44): set, delete, append to or subtract from single configs.

Versions  0 (KIP-339)   1 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class AlterableConfig:
    name: str = ""
    # 0 set, 1 delete, 2 append, 3 subtract.
    config_operation: int8 = 0
    value: str | None = ""


@struct
class AlterConfigsResource:
    resource_type: int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = field(factory=list)


@message(key=44, versions="0-1", flexible="1+")
class IncrementalAlterConfigsRequest:
    resources: list[AlterConfigsResource] = field(factory=list)
    validate_only: bool = False


@struct
class AlterConfigsResourceResponse:
    error_code: int16 = 0
    error_message: str | None = ""
    resource_type: int8 = 0
    resource_name: str = ""


@message(key=44, versions="0-1", flexible="1+")
class IncrementalAlterConfigsResponse:
    throttle_time_ms: int32 = 0
    responses: list[AlterConfigsResourceResponse] = field(factory=list)
