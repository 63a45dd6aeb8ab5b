"""DeleteTopics (key 20): delete topics by name or by id.

Versions  1 throttle time (KIP-124)   3 TOPIC_DELETION_DISABLED (KIP-322)   4 flexible (KIP-482)
          5 error messages (KIP-599)   6 topic ids (KIP-516)
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int16, int32, message, struct, uuid


@struct
class DeleteTopicState:
    name: str | None = None
    topic_id: uuid = ZERO_UUID


@message(key=20, versions="1-6", flexible="4+")
class DeleteTopicsRequest:
    topics: list[DeleteTopicState] = field(versions="6+", factory=list)
    # Replaced by `topics` in version 6.
    topic_names: list[str] = field(versions="1-5", factory=list)
    timeout_ms: int32 = 0


@struct
class DeletableTopicResult:
    name: str | None = field(nullable="6+", default="")
    topic_id: uuid = field(versions="6+", default=ZERO_UUID)
    error_code: int16 = 0
    error_message: str | None = field(versions="5+", default=None)


@message(key=20, versions="1-6", flexible="4+")
class DeleteTopicsResponse:
    throttle_time_ms: int32 = 0
    responses: list[DeletableTopicResult] = field(factory=list)
