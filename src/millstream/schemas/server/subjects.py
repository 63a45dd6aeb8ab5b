"""Subjects and the contexts they lie in: `:.context:subject`, as Confluent's registry writes them.

A context is a registry within the registry: ids, subjects, configs and modes of its own. The default one is named `.`
and is not written; `:.__GLOBAL:` holds the config and the mode that every context falls back on; `:*:` in a
search means every context.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DEFAULT_CONTEXT: Final = "."
GLOBAL_CONTEXT: Final = ".__GLOBAL"
GLOBAL_SUBJECT: Final = ":.__GLOBAL:"
EVERY_CONTEXT: Final = ":*:"
_PREFIX: Final = ":."
_RESERVED: Final = ("__GLOBAL", "__EMPTY")


class QualifiedSubject(NamedTuple):
    """A subject and its context (which begins with a dot); the name is empty where a context itself is meant."""

    context: str
    name: str

    @property
    def prefix(self) -> str:
        """The context as it stands before a subject: `:.context:`, nothing for the default one."""
        return "" if self.context == DEFAULT_CONTEXT else f":{self.context}:"

    def __str__(self) -> str:
        return self.prefix + self.name


def split(subject: str) -> QualifiedSubject:
    """Take a subject apart."""
    if subject.startswith(_PREFIX):
        context, _, name = subject[1:].partition(":")
        return QualifiedSubject(context, name)
    if subject.startswith(EVERY_CONTEXT):
        return QualifiedSubject("*", subject[len(EVERY_CONTEXT) :])
    return QualifiedSubject(DEFAULT_CONTEXT, subject)


def normalized(subject: str) -> str:
    """Return a subject in the one way it is written: `:.:a` is `a`."""
    return str(split(subject)) if subject.startswith(":") else subject


def context_of(subject: str) -> str:
    """Return the name of a subject's context."""
    return split(subject).context if subject.startswith(":") else DEFAULT_CONTEXT


def is_context(subject: str) -> bool:
    """Whether a context is meant, and no subject in it."""
    return not split(subject).name


def is_default_context(subject: str) -> bool:
    """Whether the default context itself is meant."""
    return split(subject) == (DEFAULT_CONTEXT, "")


def is_within(subject: str, context: str) -> bool:
    """Whether `subject` lies in what `context` (as a subject without a name) stands for."""
    of = split(context)
    return not of.name and of.context in (GLOBAL_CONTEXT, context_of(subject))


def context_prefix(context: str) -> str:
    """Return `:.context:` for a context as people write it: with or without the colons and the dot.

    Raises ValueError.
    """
    name = context.removeprefix(":").removesuffix(":")
    if ":" in name:
        raise ValueError(f"Context name '{name}' cannot contain a colon")
    name = name if name.startswith(".") else f".{name}"
    return "" if name == DEFAULT_CONTEXT else f":{name}:"


def referred(parent: str, subject: str) -> str:
    """Return which subject a reference or an alias in `parent` means: one in the same context, unless it names one."""
    of = split(subject)
    if of.context == DEFAULT_CONTEXT:
        of = QualifiedSubject(context_of(parent), of.name)
    return str(of)


def is_valid(subject: str, *, is_setting: bool = False) -> bool:
    """Whether a subject may be written under; settings (config, mode) may belong to contexts and to all of them."""
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in subject):
        return False
    of = split(subject)
    if of.name in _RESERVED:
        return False
    if is_setting:
        return True
    return bool(of.name) and of.name != "*" and of.context != GLOBAL_CONTEXT
