"""What a registry refuses, and that none answers: one table of Confluent's codes, one exception.

A code is an HTTP status followed by two digits. Whether trying again may help is the code's to say, where there is one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class RegistryErrorCode(IntEnum):
    """Confluent's error codes; `retriable`: the same call may succeed a little later."""

    SUBJECT_NOT_FOUND = 40401
    VERSION_NOT_FOUND = 40402
    SCHEMA_NOT_FOUND = 40403
    SUBJECT_SOFT_DELETED = 40404
    SUBJECT_NOT_SOFT_DELETED = 40405
    VERSION_SOFT_DELETED = 40406
    VERSION_NOT_SOFT_DELETED = 40407
    SUBJECT_COMPATIBILITY_NOT_CONFIGURED = 40408
    SUBJECT_MODE_NOT_CONFIGURED = 40409
    INCOMPATIBLE_SCHEMA = 40901
    INVALID_SCHEMA = 42201
    INVALID_VERSION = 42202
    INVALID_COMPATIBILITY_LEVEL = 42203
    INVALID_MODE = 42204
    OPERATION_NOT_PERMITTED = 42205
    REFERENCE_EXISTS = 42206
    ID_DOES_NOT_MATCH = 42207
    INVALID_SUBJECT = 42208
    SCHEMA_TOO_LARGE = 42209
    INVALID_RULE_SET = 42210
    CONTEXT_NOT_EMPTY = 42211
    STORE_ERROR = 50001
    OPERATION_TIMEOUT = 50002
    FORWARDING_FAILED = 50003
    UNKNOWN_LEADER = 50004

    @property
    def retriable(self) -> bool:
        """Whether the registry may answer otherwise a little later: it has a leader again, its store is back."""
        return self >= RegistryErrorCode.STORE_ERROR


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
        try:
            return f"{self.code} {RegistryErrorCode(self.code).name}"
        except ValueError:
            return f"HTTP {self.status}" if self.status == self.code else f"{self.code}, HTTP {self.status}"


class RegistryUnavailableError(RegistryError):
    """No registry answered before the call's deadline: which were asked, and what the last of them said."""

    def __init__(self, message: str) -> None:
        super().__init__(0, 0, message)
        self.args = (message,)

    def __str__(self) -> str:
        return self.message
