"""Subject name strategies: under which subject the schema of a record lies.

topic          TOPIC-key, TOPIC-value: one schema, and its versions, per topic (the default)
record         the record's full name: one schema wherever it is used
topic_record   TOPIC-NAME: several kinds of records in a topic, each with versions of its own
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

SubjectName: TypeAlias = Callable[[str | None, str, str | None], str]
"""From topic, field ("key" or "value") and the record's name to a subject. Raises ValueError where one is missing."""


def topic_subject(topic: str | None, field: str, name: str | None) -> str:  # noqa: ARG001  strategies look alike
    """TOPIC-key or TOPIC-value."""
    return f"{_needed(topic, 'topic', 'give topic=, or a context that has it')}-{field}"


def record_subject(topic: str | None, field: str, name: str | None) -> str:  # noqa: ARG001
    """The record's full name."""
    return _needed(name, "name", "a schema of a record, or with a title, has one")


def topic_record_subject(topic: str | None, field: str, name: str | None) -> str:  # noqa: ARG001
    """TOPIC-NAME."""
    topic = _needed(topic, "topic", "give topic=, or a context that has it")
    return f"{topic}-{_needed(name, 'name', 'a schema of a record, or with a title, has one')}"


STRATEGIES: Final[dict[str, SubjectName]] = {
    "topic": topic_subject,
    "record": record_subject,
    "topic_record": topic_record_subject,
}


def strategy_of(strategy: str | SubjectName) -> SubjectName:
    """Return the strategy of that name, or the function itself. Raises ValueError."""
    if callable(strategy):
        return strategy
    found = STRATEGIES.get(strategy)
    if found is None:
        raise ValueError(f"{strategy!r} is no subject name strategy: {', '.join(STRATEGIES)}, or a function")
    return found


def _needed(value: str | None, what: str, remedy: str) -> str:
    if value is None:
        raise ValueError(f"the subject is made of the record's {what}, and there is none: {remedy}")
    return value
