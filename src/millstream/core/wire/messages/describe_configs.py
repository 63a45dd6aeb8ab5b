"""DescribeConfigs (key 32): configs of topics and brokers with their values, sources and synonyms.

Versions  1 synonyms and sources (KIP-226)   3 types and documentation (KIP-569)   4 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class DescribeConfigsResource:
    resource_type: int8 = 0
    resource_name: str = ""
    # Null for all of them.
    configuration_keys: list[str] | None = field(factory=list)


@message(key=32, versions="1-4", flexible="4+")
class DescribeConfigsRequest:
    resources: list[DescribeConfigsResource] = field(factory=list)
    include_synonyms: bool = False
    include_documentation: bool = field(versions="3+", default=False)


@struct
class DescribeConfigsSynonym:
    name: str = ""
    value: str | None = ""
    source: int8 = 0


@struct
class DescribeConfigsResourceResult:
    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: int8 = -1
    is_sensitive: bool = False
    synonyms: list[DescribeConfigsSynonym] = field(factory=list)
    config_type: int8 = field(versions="3+", default=0)
    documentation: str | None = field(versions="3+", default="")


@struct
class DescribeConfigsResult:
    error_code: int16 = 0
    error_message: str | None = ""
    resource_type: int8 = 0
    resource_name: str = ""
    configs: list[DescribeConfigsResourceResult] = field(factory=list)


@message(key=32, versions="1-4", flexible="4+")
class DescribeConfigsResponse:
    throttle_time_ms: int32 = 0
    results: list[DescribeConfigsResult] = field(factory=list)
