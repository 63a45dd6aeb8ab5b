"""What goes wrong with one value: which topic and field, which schema, and why."""

from __future__ import annotations

from uuid import UUID


class SerdeError(ValueError):
    """A value and its schema do not go together. Can be pickled.

    `topic` is None where the caller gave none, `schema_id` (an id, or a GUID) where none was found yet.
    """

    def __init__(self, reason: str, *, topic: str | None, field: str, schema_id: int | UUID | None) -> None:
        super().__init__(reason, topic, field, schema_id)
        self.reason = reason
        self.topic = topic
        self.field = field
        self.schema_id = schema_id

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickled, (type(self), self.reason, self.topic, self.field, self.schema_id)

    def __str__(self) -> str:
        topic = "" if self.topic is None else f" of topic {self.topic!r}"
        schema = "" if self.schema_id is None else f", schema {self.schema_id}"
        return f"{self.field}{topic}{schema}: {self.reason}"


class SerializationError(SerdeError):
    """The value cannot be written with its schema, or the schema is not to be had."""


class DeserializationError(SerdeError):
    """The bytes cannot be read with the schema they name, or they name none."""


def _unpickled(
    kind: type[SerdeError], reason: str, topic: str | None, field: str, schema_id: int | UUID | None
) -> SerdeError:
    return kind(reason, topic=topic, field=field, schema_id=schema_id)
