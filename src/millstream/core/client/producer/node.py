"""One broker as the sender sees it: its connection, what is in flight there, and when it may be sent to."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.core.client.producer.effects import SendRequest


@dataclass(slots=True)
class Node:
    """Owned by the sender, as everything in it."""

    # Which connection to it this is, counted up.
    generation: int = 0
    is_ready: bool = False
    is_connecting: bool = False
    # A full socket: nothing more until there is room.
    is_paused: bool = False
    failures: int = 0
    # Not before: after a failed connection, or as the broker asked (KIP-219).
    blocked_until_ms: float = 0.0
    in_flight: list[SendRequest] = field(default_factory=list)
    # Since when something could be sent and is not; 0 while nothing waits (KIP-794).
    waits_since_ms: float = 0.0
