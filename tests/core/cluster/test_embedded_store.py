"""EmbeddedStore: the conformance kit, crashes, and what a real file system does to it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.metadata_store_kit import STORY, MetadataStoreConformance, topic

from millstream.core.cluster import (
    AdvanceProducerIds,
    ChangesGoneError,
    ClusterMetadata,
    CommitResult,
    CreateTopic,
    EmbeddedStore,
    MetadataStore,
    PartitionState,
    RegisterBroker,
    StoreWriteError,
    TopicImage,
    embedded_store,
)
from millstream.core.cluster.codec import CorruptMetadataError
from millstream.core.cluster.image import BrokerImage
from millstream.core.cluster.topics import TopicDefaults, plan_create_topic


class TestConformance(MetadataStoreConformance):
    """The kit on SQLite files."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], MetadataStore]:
        return lambda: EmbeddedStore(tmp_path / "metadata.sqlite")

    @pytest.fixture
    def changes_max(self, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(embedded_store, "CHANGES_MAX", 20)
        return 20


COMMITTER = """
import asyncio, sys
from pathlib import Path
from millstream.core.cluster import ClusterMetadata, EmbeddedStore

async def main():
    metadata = ClusterMetadata(EmbeddedStore(Path(sys.argv[1])))
    await metadata.start()
    while True:
        block = await metadata.allocate_producer_ids()
        print(block.first_id, flush=True)

asyncio.run(main())
"""


def killed_rounds(path: Path, delays_s: list[float]) -> list[int]:
    """Let a child allocate producer ids and kill it, several times; return the first id of each block it was given."""
    given: list[int] = []
    for delay_s in delays_s:
        child = subprocess.Popen([sys.executable, "-c", COMMITTER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        given.append(int(child.stdout.readline()))
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline:
            given.append(int(child.stdout.readline()))
        os.kill(child.pid, signal.SIGKILL)
        given += [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
    return given


@pytest.mark.parametrize("seed", range(4))
async def test_kill_9_takes_nothing_back_that_was_answered(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "metadata.sqlite"
    rounds = 3

    given = await asyncio.to_thread(killed_rounds, path, random.Random(seed).choices([0.001, 0.005, 0.02], k=rounds))

    assert given == sorted(set(given)), "a producer id block was given twice"
    store = EmbeddedStore(path)
    image, version = await store.load()
    await store.close()
    # A block that was stored and not answered any more is never used: at most one of each round.
    assert len(given) * 1000 <= image.next_producer_id <= (len(given) + rounds) * 1000
    assert version * 1000 == image.next_producer_id


async def test_a_clean_close_leaves_one_file(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    await store.commit(0, STORY[0], token=b"")
    await store.close()
    assert [entry.name for entry in os.scandir(tmp_path)] == ["metadata.sqlite"]


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    await store.load()
    settings = await store._run(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )
    await store.close()
    assert settings == ["wal", 2]


async def test_a_full_disk_refuses_the_commit_and_the_session_lives_on(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    await store.commit(0, [CreateTopic(topic("before"))], token=b"")
    pages = await store._run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await store._run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))

    with pytest.raises(StoreWriteError, match="full"):
        await store.commit(1, [CreateTopic(topic("wide", 1, text="x" * 100_000))], token=b"")

    assert not store.session_lost
    await store._run(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    assert await store.commit(1, [CreateTopic(topic("after"))], token=b"") is CommitResult.COMMITTED
    image, _ = await store.load()
    await store.close()
    assert sorted(image.topics) == ["after", "before"]


async def test_an_error_at_the_commit_itself_is_unknown_and_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = False

    class FailingConnection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if failing and sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            return super().execute(sql, *parameters)

    path = tmp_path / "metadata.sqlite"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=FailingConnection))
    store = EmbeddedStore(path)
    await store.load()
    failing = True

    assert await store.commit(0, [AdvanceProducerIds(1000)], token=b"") is CommitResult.UNKNOWN

    assert store.session_lost
    await store.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"\x00" * 4096 * 2 + b"x"])
async def test_a_file_that_is_no_store_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metadata.sqlite"
    path.write_bytes(content)
    store = EmbeddedStore(path)
    with pytest.raises(CorruptMetadataError, match=str(path)):
        await store.load()
    await store.close()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    await store._run(lambda connection: connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'"))
    with pytest.raises(CorruptMetadataError, match="format 2"):
        await store.load()
    await store.close()


async def test_a_commit_writes_rows_for_what_it_changes_and_no_more(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    state = PartitionState(1, 0, (1,), (1,), 0)
    topics = [
        TopicImage(f"topic-{n}", n.to_bytes(16, "big"), (state,), {"retention.ms": str(n)}) for n in range(20_000)
    ]
    await store.commit(0, [RegisterBroker(BrokerImage(1, ())), *map(CreateTopic, topics)], token=b"")
    metadata = ClusterMetadata(store)
    assert len((await metadata.start()).topics) == 20_000

    before = await store._run(lambda connection: connection.total_changes)
    await metadata.commit(partial(plan_create_topic, name="new", defaults=TopicDefaults(1, 1)))
    after = await store._run(lambda connection: connection.total_changes)

    assert len(metadata.image.topics) == 20_001
    # The topic, the version, the change and its token; a change log at its bound also drops a row.
    assert after - before < 10
    await metadata.close()


async def test_a_large_commit_is_told_by_the_image_alone(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.sqlite")
    await store.commit(0, [CreateTopic(topic("wide", text="x" * embedded_store.CHANGE_SIZE_BYTES_MAX))], token=b"")
    with pytest.raises(ChangesGoneError):
        await store.changes(0)
    assert await store.changes(1) == []
    await store.close()
