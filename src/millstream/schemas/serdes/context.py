"""Where a value is going or comes from: topic, key or value, headers; from whatever a client tells."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

FIELDS: Final = ("key", "value")


class Context(NamedTuple):
    """What is known about the record; `headers` is the record's own collection, which a header may be added to."""

    topic: str | None
    field: str
    headers: Any


def context_of(given: Any, topic: str | None, field: str | None, headers: Any, field_default: str) -> Context:
    """Return the context: keywords go before `given`, which is like confluent-kafka's SerializationContext."""
    if given is not None:
        topic = given.topic if topic is None else topic
        field = str(given.field) if field is None else field
        headers = getattr(given, "headers", None) if headers is None else headers
    return Context(topic, field_default if field is None else checked_field(field), headers)


def checked_field(field: str) -> str:
    """Return `field`. Raises ValueError where it is neither "key" nor "value"."""
    if field not in FIELDS:
        raise ValueError(f"{field!r} is no field of a record: 'key' or 'value'")
    return field


def from_kafka_python(arguments: tuple[Any, ...], field: str) -> tuple[Any, Context]:
    """Return data and context of a call by kafka-python's interface: (topic, headers, data), once (topic, data)."""
    topic, headers, data = arguments if len(arguments) == 3 else (arguments[0], None, arguments[1])
    return data, Context(topic, field, headers)


def add_header(headers: Any, name: str, value: bytes) -> None:
    """Add a header in place. Raises TypeError where there is nothing to add it to."""
    if isinstance(headers, list):
        headers.append((name, value))
    elif isinstance(headers, dict):
        headers[name] = value
    else:
        raise TypeError(f"the schema goes into header {name}, and there is no list of headers to add it to")
