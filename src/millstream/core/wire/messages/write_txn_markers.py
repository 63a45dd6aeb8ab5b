"""WriteTxnMarkers (key 27): a transaction coordinator has leaders write the end of a transaction into their logs.

Versions  1 flexible (KIP-98, KIP-482)

Sent by brokers only.
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class WritableTxnMarkerTopic:
    name: str = ""
    partition_indexes: list[int32] = field(factory=list)


@struct
class WritableTxnMarker:
    producer_id: int64 = 0
    producer_epoch: int16 = 0
    transaction_result: bool = False
    topics: list[WritableTxnMarkerTopic] = field(factory=list)
    coordinator_epoch: int32 = 0


@message(key=27, versions="1", flexible="0+")
class WriteTxnMarkersRequest:
    markers: list[WritableTxnMarker] = field(factory=list)


@struct
class WritableTxnMarkerPartitionResult:
    partition_index: int32 = 0
    error_code: int16 = 0


@struct
class WritableTxnMarkerTopicResult:
    name: str = ""
    partitions: list[WritableTxnMarkerPartitionResult] = field(factory=list)


@struct
class WritableTxnMarkerResult:
    producer_id: int64 = 0
    topics: list[WritableTxnMarkerTopicResult] = field(factory=list)


@message(key=27, versions="1", flexible="0+")
class WriteTxnMarkersResponse:
    markers: list[WritableTxnMarkerResult] = field(factory=list)
