"""The asyncio faces against Millstream and Apache Kafka, and what importing them loads."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import millstream
from millstream import TopicPartition, aio

DEADLINE_S = 90.0


async def test_tables_are_sent_and_batches_come(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    topic = make_topic(2)
    rows = 30_000
    table = pa.table({"key": [f"k{row}" for row in range(rows)], "value": [b"x" * 100] * rows})
    async with aio.Producer(bootstrap) as producer:
        metadata = await (await producer.send_batch(topic, table))
        one = await (await producer.send_batch(topic, {"value": ["last"]}, partition=0))
    assert metadata.num_records == rows
    assert set(metadata.offsets) == {0, 1}
    assert [len(span) for span in one.offsets[0]] == [1]
    async with aio.Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
        keys: set[str] = set()
        count = 0
        async with asyncio.timeout(DEADLINE_S):
            async for batch in consumer.batches(views=True):
                batch.validate(full=True)
                count += batch.num_rows
                keys.update((key or b"").decode() for key in batch["key"].to_pylist())
                del batch
                if count == rows + 1:
                    break
        assert keys == {*table["key"].to_pylist(), ""}
        assert (await consumer.poll_arrow(0.0)).num_rows == 0
        for tp in consumer.assignment():
            consumer.seek(tp, 0)
        assert (await consumer.poll_arrow(DEADLINE_S, 7)).num_rows == 7


async def test_a_cancelled_poll_loses_nothing(
    bootstrap: str, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(1)
    async with aio.Producer(bootstrap) as producer:
        await (await producer.send_batch(topic, {"value": list("abc")}))
    tp = TopicPartition(topic, 0)

    def cancelled(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    async with aio.Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        with monkeypatch.context() as patch:
            patch.setattr("millstream.core.columns.gathering.gather", cancelled)
            with pytest.raises(asyncio.CancelledError):
                await consumer.poll_arrow(DEADLINE_S)
        assert consumer.position(tp) == 0
        assert (await consumer.poll_arrow(DEADLINE_S))["value"].to_pylist() == [b"a", b"b", b"c"]


async def test_a_cancelled_poll_keeps_the_end_that_was_set(
    bootstrap: str, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(2)
    ranged, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with aio.Producer(bootstrap) as producer:
        for value in "abc":
            await (await producer.send_batch(topic, {"value": [value]}, partition=0))
        await (await producer.send_batch(topic, {"value": ["other"]}, partition=1))

    def cancelled(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    async with aio.Consumer(bootstrap) as consumer:
        consumer.assign([ranged, other])
        consumer.pause(other)
        consumer.seek(ranged, 0, until=2)
        consumer.seek(other, 0)
        with monkeypatch.context() as patch:
            patch.setattr("millstream.core.columns.gathering.gather", cancelled)
            with pytest.raises(asyncio.CancelledError):
                await consumer.poll_arrow(DEADLINE_S)
        found: list[bytes] = []
        while len(found) < 2:
            found += (await consumer.poll_arrow(DEADLINE_S))["value"].to_pylist()
        consumer.resume(other)
        found += (await consumer.poll_arrow(DEADLINE_S))["value"].to_pylist()
        assert found == [b"a", b"b", b"other"]


LOADED = """
import sys
import millstream
assert not [name for name in sys.modules if name.startswith("millstream.")], "the root package loads its parts"
{statement}
print("pyarrow" in sys.modules)
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import millstream.core.broker.broker",
        "import millstream.cli",
        "from millstream import Admin, Consumer, KafkaError, Producer, TopicPartition",
        "import millstream.aio",
    ],
)
def test_arrow_is_loaded_only_where_it_is_used(statement: str) -> None:
    code = LOADED.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "False\n", done.stderr


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    for name in millstream._HOMES:
        assert getattr(millstream, name).__name__ == name
    assert set(millstream._HOMES) <= set(dir(millstream))
    stub = ast.parse(Path(millstream.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imported = {
        (alias.asname, node.module)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert imported == set(millstream._HOMES.items())
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        millstream.Nothing  # type: ignore[attr-defined]  # noqa: B018
