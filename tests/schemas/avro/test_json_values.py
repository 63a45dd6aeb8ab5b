"""JSON values to Arrow: each value one row or one error, whatever its neighbours are."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.avro import DecodedTooLargeError, JsonDecoder

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("tags", pa.list_(pa.string()))])
BAD = [
    b"",
    b"  ",
    b"{",
    b"}",
    b"[1]",
    b"5",
    b'{"id": 1}{"id": 2}',
    b'{"id": 1}\n{"id": 2}',
    b'{"id": "x"}',
    b'{"name": "}',
    b"\xff",
]

objects = st.fixed_dictionaries(
    {}, optional={"id": st.integers(-(2**63), 2**63 - 1), "name": st.none() | st.text(), "more": st.booleans()}
)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(objects | st.sampled_from(BAD) | st.none(), max_size=12), indent=st.sampled_from([None, 1]))
def test_each_value_is_a_row_an_error_or_null(rows: list[Any], indent: int | None) -> None:
    values = [json.dumps(row, indent=indent).encode() if isinstance(row, dict) else row for row in rows]

    decoded = JsonDecoder(SCHEMA).decode(pa.array(values, pa.binary()))

    good = [number for number, row in enumerate(rows) if isinstance(row, dict)]
    assert (decoded.rows.to_pylist() if decoded.rows is not None else list(range(len(rows)))) == good
    assert [error.row for error in decoded.errors] == [at for at, row in enumerate(rows) if isinstance(row, bytes)]
    expected = [{"id": rows[at].get("id"), "name": rows[at].get("name"), "tags": None} for at in good]
    assert decoded.batch.to_pylist() == expected
    assert decoded.batch.schema == SCHEMA


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "x"}', "changed from number to string"),
        (b'{"id": 1.5}', "Failed to convert JSON to int64"),
        (b'{"id": 1}{"id": 2}', "2 JSON objects instead of one"),
        (b'{"id": 1,}', "Missing a name for object member"),
    ],
)
def test_attempts_are_few(bad: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0
    read_json = pyarrow.json.read_json

    def counted(*arguments: Any, **options: Any) -> pa.Table:
        nonlocal attempts
        attempts += 1
        return read_json(*arguments, **options)

    monkeypatch.setattr("pyarrow.json.read_json", counted)
    for every, attempts_max in ((1, 1.1), (2, 4.1), (250, 20)):
        attempts = 0
        values = [bad if row % every == 0 else b'{"id": 5}' for row in range(1_000)]
        decoded = JsonDecoder(SCHEMA).decode(pa.array(values))
        assert [error.row for error in decoded.errors] == list(range(0, 1_000, every))
        assert all(reason in error.reason and "in row" not in error.reason for error in decoded.errors)
        assert decoded.batch.num_rows == 1_000 - len(decoded.errors)
        assert attempts <= attempts_max * len(decoded.errors) + 30, (every, attempts)


def test_reasons() -> None:
    decoded = JsonDecoder(SCHEMA).decode(pa.chunked_array([[b'{"id": 1}{"id": 2}'], [b'{"tags": ["a"]}', b"7"]]))
    assert decoded.batch.to_pylist() == [{"id": None, "name": None, "tags": ["a"]}]
    assert "2 JSON objects instead of one" in decoded.errors[0].reason
    assert "does not begin as a JSON object" in decoded.errors[1].reason


def test_a_number_that_its_type_cannot_hold_is_an_error_of_its_row() -> None:
    point = pa.struct([("x", pa.float32()), ("y", pa.list_(pa.float64()))])
    schema = pa.schema([("one", pa.float32()), ("point", point)])
    values = [b"{}", b'{"one": 1e39}', b'{"point": {"x": 1e38}}', b'{"point": {"x": 1e39}}']
    values += [b'{"point": {"y": [1e300, null]}}', b'{"point": {"y": [-1e400]}}', b'{"one": -1e300}']

    decoded = JsonDecoder(schema).decode(pa.array(values))

    assert [error.row for error in decoded.errors] == [1, 3, 5, 6]
    assert {error.reason for error in decoded.errors} == {
        "one has a number that is more than its type holds",
        "point has a number that is more than its type holds",
        "JSON parse error: Number too big to be stored in double.",
    }
    assert decoded.batch.num_rows == 3


def test_what_pyarrow_takes_and_is_no_json_is_an_error_of_its_row() -> None:
    schema = pa.schema(
        [("name", pa.string()), ("one", pa.float64()), ("inner", pa.struct([("of", pa.list_(pa.float64()))]))]
    )
    values = [b'{"name": "\xff"}', None, b'{"name": "\xc3\xbc"}', b'{"one": NaN}', b'{"name": "\xed\xa0\x80"}', b"{}"]
    values += [b'{"inner": {"of": [1, NaN]}}', b'{"other": "\xff"}', b'{"one": 1}']

    decoded = JsonDecoder(schema).decode(pa.array(values))

    assert [(error.row, error.reason) for error in decoded.errors] == [
        (0, "the value is no UTF-8: byte 10"),
        (3, "one has NaN, which is no number of JSON"),
        (4, "the value is no UTF-8: byte 10"),
        (6, "inner has NaN, which is no number of JSON"),
        (7, "the value is no UTF-8: byte 11"),
    ]
    assert decoded.rows is not None
    assert decoded.rows.to_pylist() == [2, 5, 8]
    decoded.batch.validate(full=True)
    assert decoded.batch.column("name").to_pylist() == ["ü", None, None]


def test_values_do_not_slip_into_each_other() -> None:
    # The first two make one object together, the last is two: as many as there are values.
    values = [b'{"id": 1, "meta":', b'{"id": 2}}', b'{"id": 3}{"id": 4}', b'{"id": 5}']
    decoded = JsonDecoder(SCHEMA).decode(pa.array(values))
    assert [row["id"] for row in decoded.batch.to_pylist()] == [5]
    assert [error.row for error in decoded.errors] == [0, 1, 2]
    assert "does not end as a JSON object" in decoded.errors[0].reason


def test_more_than_one_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # As pyarrow leaves text of over 2 GiB.
    chunked = pa.table({"id": pa.chunked_array([[1], [2]])})
    monkeypatch.setattr("pyarrow.concat_tables", lambda _tables: SimpleNamespace(combine_chunks=lambda: chunked))
    with pytest.raises(DecodedTooLargeError, match="decode fewer values at once"):
        JsonDecoder(SCHEMA).decode(pa.array([b'{"id": 1}', b'{"id": 2}']))
