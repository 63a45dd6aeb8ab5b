"""Which registry is asked next, and when to give up: sans-I/O, time is passed in.

The addresses are tried in turn, beginning with the one that answered last; after each round of all of them comes a
pause that grows. What may not be done twice is tried again only where the request was not even begun. A schema that one
replica has not heard of yet is asked for at the others.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from millstream.core.client.backoff import Backoff
from millstream.schemas.client.config import RegistryConfig
from millstream.schemas.client.errors import (
    RETRIABLE_STATUSES,
    UNTOUCHED_STATUSES,
    RegistryError,
    RegistryUnavailableError,
)
from millstream.schemas.error_codes import RegistryErrorCode

_SHOWN_BYTES: Final = 200
_NOT_FOUND: Final = 404


class Attempt(NamedTuple):
    """What to do now: wait, then ask, for at most so long."""

    url: str
    pause_s: float
    timeout_s: float


class Attempts:
    """The attempts of one call.

    States: trying (made) -> done (`answered` returns an answer) | given up (`answered` or `failed` raises).
    """

    def __init__(
        self, config: RegistryConfig, first: int, now: float, *, is_idempotent: bool, may_lag: bool = False
    ) -> None:
        self._config = config
        self._backoff = Backoff(config.backoff_s, config.backoff_s_max)
        self._deadline = now + config.timeout_s
        self._is_idempotent = is_idempotent
        self._may_lag = may_lag
        self._made = 0
        # The index of the address that is asked now; where the call ended well the next one begins there.
        self.index = first % len(config.urls)
        self._last = ""

    def next(self, now: float) -> Attempt:
        """Return the next attempt. Raises RegistryUnavailableError where the deadline would be over before it."""
        urls = self._config.urls
        pause_s = 0.0
        if self._made:
            self.index = (self.index + 1) % len(urls)
            if self._made % len(urls) == 0:
                pause_s = self._backoff.pause_s(self._made // len(urls))
        left_s = self._deadline - now - pause_s
        if left_s <= 0:
            raise self._unavailable()
        self._made += 1
        return Attempt(urls[self.index], pause_s, left_s)

    def failed(self, reason: str, *, begun: bool) -> None:
        """Note that no answer came. Raises RegistryUnavailableError where that is the end of the call."""
        self._last = f"{self._config.urls[self.index]}: {reason}"
        if begun and not self._is_idempotent:
            raise RegistryUnavailableError(
                f"{self._last}; whether the registry did what was asked is not known: look before asking again"
            )
        if self._is_over:
            raise self._unavailable()

    def answered(self, status: int, body: bytes) -> Any:
        """Return the answer of a call that is done; AGAIN where another attempt may do better. Raises RegistryError."""
        if 200 <= status < 300:
            try:
                return json.loads(body) if body else None
            except (ValueError, RecursionError) as error:
                raise RegistryError(status, status, f"{self._url} answered no JSON: {_shown(body)}") from error
        refusal = self._refusal(status, body)
        untouched = status in UNTOUCHED_STATUSES or refusal.code == RegistryErrorCode.UNKNOWN_LEADER
        if status in RETRIABLE_STATUSES and (self._is_idempotent or untouched) and not self._is_over:
            self._last = f"{self._url}: {refusal}"
            return AGAIN
        if status == _NOT_FOUND and self._may_lag and self._made < len(self._config.urls):
            return AGAIN
        raise refusal

    @property
    def _url(self) -> str:
        return self._config.urls[self.index]

    @property
    def _is_over(self) -> bool:
        return self._made >= (self._config.retries + 1) * len(self._config.urls)

    def _refusal(self, status: int, body: bytes) -> RegistryError:
        try:
            answer = json.loads(body)
            return RegistryError(int(answer["error_code"]), status, str(answer["message"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            # A proxy's page, or no registry at all.
            return RegistryError(status, status, f"{self._url} answered HTTP {status}: {_shown(body) or 'no text'}")

    def _unavailable(self) -> RegistryUnavailableError:
        urls = ", ".join(self._config.urls)
        said = f"; the last answer: {self._last}" if self._last else ""
        # A connection that is refused is over at once: then the attempts are, and not the time.
        asked = f", asked {self._made} times" if self._is_over else f" within {self._config.timeout_s:g} s"
        return RegistryUnavailableError(
            f"no registry answered at {urls}{asked}{said}; see that it runs and is reached from here"
        )


class _Again:
    def __repr__(self) -> str:
        return "AGAIN"


AGAIN: Final = _Again()


def _shown(body: bytes) -> str:
    return " ".join(body[:_SHOWN_BYTES].decode(errors="replace").split())
