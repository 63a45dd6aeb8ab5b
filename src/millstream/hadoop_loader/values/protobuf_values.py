"""Protobuf messages to columns, by `schemas.protobuf`.

Each value is read as the message of its writer's schema that it names, and the table's columns are found in it by their
names, at any depth. A message that the table was not made of is told like a schema that it does not know; where the job
wants another (`value.message`), its values are bad. Without framing all values are the one message that the job names.
protobuf's runtime makes an object of each message, so this takes microseconds a record where Avro takes a tenth of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.hadoop_loader.tables.writers import schema_id_of, writer_number
from millstream.hadoop_loader.values.located import decoded_in_parts
from millstream.hadoop_loader.values.registered import RegisteredSchemas
from millstream.hadoop_loader.values.rows import BadRow, UnknownSchemaError
from millstream.schemas.parsing import ParsedSchema, SchemaType, parse
from millstream.schemas.protobuf import ProtobufDecoder

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.schemas.client import RegistryClient
    from millstream.schemas.serdes.framing import MessagePath


class ProtobufParse:
    """Protobuf values of one topic to columns."""

    def __init__(self, columns: pa.Schema, table: TableVersion, registry: RegistryClient | None, job: LoadJob) -> None:
        self._table = table
        self._sources = {schema_id_of(number): source for number, source in table.sources.items()}
        self._message = job.value.message
        self._registered = RegisteredSchemas(registry, "protobuf")
        if job.value.framing == "registry":
            self._decoder = ProtobufDecoder(self._find, columns=columns, why_not=self._why_not)
        else:
            assert job.value.schema is not None, "a job without framing has a schema"
            self._decoder = ProtobufDecoder(
                None,
                parse(SchemaType.PROTOBUF, job.value.schema),
                message=job.value.message,
                columns=columns,
                framing="none",
            )

    def __call__(self, values: pa.Array, bad: list[BadRow]) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Parse the values that are there. Raises UnknownSchemaError, RegistryError."""
        decoded = decoded_in_parts(lambda start, stop: self._decoder.decode(values[start:stop]), 0, len(values))
        bad += [BadRow(error.row, error.reason) for error in decoded.errors]
        return decoded.batch, decoded.rows

    def _find(self, schema_id: int) -> ParsedSchema:
        source = self._sources.get(schema_id)
        if source is None:
            return self._registered.schema(schema_id)
        return parse(source.type, source.text, resolved=dict(source.references))

    def _why_not(self, schema_id: int, path: MessagePath, written: Descriptor) -> str | None:
        """Return why values of a message are bad. Raises UnknownSchemaError where the table is to be made of it too."""
        if self._message is not None:
            package = f"{written.file.package}."
            if written.full_name.removeprefix(package) != self._message.removeprefix(package):
                return f"it is a {written.full_name}, and the job reads {self._message} (value.message)"
        number = writer_number(schema_id, path)
        if number not in self._table.writers:
            raise UnknownSchemaError(self._table.topic, number, self._find(schema_id).formatted("resolved"))
        return None
