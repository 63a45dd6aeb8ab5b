"""CreateTopics (key 19): create topics, or check whether they could be.

Versions  2 throttle time (KIP-124)   4 the broker's defaults for partitions and replication factor (KIP-464)
          5 flexible (KIP-482), the configs a topic got (KIP-525)   6 THROTTLING_QUOTA_EXCEEDED (KIP-599)
          7 topic ids (KIP-516)
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int8, int16, int32, message, struct, uuid


@struct
class CreatableReplicaAssignment:
    partition_index: int32 = 0
    broker_ids: list[int32] = field(factory=list)


@struct
class CreatableTopicConfig:
    name: str = ""
    value: str | None = ""


@struct
class CreatableTopic:
    name: str = ""
    # -1 for the broker's default, or where assignments say it.
    num_partitions: int32 = 0
    # -1 for the broker's default, or where assignments say it.
    replication_factor: int16 = 0
    assignments: list[CreatableReplicaAssignment] = field(factory=list)
    configs: list[CreatableTopicConfig] = field(factory=list)


@message(key=19, versions="2-7", flexible="5+")
class CreateTopicsRequest:
    topics: list[CreatableTopic] = field(factory=list)
    timeout_ms: int32 = 60000
    validate_only: bool = False


@struct
class CreatableTopicConfigs:
    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: int8 = -1
    is_sensitive: bool = False


@struct
class CreatableTopicResult:
    name: str = ""
    topic_id: uuid = field(versions="7+", default=ZERO_UUID)
    error_code: int16 = 0
    error_message: str | None = ""
    topic_config_error_code: int16 = field(versions="5+", tag=0, default=0)
    num_partitions: int32 = field(versions="5+", default=-1)
    replication_factor: int16 = field(versions="5+", default=-1)
    configs: list[CreatableTopicConfigs] | None = field(versions="5+", factory=list)


@message(key=19, versions="2-7", flexible="5+")
class CreateTopicsResponse:
    throttle_time_ms: int32 = 0
    topics: list[CreatableTopicResult] = field(factory=list)
