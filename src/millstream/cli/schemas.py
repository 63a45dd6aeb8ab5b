"""`millstream schemas`: list, show, register, check, diff."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from millstream.cli.errors import CommandError
from millstream.cli.options import TIMEOUT_DEFAULT_S, Json, Timeout, examples
from millstream.cli.output import done, note, print_json, print_table
from millstream.cli.registry_options import (
    REGISTRY_DEFAULT,
    Registry,
    RegistryCa,
    SchemaTypeName,
    registry_client,
    registry_sentences,
    registry_settings,
)

if TYPE_CHECKING:
    from millstream.schemas import Incompatibility, ParsedSchema, RegisteredSchema, RegistryClient

_group = typer.Typer(no_args_is_help=True, help="List, show, register, check and compare the schemas of a registry.")
_SUFFIXES: Final = {".avsc": "AVRO", ".proto": "PROTOBUF"}
_REFERENCE: Final = re.compile(r"(?P<name>.+?)=(?P<subject>.+):(?P<version>\d+)")


def _subject_named(subject: str | None) -> str | None:
    if subject == "":
        raise typer.BadParameter("a subject has a name", param_hint="SUBJECT")
    return subject


_Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="As TOPIC-value.", callback=_subject_named)]
_File = Annotated[
    Path,
    typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A schema: .avsc, .proto, any with --type."),
]
_Type = Annotated[
    SchemaTypeName | None, typer.Option("--type", "-t", help="What FILE holds, where its name does not say it.")
]
_References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference", "-r", metavar="NAME=SUBJECT:VERSION", help="What the schema refers to by this name; repeatable."
    ),
]


def register(app: typer.Typer) -> None:
    app.add_typer(_group, name="schemas")


@_group.command("list", epilog=examples("millstream schemas list", "millstream schemas list --prefix flights --json"))
def list_schemas(
    prefix: Annotated[
        str | None, typer.Option("--prefix", "-p", metavar="TEXT", help="Only subjects that begin so.")
    ] = None,
    versions: Annotated[bool, typer.Option("--versions", help="Every version, not only the latest.")] = False,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """List subjects with their latest schema."""
    with _client(registry, registry_ca, timeout) as client:
        listed = sorted(client.listed(prefix, latest_only=not versions))
    if as_json:
        print_json([{**one._asdict(), "type": one.type.lower()} for one in listed])
    elif listed:
        rows = [(one.subject, one.version, one.id, one.type.lower()) for one in listed]
        print_table(("SUBJECT", "VERSION", "ID", "TYPE"), rows, numbers=("VERSION", "ID"))
    elif prefix:
        note(f"no subject begins with {prefix!r}")
    else:
        note("there are no schemas; `millstream schemas register SUBJECT FILE` makes one")


@_group.command(
    epilog=examples(
        "millstream schemas show flights-value",
        "millstream schemas show flights-value --version 2 > flight.avsc",
        "millstream schemas show --id 17 --json",
    )
)
def show(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help="As TOPIC-value; or give --id.", callback=_subject_named),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", "-v", metavar="N", min=1, help="This one; the latest otherwise.")
    ] = None,
    schema_id: Annotated[int | None, typer.Option("--id", "-i", metavar="ID", help="The schema with this id.")] = None,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Print a schema, so that it can be read, or written to a file."""
    if (subject is None) == (schema_id is None) or (schema_id is not None and version is not None):
        raise typer.BadParameter("give a subject, with --version or without, or --id", param_hint="SUBJECT")
    with _client(registry, registry_ca, timeout) as client:
        if schema_id is not None:
            schema = client.schema(schema_id)
            described: dict[str, Any] = {
                "id": schema_id,
                "versions": [list(one) for one in client.versions_of(schema_id)],
            }
        else:
            found = _version(client, str(subject), version)
            schema = found.schema
            described = {"subject": found.subject, "version": found.version, "id": found.id, "guid": found.guid}
    if as_json:
        references = [one._asdict() for one in schema.references]
        print_json({**described, "type": schema.type.lower(), "references": references, "schema": schema.text})
    else:
        typer.echo(_readable(schema))


