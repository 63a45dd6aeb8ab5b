"""bench/broker.py when it is ended early."""

from pathlib import Path

import pytest
from bench.broker import Bench, Settings
from bench.load.brokers import Kafka, Millstream
from bench.load.report import Measured


@pytest.mark.parametrize(
    ("rounds", "kept"),
    [
        ("m k k m", ["first", "second"]),
        ("m k k", ["first"]),
        ("m k", ["first"]),
        ("m", ["first"]),
        ("", ["first"]),
    ],
)
def test_a_row_that_is_not_whole_is_left_out(tmp_path: Path, rounds: str, kept: list[str]) -> None:
    bench = Bench(Settings(rounds=3), [Millstream(tmp_path / "m"), Kafka(tmp_path / "k")], tmp_path)
    names = {"m": "millstream", "k": "kafka"}
    for row, brokers in (("first", "m k k m m k"), ("second", rounds)):
        bench.measured += [Measured(row, names[broker], 0, {"x": 1.0}) for broker in brokers.split()]
    bench.keep_whole_rows()
    assert list(dict.fromkeys(each.row for each in bench.measured)) == kept
