"""What commands take that work with the schemas of a registry, and how its refusals become sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from millstream.cli.errors import CommandError

if TYPE_CHECKING:
    from millstream.schemas import AsyncRegistryClient, RegistryClient

REGISTRY_DEFAULT: Final = "http://127.0.0.1:8081"

Registry = Annotated[
    str,
    typer.Option(
        "--registry",
        metavar="URL",
        envvar="MILLSTREAM_REGISTRY_URL",
        help="The schema registry, or several with commas; http://USER:PASSWORD@HOST:PORT.",
    ),
]
RegistryCa = Annotated[
    Path | None,
    typer.Option(
        "--registry-ca",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="PEM certificates to trust the registry by; the system's otherwise.",
    ),
]


class SchemaTypeName(StrEnum):
    """Types of schemas as a command line has them."""

    avro = "avro"
    json = "json"
    protobuf = "protobuf"


class ValueFormat(StrEnum):
    """How keys or values of records are to be taken."""

    bytes = "bytes"
    avro = "avro"
    json = "json"
    protobuf = "protobuf"
    auto = "auto"


def registry_settings(url: str, ca_file: Path | None, timeout_s: float) -> dict[str, Any]:
    """Return what a client of the registry at `url` is made with."""
    return {"url": url, "timeout_s": timeout_s, "ca_location": None if ca_file is None else str(ca_file)}


def registry_client(settings: dict[str, Any]) -> RegistryClient:
    """Return a client. Raises BadParameter."""
    from millstream.schemas import RegistryClient

    with _registry_arguments():
        return RegistryClient(**settings)


def async_registry_client(settings: dict[str, Any]) -> AsyncRegistryClient:
    """Return a client for asyncio. Raises BadParameter."""
    from millstream.schemas import AsyncRegistryClient

    with _registry_arguments():
        return AsyncRegistryClient(**settings)


@contextmanager
def _registry_arguments() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--registry") from error


@contextmanager
def registry_sentences() -> Iterator[None]:
    """Turn what a registry refuses, and values that do not fit their schemas, into CommandError."""
    from millstream.schemas import InvalidSchemaError, RegistryError, SerdeError

    try:
        yield
    except (RegistryError, SerdeError) as error:
        raise CommandError(str(error)) from error
    except InvalidSchemaError as error:
        raise CommandError(f"the schema is not valid: {error}") from error
