"""What the registry refuses: the exception that carries an error code (`schemas/error_codes.py`)."""

from __future__ import annotations

from millstream.schemas.error_codes import RegistryErrorCode


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
