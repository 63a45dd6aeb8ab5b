"""ApiVersions (key 18): which APIs, in which versions, and which features a broker has.

Versions  1 throttle time (KIP-124)   3 flexible (KIP-482), name and version of the client's software (KIP-511),
          features (KIP-584)   4 features may start at level 0 (KAFKA-17011)

The first request of a connection, so the client can't know what the broker speaks: the response header is always
version 0, and a version that is too new is answered by a body of version 0 with UNSUPPORTED_VERSION and this API's
range (KIP-511).
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@message(key=18, versions="0-4", flexible="3+")
class ApiVersionsRequest:
    client_software_name: str = field(versions="3+", default="")
    client_software_version: str = field(versions="3+", default="")


@struct
class ApiVersion:
    api_key: int16 = 0
    min_version: int16 = 0
    max_version: int16 = 0


@struct
class SupportedFeatureKey:
    name: str = ""
    min_version: int16 = 0
    max_version: int16 = 0


@struct
class FinalizedFeatureKey:
    name: str = ""
    max_version_level: int16 = 0
    min_version_level: int16 = 0


@message(key=18, versions="0-4", flexible="3+")
class ApiVersionsResponse:
    error_code: int16 = 0
    api_keys: list[ApiVersion] = field(factory=list)
    throttle_time_ms: int32 = field(versions="1+", default=0)
    supported_features: list[SupportedFeatureKey] = field(versions="3+", tag=0, factory=list)
    # -1 for unknown.
    finalized_features_epoch: int64 = field(versions="3+", tag=1, default=-1)
    finalized_features: list[FinalizedFeatureKey] = field(versions="3+", tag=2, factory=list)
    zk_migration_ready: bool = field(versions="3+", tag=3, default=False)
