"""Who asks: what a handler knows of a request besides its message.

Authorization is asked for by every handler from the first day. Until ACLs exist the broker's authorizer is AllowAll;
tests put a DenyAll in its place over every API. Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.connection import Connection

T = TypeVar("T")

ANONYMOUS: Final = "User:ANONYMOUS"
CLUSTER_NAME: Final = "kafka-cluster"


class Operation(IntEnum):
    """What may be done to a resource; Kafka's AclOperation and its codes."""

    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


class ResourceType(IntEnum):
    """What it may be done to; Kafka's ResourceType and its codes."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Authorizer(Protocol):
    """Answers one question. It is asked on the event loop, so it never waits."""

    def permits(self, principal: str, host: str, operation: Operation, resource: ResourceType, name: str) -> bool:
        """Whether `principal`, from `host`, may do `operation` on the resource called `name`."""
        ...


class AllowAll:
    """Everybody may do everything: the broker before ACLs are configured."""

    def permits(self, *_question: object) -> bool:
        """Yes."""
        return True


class RequestContext:
    """One request's surroundings.

    `listener` is the listener's name (`PLAINTEXT`), `host` the peer's address, `connection_id` a number unique in
    this broker's run; `client_id` is None where the client sent none.
    """

    __slots__ = (
        "api_key",
        "api_version",
        "authorizer",
        "client_id",
        "connection",
        "connection_id",
        "correlation_id",
        "holds_frame",
        "host",
        "listener",
        "principal",
        "throttle_time_ms",
    )

    def __init__(
        self,
        *,
        authorizer: Authorizer,
        listener: str,
        host: str,
        connection_id: int = 0,
        principal: str = ANONYMOUS,
        client_id: str | None = None,
        api_key: int = 0,
        api_version: int = 0,
        correlation_id: int = 0,
        connection: Connection | None = None,
        holds_frame: bool = False,
    ) -> None:
        self.authorizer = authorizer
        self.listener = listener
        self.host = host
        self.connection_id = connection_id
        self.principal = principal
        self.client_id = client_id
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.connection = connection
        # Whether the request's record bytes stay valid until it is answered; else they do until the handler returns.
        self.holds_frame = holds_frame
        # For how long the connection is not read once this request is answered (KIP-219); set by `mute`.
        self.throttle_time_ms = 0

    def permits(self, operation: Operation, resource: ResourceType, name: str) -> bool:
        """Whether the one who asks may do `operation` on one resource."""
        authorizer = self.authorizer
        return type(authorizer) is AllowAll or authorizer.permits(self.principal, self.host, operation, resource, name)

    def require(self, operation: Operation, resource: ResourceType, name: str, refusal: ErrorCode) -> None:
        """Raise a KafkaError of the code `refusal` unless the one who asks may do `operation`."""
        if not self.permits(operation, resource, name):
            raise KafkaError(refusal, f"{self.principal} may not {operation.name.lower()} {name}")

    def permits_cluster(self, operation: Operation) -> bool:
        """Whether the one who asks may do `operation` on the cluster as a whole."""
        return self.permits(operation, ResourceType.CLUSTER, CLUSTER_NAME)

    def authorize(
        self,
        operation: Operation,
        resource: ResourceType,
        items: Iterable[T],
        name: Callable[[T], str],
    ) -> tuple[list[T], list[T]]:
        """Split a request's items into (allowed, denied), each in the request's order; `name` names an item's
        resource.
        """
        if type(self.authorizer) is AllowAll:
            return list(items), []
        allowed: list[T] = []
        denied: list[T] = []
        for item in items:
            (allowed if self.permits(operation, resource, name(item)) else denied).append(item)
        return allowed, denied

    def disconnect(self, reason: str) -> None:
        """End the connection: the only way to tell a client that expects no answer that something is wrong."""
        if self.connection is not None:
            self.connection.refuse(reason)

    def mute(self, throttle_time_ms: int) -> None:
        """Leave the connection unread for this long once this request is answered (KIP-219)."""
        self.throttle_time_ms = max(self.throttle_time_ms, throttle_time_ms)
