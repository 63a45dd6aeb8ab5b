"""[value], [key], [bad_records]: how records are read, and what becomes of those that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from millstream.hadoop_loader.job.setting import setting

FORMATS: Final = ("avro", "json", "protobuf", "raw")
SCHEMA_BYTES_MAX: Final = 4 * 1024 * 1024
METADATA_COLUMNS: Final = (
    "topic",
    "partition",
    "offset",
    "timestamp",
    "timestamp_type",
    "key",
    "headers",
    "leader_epoch",
    "schema_id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSettings:
    """How the bytes of values (or keys) are read."""

    format: str = setting(
        "`avro`, `json` and `protobuf` become columns, `raw` one column of bytes. A key is one column: `avro` and"
        " `protobuf` what its schema says, a struct for a record; `json` its text, `raw` its bytes; `none`: left out.",
        default="avro",
        choices=(*FORMATS, "none"),
    )
    framing: str = setting(
        "`registry`: each value names its schema by the id in Confluent's five bytes before it, or by a GUID or id in"
        " the header `__value_schema_id` (of keys `__key_schema_id`); `none`: nothing is before the data, and"
        " `schema_file` says what it is (JSON may go without: it becomes one column of text).",
        default="registry",
        choices=("registry", "none"),
    )
    schema_file: str | None = setting(
        "Where framing is `none`, and for keys of Protobuf always: the file with the schema, an `.avsc` for Avro and"
        " JSON, a `.proto` for Protobuf. Where it is given for keys of Avro under the registry, all are read to it."
        " A relative path starts at the job file.",
        default=None,
    )
    schema: str | None = setting(
        "The schema itself, instead of `schema_file`. A run reads the file once, so that every worker has its text.",
        default=None,
    )
    message: str | None = setting(
        "Of Protobuf: the message's name, in the `.proto` of `schema_file`. Values under the registry name their"
        " messages themselves, and each has a table of its own; with this they are bad records where it is another.",
        default=None,
    )
    column: str | None = setting(
        "Name of the column of `raw`, of JSON as text, and of keys; `value` and `key` otherwise.", default=None
    )

    @property
    def takes_registered_schemas(self) -> bool:
        """Of keys: whether the schemas that they name in the registry, and no other, say what they are."""
        return self.format == "avro" and self.framing == "registry" and self.schema is None and self.schema_file is None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecords:
    """What becomes of records that cannot be read: too short, an unknown schema, no datum of it, no time or field."""

    max_bad_records: int | None = setting(
        "With more than so many in one run a topic is stopped, with nothing of it committed; 0: with the first one.",
        default=1000,
        at_least=0,
    )
    policy: str = setting(
        "`dead_letters` keeps them with their topic, partition, offset and error under `_dead_letters`; `skip` only"
        " counts them in the report and the audit.",
        default="dead_letters",
        choices=("dead_letters", "skip"),
    )
