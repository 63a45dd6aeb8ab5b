"""Avro and Arrow against fastavro, polars and datafusion on the same records.

    python -m bench.avro [--rounds N] [--only "8 flat"]
    python -m bench.avro --write-doc docs/performance.md    put the table into its section of the page

Rates are records per second of CPU time, medians of rounds in which all take turns. The others read an Avro container
file (uncompressed, in memory or from a file in the page cache) with the same datums; ours reads framed values.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
from bench.load import report
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from millstream.schemas.avro import AvroDecoder, AvroEncoder, AvroValidator, JsonDecoder, avro_to_arrow_schema
from millstream.schemas.parsing import parse
from millstream.schemas.protobuf import ProtobufDecoder
from millstream.schemas.protobuf.layout import descriptor_of

ROWS = 200_000
FASTAVRO_ROWS = 10_000
ROUNDS = 9
SECTION = "avro"

FLAT = {
    "type": "record",
    "name": "Flat",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "city", "type": "string"},
        {"name": "count", "type": "int"},
        {"name": "total", "type": "long"},
        {"name": "price", "type": "double"},
    ],
}
LOADER = {
    "type": "record",
    "name": "Loaded",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "user", "type": "string"},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["VIEW", "CLICK", "BUY", "RETURN"]},
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "referrer", "type": ["null", "string"], "default": None},
        {"name": "score", "type": ["null", "double"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "count", "type": "int"},
        {"name": "is_new", "type": "boolean"},
        {"name": "city", "type": "string"},
    ],
}
# What a table may have become: a field dropped, one promoted, one renamed, one added, two changed places.
LOADER_READER = {
    "type": "record",
    "name": "Loaded",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string", "aliases": ["user"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["BUY", "CLICK", "VIEW", "OTHER"], "default": "OTHER"},
        },
        {"name": "referrer", "type": ["null", "string"], "default": None},
        {"name": "score", "type": ["null", "double"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "count", "type": "long"},
        {"name": "city", "type": ["null", "string"]},
        {"name": "channel", "type": "string", "default": "web"},
    ],
}
NESTED = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [
                        {"name": "sku", "type": "string"},
                        {"name": "quantity", "type": "int"},
                        {"name": "price", "type": "double"},
                    ],
                },
            },
        },
        {"name": "labels", "type": {"type": "map", "values": "string"}},
    ],
}
CITIES = ["Amsterdam", "Berlin", "San Francisco", "Rome", "Łódź"]


def flat_record(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "id": 10_000_000 + number,
        "name": f"customer-{chance.randrange(10**6, 10**8)}",
        "note": None if chance.random() < 0.3 else f"a note of {chance.randrange(10**6)}",
        "at": 1_700_000_000_000 + chance.randrange(10**9),
        "city": chance.choice(CITIES[:4]),
        "count": chance.randrange(-1000, 100_000),
        "total": chance.randrange(10**12),
        "price": chance.random(),
    }


def loaded_record(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "id": 10_000_000 + number,
        "user": f"user-{chance.randrange(10**6, 10**8)}",
        "kind": chance.choice(["VIEW", "CLICK", "BUY", "RETURN"]),
        "at": 1_700_000_000_000_000 + chance.randrange(10**12),
        "referrer": None if chance.random() < 0.5 else "https://example.org/",
        "score": None if chance.random() < 0.2 else chance.random(),
        "tags": [f"tag{chance.randrange(100)}" for _ in range(chance.randrange(4))],
        "count": chance.randrange(1000),
        "is_new": chance.random() < 0.1,
        "city": chance.choice(CITIES),
    }


def order(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "id": 10_000_000 + number,
        "customer": f"customer-{chance.randrange(10**6)}",
        "lines": [
            {"sku": f"sku-{chance.randrange(10**5)}", "quantity": chance.randrange(1, 10), "price": chance.random()}
            for _ in range(chance.randrange(1, 5))
        ],
        "labels": {f"key{key}": f"value{chance.randrange(10)}" for key in range(chance.randrange(3))},
    }


@dataclass
class Records:
    """The same records in the forms that each reader takes."""

    schema: dict[str, Any]
    datums: list[bytes]
    values: pa.BinaryArray
    container: bytes
    path: Path

    @property
    def text(self) -> str:
        return json.dumps(self.schema)


def make_records(schema: dict[str, Any], make: Callable[[int, random.Random], dict[str, Any]], folder: Path) -> Records:
    """Write ROWS records of a schema; many are written again, as writing them takes longer than all else."""
    chance = random.Random(1)
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    some = []
    for number in range(ROWS // 4):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, make(number, chance))
        some.append(out.getvalue())
    datums = some * 4
    out = io.BytesIO()
    fastavro.writer(out, parsed, [])
    head = out.getvalue()
    mark = head[-16:]
    blocks = [head]
    for start in range(0, len(datums), 1000):
        content = b"".join(datums[start : start + 1000])
        blocks += [_varint(len(datums[start : start + 1000])), _varint(len(content)), content, mark]
    container = b"".join(blocks)
    path = folder / f"{schema['name']}.avro"
    path.write_bytes(container)
    prefix = b"\0" + struct.pack(">i", 7)
    return Records(schema, datums, pa.array([prefix + datum for datum in datums], pa.binary()), container, path)


def _varint(number: int) -> bytes:
    raw, out = number << 1, bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


@dataclass
class Figure:
    """One row of the table: a way of reading, its rates by round, and what is asked of it."""

    work: str
    who: str
    run: Callable[[], int]
    goal: float | None = None
    rates: list[float] | None = None

    @property
    def rate(self) -> float:
        return statistics.median(self.rates or [0.0])


def others(work: str, records: Records) -> list[Figure]:
    """Return how the others read the same records."""
    import datafusion
    import polars

    parsed = fastavro.parse_schema(json.loads(records.text))

    def by_fastavro() -> int:
        for datum in records.datums[:FASTAVRO_ROWS]:
            fastavro.schemaless_reader(io.BytesIO(datum), parsed)
        return FASTAVRO_ROWS

    def by_polars() -> int:
        return polars.read_avro(io.BytesIO(records.container)).height

    def by_datafusion() -> int:
        context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
        return sum(batch.num_rows for batch in context.read_avro(str(records.path)).collect())

    figures = [Figure(work, "fastavro", by_fastavro), Figure(work, "datafusion", by_datafusion)]
    if "map" not in records.text:
        # polars panics on maps.
        figures.append(Figure(work, "polars", by_polars))
    return figures


def decoding(work: str, records: Records, goal: float, reader: dict[str, Any] | None = None) -> Figure:
    decoder = AvroDecoder({7: records.text}, json.dumps(reader or records.schema))

    def run() -> int:
        decoded = decoder.decode(records.values)
        assert not decoded.errors, decoded.errors[:1]
        return int(decoded.batch.num_rows)

    return Figure(work, "millstream", run, goal)


def from_json(work: str, schema: dict[str, Any], make: Callable[[int, random.Random], dict[str, Any]]) -> list[Figure]:
    """Return how JSON values of the same records are read, by us and by what else could have been taken."""
    import polars

    chance = random.Random(1)
    texts = [json.dumps(make(number, chance)).encode() for number in range(ROWS // 4)] * 4
    values, lines = pa.array(texts, pa.binary()), b"\n".join(texts)
    columns = avro_to_arrow_schema(json.dumps(schema))
    # Numbers, as JSON has no times; which unit they are in nobody says.
    columns = pa.schema([(one.name, pa.int64() if pa.types.is_timestamp(one.type) else one.type) for one in columns])
    decoder = JsonDecoder(columns)

    def by_us() -> int:
        decoded = decoder.decode(values)
        assert not decoded.errors, decoded.errors[:1]
        return int(decoded.batch.num_rows)

    def by_polars() -> int:
        return polars.read_ndjson(io.BytesIO(lines)).height

    def by_dicts() -> int:
        rows = [json.loads(text) for text in texts[:FASTAVRO_ROWS]]
        return int(pa.RecordBatch.from_pylist(rows, schema=columns).num_rows)

    return [
        Figure(work, "millstream", by_us),
        Figure(work, "dicts", by_dicts),
        Figure(work, "polars", by_polars),
    ]


FLAT_PROTO = """
syntax = "proto3";
message Flat {
  int64 id = 1; string name = 2; optional string note = 3; int64 at = 4; string city = 5; int32 count = 6;
  int64 total = 7; double price = 8;
}
"""


def from_protobuf(work: str) -> list[Figure]:
    """Return how Protobuf values of the same records are read, by us and message by message."""
    chance = random.Random(1)
    message = GetMessageClass(descriptor_of(parse("PROTOBUF", FLAT_PROTO), None))
    texts = [message(**flat_record(number, chance)).SerializeToString() for number in range(ROWS // 4)]
    values = pa.array(texts, pa.binary())
    decoder = ProtobufDecoder(reader_schema=FLAT_PROTO, framing="none")

    def by_us() -> int:
        decoded = decoder.decode(values)
        assert not decoded.errors, decoded.errors[:1]
        return int(decoded.batch.num_rows)

    def by_dicts() -> int:
        rows = [MessageToDict(message.FromString(text)) for text in texts[:FASTAVRO_ROWS]]
        return int(pa.RecordBatch.from_pylist(rows).num_rows)

    return [Figure(work, "millstream", by_us), Figure(work, "dicts", by_dicts)]


def make_figures(folder: Path) -> list[Figure]:
    flat = make_records(FLAT, flat_record, folder)
    loaded = make_records(LOADER, loaded_record, folder)
    nested = make_records(NESTED, order, folder)
    table = AvroDecoder({7: flat.text}, flat.text).decode(flat.values).batch
    encoder = AvroEncoder(flat.text, 7)
    validator = AvroValidator({7: flat.text})

    def encode() -> int:
        return len(encoder.encode(table))

    def validate() -> int:
        validated = validator.validate(flat.values)
        assert not validated.errors, validated.errors[:1]
        return len(flat.values)

    print(
        f"{ROWS} records; bytes a datum: "
        + ", ".join(f"{len(one.container) // ROWS}" for one in (flat, loaded, nested))
    )
    return [
        decoding("8 flat fields", flat, 20e6),
        *others("8 flat fields", flat),
        decoding("10 fields", loaded, 10e6),
        *others("10 fields", loaded),
        decoding("10 fields, resolved", loaded, 8e6, LOADER_READER),
        decoding("nested", nested, 4e6),
        *others("nested", nested),
        Figure("Arrow to Avro", "millstream", encode, 10e6),
        Figure("validating skip", "millstream", validate, 30e6),
        *from_json("8 flat fields, JSON", FLAT, flat_record),
        *from_protobuf("8 flat fields, Protobuf"),
    ]


def measure(figures: list[Figure], rounds: int) -> None:
    for figure in figures:
        figure.run()
        figure.rates = []
    for _ in range(rounds):
        for figure in figures:
            start = time.process_time()
            count = figure.run()
            assert figure.rates is not None
            figure.rates.append(count / (time.process_time() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="works whose name begins so")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = [one for one in make_figures(Path(folder)) if one.work.startswith(options.only)]
        # Apart, as what the others leave in the allocator would be the first Avro figure's to pay for.
        for is_avro in (True, False):
            measure(
                [one for one in figures if (", " not in one.work or "resolved" in one.work) == is_avro], options.rounds
            )
    ours = {figure.work: figure.rate for figure in figures if figure.who == "millstream"}
    print(f"{'work':24}{'by':12}{'M records/CPU-s':>16}{'ours is':>12}{'goal':>8}")
    for figure in figures:
        times = "" if figure.who == "millstream" else f"{ours[figure.work] / figure.rate:.1f}x"
        goal = "" if figure.goal is None else f"{figure.goal / 1e6:.0f}"
        missed = "  missed" if figure.goal and figure.rate < figure.goal else ""
        print(f"{figure.work:24}{figure.who:12}{figure.rate / 1e6:>16.2f}{times:>12}{goal:>8}{missed}")
    if options.write_doc:
        report.replace_section(options.write_doc, SECTION, "Avro and Arrow", section(figures, options.rounds))


def section(figures: list[Figure], rounds: int) -> list[str]:
    """Return the section of the page: one row for each work, a column for each reader."""
    readers = ["millstream", "fastavro", "polars", "datafusion", "dicts"]
    lines = [
        "Written by `python -m bench.avro --write-doc docs/performance.md`: millions of records in a second of CPU",
        f"time, medians of {rounds} rounds in which all take turns; {ROWS:,} records. Ours are values in Confluent's",
        "framing, the others' an uncompressed container file with the same datums. polars reads no maps. JSON: values,",
        "for polars lines; `dicts` are made by Python's own json, or by protobuf's MessageToDict, and a batch of them.",
        "",
        f"Machine: {report.machine()}.",
        "",
        report.table_row(["work", *readers, "goal"]),
        report.table_row(["---"] * (len(readers) + 2)),
    ]
    for work in dict.fromkeys(figure.work for figure in figures):
        rates = {figure.who: f"{figure.rate / 1e6:.2f}" for figure in figures if figure.work == work}
        goals = [figure.goal for figure in figures if figure.work == work and figure.goal is not None]
        cells = [rates.get(reader, "") for reader in readers]
        lines.append(report.table_row([work, *cells, f">= {goals[0] / 1e6:.0f}" if goals else ""]))
    return lines


if __name__ == "__main__":
    main()
