"""Subscriptions by regular expression: what one is, and which topics it matches, found in slices.

RE2 alone is used: it matches in time linear in the text, whatever a client sends. Even so 20,000 topics take 13 ms, so
a resolution goes over them a slice at a time (`TopicMatching.step`), each well below a millisecond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from millstream.core.wire import ErrorCode, KafkaError

# Topic names matched against one expression per slice: about 0.4 ms.
SLICE_MATCHES: Final = 512
# Beyond it an expression takes milliseconds to compile, and at four bytes a character no record's key could hold it.
REGEX_CHARS_MAX: Final = 8_000


def check_regex(regex: str) -> None:
    """Raise KafkaError INVALID_REGULAR_EXPRESSION unless RE2 understands it."""
    if len(regex) > REGEX_CHARS_MAX:
        raise KafkaError(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex has {len(regex)} characters; {REGEX_CHARS_MAX} is the most.",
        )
    _matcher(regex)


def _matcher(regex: str) -> Any:
    # A set of one: asked for one text it says whether it matches in a third of the time of a single expression.
    # It is imported here since most brokers never see a regular expression.
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(regex, options)
        matcher = re2.Set.FullMatchSet(options)
        matcher.Add(regex)
        matcher.Compile()
    except re2.error as error:
        cause = error.args[0] if error.args else "it cannot be compiled"
        text = cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)
        raise KafkaError(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {text}.",
        ) from error
    return matcher


class TopicMatching:
    """Which of a cluster's topics match each of some regular expressions."""

    def __init__(self, regexes: Iterable[str], topics: Collection[str]) -> None:
        self.matches: dict[str, set[str]] = {}
        self._regexes = sorted(regexes)
        # Of the expression that is matched now; compiled when its turn comes, as a thousand of them take a while.
        self._matcher: Any = None
        self._topics = list(topics)
        self._position = 0
        self._current = 0
        self.matches.update((regex, set()) for regex in self._regexes)

    def step(self) -> bool:
        """Match one slice; return whether that was the last."""
        if self._current == len(self._regexes):
            return True
        regex = self._regexes[self._current]
        end = self._position + SLICE_MATCHES
        if self._matcher is None:
            try:
                self._matcher = _matcher(regex)
            except KafkaError:
                # Written by a program that takes others: it matches nothing here.
                end = len(self._topics)
        if self._matcher is not None:
            match = self._matcher.Match
            self.matches[regex].update(topic for topic in self._topics[self._position : end] if match(topic))
        self._position = end
        if end >= len(self._topics):
            self._current, self._position, self._matcher = self._current + 1, 0, None
        return self._current == len(self._regexes)
