"""EndTxn (key 26): commit or abort a transaction.

Versions  0 (KIP-98)   2 PRODUCER_FENCED (KIP-588)   3 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import int16, int32, int64, message


@message(key=26, versions="0-3", flexible="3+")
class EndTxnRequest:
    transactional_id: str = ""
    producer_id: int64 = 0
    producer_epoch: int16 = 0
    committed: bool = False


@message(key=26, versions="0-3", flexible="3+")
class EndTxnResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
