"""Decimals that do not keep to their precision, from bytes: in all formats a row, or in all a dead letter.

A datum is copied, encoded anew, or becomes columns, by what a job writes and who else wrote at the time. None of it
decides what is bad.
"""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.avro_schemas import written
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.tables import merge
from millstream.testing import TestBroker

_numbers = itertools.count()
OLD, NEW = 1, 2
FORMATS: Final = [{"avro"}, {"parquet"}, {"avro", "parquet"}]


def decimal(precision: int, **type_: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2, **type_}


def as_bytes(number: int) -> bytes:
    return written("bytes", number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def as_fixed(number: int) -> bytes:
    return number.to_bytes(4, "big", signed=True)


def listed(number: int) -> bytes:
    return b"\2\2" + as_bytes(number) + b"\0"


def nested(number: int) -> bytes:
    return as_bytes(1) + b"\2" + as_bytes(number) + b"\0"


NODE: Final = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "d", "type": decimal(4)}, {"name": "next", "type": ["null", "Node"]}],
}


def schemas(old: Any, new: Any) -> dict[int, str]:
    """The writers': records of the newer one have a note behind the decimal."""
    note = {"name": "note", "type": "string", "default": ""}
    fields = {
        number: [{"name": "id", "type": "long"}, {"name": "d", "type": one}] for number, one in ((OLD, old), (NEW, new))
    }
    fields[NEW].append(note)
    return {number: json.dumps({"type": "record", "name": "V", "fields": one}) for number, one in fields.items()}


def value(writer: int, id_: int, content: bytes) -> bytes:
    note = written("string", "n") if writer == NEW else b""
    return b"\0" + writer.to_bytes(4, "big") + written("long", id_) + content + note


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> SplitTopic:
    return SplitTopic(millstream_broker_session.bootstrap_servers, f"decimals-{next(_numbers)}", tmp_path)


@pytest.mark.parametrize("writers", [(NEW,), (OLD, NEW)], ids=["as they came", "anew"])
@pytest.mark.parametrize(
    ("old", "new", "encode", "digits"),
    [
        (decimal(4), decimal(4), as_bytes, 4),
        (decimal(4), decimal(6), as_bytes, None),
        (fixed := decimal(4, type="fixed", name="F", size=4), fixed, as_fixed, 4),
        (decimal(50), decimal(50), as_bytes, 50),
        (many := {"type": "array", "items": ["null", decimal(4)]}, many, listed, 4),
        (NODE, NODE, nested, 4),
    ],
    ids=["bytes", "of more digits since", "fixed", "of 50 digits", "in a list", "in a type that holds itself"],
)
def test_too_many_digits_are_bad_in_every_format(
    topic: SplitTopic, writers: tuple[int, ...], old: Any, new: Any, encode: Any, digits: int | None
) -> None:
    of_writer = {OLD: digits or 4, NEW: digits or 6}
    numbers = {one: (10 ** of_writer[one] - 1, 10 ** of_writer[one], -(10 ** of_writer[one])) for one in writers}
    sent = [(one, number) for one in writers for number in numbers[one]]
    topic.send([Record(value(one, at, encode(number))) for at, (one, number) in enumerate(sent)])
    table = merge(None, schemas(old, new), topic=topic.name).version
    assert [one.name for one in table.tables()] == [topic.name]
    good = [at for at, (one, number) in enumerate(sent) if abs(number) < 10 ** of_writer[one]]

    for formats in FORMATS:
        done = topic.run(topic.job(formats=formats), table)

        for written_ in formats:
            rows = [row for _, row in done.rows(written_)]
            assert [row["id"] for row in rows] == good
            if written_ == "avro" and encode in (as_bytes, as_fixed):
                assert [row["d"] for row in rows] == [Decimal(f"{sent[at][1]}e-2") for at in good]
        letters = done.dead_letters()
        assert [letter["offset"] for letter in letters] == [at for at in range(len(sent)) if at not in good]
        assert all("it has more digits than its precision" in letter["error"] for letter in letters)


@pytest.mark.parametrize("writers", [(NEW,), (OLD, NEW)], ids=["as they came", "anew"])
def test_what_parquet_has_as_numbers_is_bad_in_no_format(topic: SplitTopic, writers: tuple[int, ...]) -> None:
    """Times of day are numbers there: one beyond the day is a row, be it copied or encoded anew."""
    time = {"type": "int", "logicalType": "time-millis"}
    sent = [value(one, one, written("int", 86_400_001)) for one in writers]
    topic.send([Record(one) for one in sent])
    table = merge(None, schemas(time, time), topic=topic.name).version

    for formats in FORMATS:
        done = topic.run(topic.job(formats=formats), table)

        assert done.dead_letters() == []
        for written_ in formats:
            assert sum(file.rows for file in done.files(written_)) == len(sent)
