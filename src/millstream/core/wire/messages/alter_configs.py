"""AlterConfigs (key 33): replace all configs of a resource; IncrementalAlterConfigs changes single ones.

Versions  0 (KIP-133)   2 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class AlterableConfig:
    name: str = ""
    # Null to go back to the default.
    value: str | None = ""


@struct
class AlterConfigsResource:
    resource_type: int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = field(factory=list)


@message(key=33, versions="0-2", flexible="2+")
class AlterConfigsRequest:
    resources: list[AlterConfigsResource] = field(factory=list)
    validate_only: bool = False


@struct
class AlterConfigsResourceResponse:
    error_code: int16 = 0
    error_message: str | None = ""
    resource_type: int8 = 0
    resource_name: str = ""


@message(key=33, versions="0-2", flexible="2+")
class AlterConfigsResponse:
    throttle_time_ms: int32 = 0
    responses: list[AlterConfigsResourceResponse] = field(factory=list)
