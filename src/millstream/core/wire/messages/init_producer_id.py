"""InitProducerId (key 22): get a producer id and epoch, fencing earlier producers of the transactional id.

Versions  0 (KIP-98)   2 flexible (KIP-482)   3 epoch bumped by its holder (KIP-360)   4 PRODUCER_FENCED (KIP-588)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message


@message(key=22, versions="0-4", flexible="2+")
class InitProducerIdRequest:
    transactional_id: str | None = ""
    transaction_timeout_ms: int32 = 0
    # Those held so far, to have the epoch bumped; -1 for none.
    producer_id: int64 = field(versions="3+", default=-1)
    producer_epoch: int16 = field(versions="3+", default=-1)


@message(key=22, versions="0-4", flexible="2+")
class InitProducerIdResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    producer_id: int64 = -1
    producer_epoch: int16 = 0
