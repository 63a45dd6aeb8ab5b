"""What a registry refuses, and that none answers: one exception, with a code of `schemas/error_codes.py`.

Whether trying again may help is the code's to say, where there is one.
"""

from __future__ import annotations

from typing import Final

from millstream.schemas.error_codes import RegistryErrorCode

# Statuses that a registry, or what stands before it, gives to calls it could not serve just now.
RETRIABLE_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
# Those of them that say the call was not even begun, so that what must not be done twice may be tried again.
UNTOUCHED_STATUSES: Final = frozenset({429, 503})


class RegistryError(Exception):
    """A registry refused a call.

    `code` is Confluent's (see RegistryErrorCode), or the HTTP status where the answer holds none; `status` the HTTP
    status, 0 where nothing answered; `message` what the registry said. Can be pickled.
    """

    def __init__(self, code: int, status: int, message: str) -> None:
        super().__init__(code, status, message)
        self.code = code
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self._code_text()})"

    @property
    def is_outage(self) -> bool:
        """Whether nobody could answer just now: nothing is wrong with what was asked, and later it may be answered."""
        return self.status == 0 or self.status in RETRIABLE_STATUSES

    def _code_text(self) -> str:
        if self.status == self.code:
            return f"HTTP {self.status}"
        try:
            return f"{self.code} {RegistryErrorCode(self.code).name}"
        except ValueError:
            return f"{self.code}, HTTP {self.status}"


class RegistryUnavailableError(RegistryError):
    """No registry answered before the call's deadline: which were asked, and what the last of them said."""

    def __init__(self, message: str) -> None:
        super().__init__(0, 0, message)
        self.args = (message,)

    def __str__(self) -> str:
        return self.message