@_group.command(
    "register",
    epilog=examples(
        "millstream schemas register flights-value flight.avsc",
        "millstream schemas register orders-value order.json --type json",
        "millstream schemas register legs-value leg.avsc --reference Flight=flights-value:1",
    ),
)
def register_schema(
    subject: _Subject,
    file: _File,
    schema_type: _Type = None,
    reference: _References = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="In the form that equal schemas share, whatever their texts.")
    ] = False,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Make the schema the subject's next version, where it is none of its versions yet."""
    with _client(registry, registry_ca, timeout) as client:
        schema = _parsed(client, file, schema_type, reference)
        _register(client, subject, schema, file, normalize=normalize)
        found = client.lookup(subject, schema, normalize=normalize)
    if as_json:
        print_json({"subject": found.subject, "version": found.version, "id": found.id})
    else:
        done(f"{found.subject} version {found.version}, id {found.id}")


@_group.command(
    epilog=examples(
        "millstream schemas check flights-value flight.avsc",
        "millstream schemas check flights-value flight.avsc --level FULL_TRANSITIVE",
    )
)
def check(
    subject: _Subject,
    file: _File,
    schema_type: _Type = None,
    reference: _References = None,
    level: Annotated[
        str | None,
        typer.Option("--level", "-l", metavar="LEVEL", help="BACKWARD, ...; what is configured for it otherwise."),
    ] = None,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Say whether the schema can become the subject's next version, and if not, why and what to do.

    Nothing is registered. The exit code is 1 where it cannot.
    """
    from millstream.schemas.compat import Level, check_versions

    with _client(registry, registry_ca, timeout) as client:
        new = _parsed(client, file, schema_type, reference)
        config = client.config(subject, default_to_global=True)
        if level is None:
            wanted = config.compatibility_level or Level.BACKWARD
        elif level.upper() in set(Level):
            wanted = Level(level.upper())
        else:
            raise typer.BadParameter(f"there are {', '.join(Level)}", param_hint="--level")
        versions = [client.version(subject, version) for version in _versions(client, subject)]
        refused = client.compatible(subject, new) if level is None else []
    index, found = check_versions(wanted, new, [one.schema for one in versions])
    # The registry's word goes before ours: it knows which versions make a group, compared with each other alone.
    if level is None and (not refused or config.compatibility_group):
        found = []
    against = versions[index].version if found else None
    if as_json:
        print_json(
            {
                "subject": subject,
                "level": wanted,
                "compatible": not found and not refused,
                "against": against,
                "incompatibilities": [_described(one) for one in found],
                "registry": refused,
            }
        )
    elif found:
        typer.echo(_reasons(found))
    elif refused:
        typer.echo("\n".join(refused))
    if found or refused:
        which = f"version {against} of {subject}" if found else subject
        count = len(found) or len(refused)
        raise CommandError(f"not {wanted} compatible with {which}: {count} {'reason' if count == 1 else 'reasons'}")
    if not as_json:
        done(f"{wanted} compatible with {subject}: {len(versions)} {'version' if len(versions) == 1 else 'versions'}")


@_group.command(
    epilog=examples(
        "millstream schemas diff flights-value",
        "millstream schemas diff flights-value 1 3",
        "millstream schemas diff flights-value 2 --json",
    )
)
def diff(
    subject: _Subject,
    old: Annotated[
        int | None, typer.Argument(metavar="OLD", min=1, help="A version; the one before the latest otherwise.")
    ] = None,
    new: Annotated[int | None, typer.Argument(metavar="NEW", min=1, help="A version; the latest otherwise.")] = None,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Show how two versions differ, and whether each reads what the other wrote."""
    from millstream.schemas.compat import incompatibilities

    with _client(registry, registry_ca, timeout) as client:
        if old is None:
            versions = client.versions(subject)
            if len(versions) == 1:
                raise CommandError(f"{subject} has one version only, {versions[0]}: nothing to compare it with")
            old = versions[-2]
        before, after = _version(client, subject, old), _version(client, subject, new)
    backward = incompatibilities(after.schema, before.schema)
    forward = incompatibilities(before.schema, after.schema)
    lines = list(
        difflib.unified_diff(
            _readable(before.schema).splitlines(),
            _readable(after.schema).splitlines(),
            f"{subject} version {before.version}",
            f"{subject} version {after.version}",
            lineterm="",
        )
    )
    if as_json:
        print_json(
            {
                "subject": subject,
                "old": before.version,
                "new": after.version,
                "diff": lines,
                "new_reads_old": [_described(one) for one in backward],
                "old_reads_new": [_described(one) for one in forward],
            }
        )
        return
    typer.echo("\n".join(lines) if lines else f"versions {before.version} and {after.version} are the same")
    for reader, writer, found in ((after, before, backward), (before, after, forward)):
        can = "cannot read" if found else "reads"
        typer.echo(f"\nversion {reader.version} {can} what version {writer.version} wrote")
        if found:
            typer.echo(_reasons(found))


@contextmanager
def _client(url: str, ca_file: Path | None, timeout_s: float) -> Iterator[RegistryClient]:
    with registry_sentences(), registry_client(registry_settings(url, ca_file, timeout_s)) as client:
        yield client


def _register(client: RegistryClient, subject: str, schema: ParsedSchema, file: Path, *, normalize: bool) -> None:
    from millstream.schemas import RegistryError, RegistryErrorCode

    try:
        client.register(subject, schema, normalize=normalize)
    except RegistryError as error:
        if error.code != RegistryErrorCode.INCOMPATIBLE_SCHEMA:
            raise
        raise CommandError(
            f"the schema is incompatible with an earlier one of {subject}, and was not registered; "
            f"`millstream schemas check {subject} {file}` names path, rule and remedy of each reason"
        ) from error


def _version(client: RegistryClient, subject: str, version: int | None) -> RegisteredSchema:
    from millstream.schemas import RegistryError, RegistryErrorCode

    try:
        return client.latest(subject) if version is None else client.version(subject, version)
    except RegistryError as error:
        if error.code != RegistryErrorCode.VERSION_NOT_FOUND:
            raise
        there = ", ".join(map(str, _versions(client, subject)))
        raise CommandError(f"{subject} has no version {version}; it has {there}") from error


def _versions(client: RegistryClient, subject: str) -> list[int]:
    from millstream.schemas import RegistryError, RegistryErrorCode

    try:
        return client.versions(subject)
    except RegistryError as error:
        if error.code == RegistryErrorCode.SUBJECT_NOT_FOUND:
            return []
        raise


def _parsed(
    client: RegistryClient, file: Path, schema_type: SchemaTypeName | None, references: list[str] | None
) -> ParsedSchema:
    """Parse FILE with what it refers to. Raises BadParameter, CommandError, RegistryError."""
    from millstream.schemas import InvalidSchemaError, Reference, SchemaType, parse

    kind = _SUFFIXES.get(file.suffix) if schema_type is None else schema_type.upper()
    if kind is None:
        raise typer.BadParameter(f"{file.name} does not say of which type the schema is", param_hint="--type")
    given = []
    resolved: dict[str, str] = {}
    for text in references or ():
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise typer.BadParameter(f"{text!r}: write NAME=SUBJECT:VERSION", param_hint="--reference")
        given.append(Reference(found["name"], found["subject"], int(found["version"])))
        referenced = _version(client, found["subject"], int(found["version"])).schema
        resolved |= {**referenced.resolved, found["name"]: referenced.text}
    try:
        return parse(SchemaType(kind), file.read_text(encoding="utf-8"), given, resolved)
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except InvalidSchemaError as error:
        raise CommandError(f"the schema in {file} is not valid: {error}") from error


def _readable(schema: ParsedSchema) -> str:
    """Return a schema's text with a line per thing."""
    from millstream.schemas import SchemaType

    if schema.type is SchemaType.PROTOBUF:
        return schema.text.rstrip("\n")
    return json.dumps(json.loads(schema.text), indent=2, ensure_ascii=False)


def _described(found: Incompatibility) -> dict[str, str]:
    return {"kind": found.kind, "path": found.path, "sentence": found.sentence}


def _reasons(found: list[Incompatibility]) -> str:
    return "\n".join(f"{one.path}  {one.kind}\n    {one.sentence}" for one in found)
