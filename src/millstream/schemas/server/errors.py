"""What the registry refuses: one table of Confluent's error codes, and the exception that carries one.

The status is the first three digits of the code. Answers are `{"error_code": 40401, "message": "..."}`.
"""

from __future__ import annotations

from enum import IntEnum


class RegistryErrorCode(IntEnum):
    """Confluent's error codes; those of three digits are HTTP's own."""

    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    METHOD_NOT_ALLOWED = 405
    NOT_ACCEPTABLE = 406
    BODY_TOO_LARGE = 413
    UNSUPPORTED_MEDIA_TYPE = 415
    UNPROCESSABLE = 422
    INTERNAL = 500
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
    STORE = 50001
    TIMEOUT = 50002
    FORWARDING_FAILED = 50003
    UNKNOWN_LEADER = 50004

    @property
    def status(self) -> int:
        """The HTTP status it is answered with."""
        return self // 100 if self >= 1000 else int(self)


class RegistryRefusal(Exception):  # noqa: N818  an answer, not a failure
    """An answer with an error code; the message says what is wrong, where, and what to do."""

    def __init__(self, code: RegistryErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def not_found(path: str = "") -> RegistryRefusal:
    """Return the refusal of a path that leads nowhere; what Confluent's has and this one lacks is named."""
    left_out = next((name for name in ("associations", "tags") if f"/{name}" in path), None)
    reason = "" if left_out is None else f": this registry has no {left_out}"
    return RegistryRefusal(RegistryErrorCode.NOT_FOUND, f"HTTP 404 Not Found{reason}")


def subject_not_found(subject: str) -> RegistryRefusal:
    """Return the refusal of a subject that is not there."""
    return RegistryRefusal(RegistryErrorCode.SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")


def version_not_found(version: int) -> RegistryRefusal:
    """Return the refusal of a version that is not there."""
    return RegistryRefusal(RegistryErrorCode.VERSION_NOT_FOUND, f"Version {version} not found.")


def schema_not_found(name: int | str | None = None) -> RegistryRefusal:
    """Return the refusal of a schema that is not there, asked for by id or guid or by what it says."""
    what = "Schema not found" if name is None else f"Schema {name} not found"
    return RegistryRefusal(RegistryErrorCode.SCHEMA_NOT_FOUND, what)
