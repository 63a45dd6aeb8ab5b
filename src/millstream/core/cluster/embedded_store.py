"""The metadata of a single node in one SQLite file, beside its logs; it keeps what `store.MetadataStore` promises.

    meta           key, value          version, cluster_id, controller_id, next_producer_id, format
    topic          id, name, partitions, configs     one row a topic; texts as codec.py says
    broker         id, description
    broker_config  broker, name, value
    group_config   group_id, name, value
    deleted_topic  number, id          the topics deleted last, at most DELETED_TOPICS_MAX
    change         version, token, operations        the last CHANGES_MAX commits

A commit is one transaction of a few rows, however large the cluster is; nothing rewrites the whole state. The journal
is a write-ahead log with a sync per commit (synchronous=FULL), so a commit that was answered survives a crash of the
machine. All of SQLite runs on one thread of this store's own; the event loop only hands over and awaits.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from millstream.core.cluster import codec
from millstream.core.cluster import operations as ops
from millstream.core.cluster.image import DELETED_TOPICS_MAX, ClusterImage
from millstream.core.cluster.store import Change, ChangesGoneError, CommitResult, SessionLostError, StoreWriteError

T = TypeVar("T")

FILE_NAME: Final = "millstream-metadata.sqlite"
FORMAT: Final = "1"
CHANGES_MAX: Final = 1000
CHANGE_SIZE_BYTES_MAX: Final = 256 * 1024  # a larger commit is kept without its operations: holders load the image
BUSY_TIMEOUT_S: Final = 30.0  # another session's sync on a disk that is busy takes seconds
BUSY_PAUSE_S: Final = 0.005

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE IF NOT EXISTS topic"
        " (id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions TEXT NOT NULL, configs TEXT NOT NULL)"
    ),
    "CREATE TABLE IF NOT EXISTS broker (id INTEGER PRIMARY KEY, description TEXT NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS broker_config"
        " (broker TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (broker, name)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE IF NOT EXISTS group_config"
        " (group_id TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (group_id, name)) WITHOUT ROWID"
    ),
    "CREATE TABLE IF NOT EXISTS deleted_topic (number INTEGER PRIMARY KEY, id BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS change (version INTEGER PRIMARY KEY, token BLOB NOT NULL, operations TEXT)",
)


class EmbeddedStore:
    """One session on the SQLite file at `path`, made when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metadata-store")
        # Opened by the first call, on the thread; used there only.
        self._connection: sqlite3.Connection | None = None
        self._session_lost = False

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    @property
    def session_lost(self) -> bool:
        """Whether the session has ended, by close or by an error of the disk."""
        return self._session_lost

    async def load(self) -> tuple[ClusterImage, int]:
        """Return the whole image and its version; raises CorruptMetadataError if the file is no store of ours."""
        image = await self._run(self._load)
        return image, image.version

    async def commit(self, expected_version: int, operations: Sequence[ops.Operation], *, token: bytes) -> CommitResult:
        """Commit as the protocol says. An error of the disk at the commit itself ends the session: UNKNOWN."""
        return await self._run(lambda connection: self._commit(connection, expected_version, operations, token))

    async def changes(self, from_version: int) -> Sequence[Change]:
        """Return the commits after `from_version`; raises ChangesGoneError."""
        return await self._run(lambda connection: _changes(connection, from_version))

    async def close(self) -> None:
        """Close the file; after a clean close no journal is left beside it."""
        self._session_lost = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._session_lost:
            raise SessionLostError(f"{self._path}: the session has ended")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._open()))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = None
            try:
                connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                _use_write_ahead_log(connection)
                connection.execute("PRAGMA synchronous=FULL")
                # One transaction: the tables are there all or none, for one sync.
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?), ('version', '0')", (FORMAT,))
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                raise codec.CorruptMetadataError(
                    f"{self._path}: cannot be opened as a metadata store: {error}"
                ) from error
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self, connection: sqlite3.Connection) -> ClusterImage:
        connection.execute("BEGIN")
        try:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if meta["format"] != FORMAT:
                raise codec.CorruptMetadataError(
                    f"{self._path}: written in format {meta['format']}; this program reads format {FORMAT}"
                )
            read = codec.TopicReader().topic
            topics = [
                read(name, topic_id, partitions, configs)
                for topic_id, name, partitions, configs in connection.execute(
                    "SELECT id, name, partitions, configs FROM topic"
                )
            ]
            brokers = [codec.broker_from_text(text) for (text,) in connection.execute("SELECT description FROM broker")]
            broker_configs: dict[str, dict[str, str]] = {}
            for broker, name, value in connection.execute("SELECT broker, name, value FROM broker_config"):
                broker_configs.setdefault(broker, {})[name] = value
            group_configs: dict[str, dict[str, str]] = {}
            for group_id, name, value in connection.execute("SELECT group_id, name, value FROM group_config"):
                group_configs.setdefault(group_id, {})[name] = value
            deleted = [topic_id for (topic_id,) in connection.execute("SELECT id FROM deleted_topic ORDER BY number")]
        except sqlite3.Error as error:
            raise codec.CorruptMetadataError(f"{self._path}: {error}") from error
        finally:
            self._roll_back(connection)
        return ClusterImage.of(
            topics,
            version=int(meta["version"]),
            cluster_id=meta.get("cluster_id", ""),
            controller_id=int(meta.get("controller_id", "-1")),
            brokers={broker.node_id: broker for broker in brokers},
            broker_configs=broker_configs,
            group_configs=group_configs,
            next_producer_id=int(meta.get("next_producer_id", "0")),
            deleted_topics=deleted,
        )

    def _commit(
        self, connection: sqlite3.Connection, expected_version: int, operations: Sequence[ops.Operation], token: bytes
    ) -> CommitResult:
        try:
            connection.execute("BEGIN IMMEDIATE")
            version = _version(connection)
            if version != expected_version:
                connection.execute("ROLLBACK")
                return CommitResult.CONFLICT
            for operation in operations:
                _apply(connection, operation)
            _append_change(connection, version + 1, token, operations)
        except sqlite3.Error as error:
            self._roll_back(connection)
            raise StoreWriteError(f"{self._path}: {error}") from error
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            # A full disk stops before the commit mark is written, so nothing happened. After a failed sync nobody
            # knows what the disk will show after a crash, and another try must not follow on the same file handle.
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise StoreWriteError(f"{self._path}: {error}") from error
            self._session_lost = True
            self._close()
            return CommitResult.UNKNOWN
        return CommitResult.COMMITTED

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Make the file one with a write-ahead log, which whoever opens it first does and the others find.

    SQLite changes it by an upgrade of a lock that it holds already. Its busy timeout does not cover that, since two
    who wait for each other there would wait for ever: of two sessions that open a new file at once, one is refused on
    the spot, and so is whoever opens it while the last session closes it. The lock is let go by then: try again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0])


def _set_meta(connection: sqlite3.Connection, key: str, value: object) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))


def _alter_configs(
    connection: sqlite3.Connection, table: str, key: str, of: str, changes: Mapping[str, str | None]
) -> None:
    for name, value in changes.items():
        if value is None:
            connection.execute(f"DELETE FROM {table} WHERE {key} = ? AND name = ?", (of, name))  # noqa: S608  our names
        else:
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", (of, name, value))  # noqa: S608


def _append_change(
    connection: sqlite3.Connection, version: int, token: bytes, operations: Sequence[ops.Operation]
) -> None:
    text: str | None = codec.operations_text(operations)
    if text is not None and len(text) > CHANGE_SIZE_BYTES_MAX:
        text = None
    connection.execute("INSERT INTO change VALUES (?, ?, ?)", (version, token, text))
    connection.execute("DELETE FROM change WHERE version <= ?", (version - CHANGES_MAX,))
    _set_meta(connection, "version", version)


def _changes(connection: sqlite3.Connection, from_version: int) -> list[Change]:
    rows = connection.execute(
        "SELECT version, token, operations FROM change WHERE version > ? ORDER BY version", (from_version,)
    ).fetchall()
    held_from = rows[0][0] if rows else _version(connection) + 1
    if held_from > from_version + 1 or any(text is None for _, _, text in rows):
        raise ChangesGoneError(f"the changes after version {from_version} are not held any more")
    return [Change(version, token, codec.operations_from_text(text)) for version, token, text in rows]


def _apply(connection: sqlite3.Connection, operation: ops.Operation) -> None:
    match operation:
        case ops.CreateTopic(topic):
            connection.execute(
                "INSERT INTO topic VALUES (?, ?, ?, ?)",
                (
                    topic.topic_id,
                    topic.name,
                    codec.partitions_text(topic.partitions),
                    codec.configs_text(topic.configs),
                ),
            )
        case ops.DeleteTopic(topic_id):
            connection.execute("DELETE FROM topic WHERE id = ?", (topic_id,))
            number = connection.execute("INSERT INTO deleted_topic (id) VALUES (?)", (topic_id,)).lastrowid
            connection.execute("DELETE FROM deleted_topic WHERE number <= ? - ?", (number, DELETED_TOPICS_MAX))
        case ops.AddPartitions(topic_id, _, partitions):
            _update_partitions(connection, topic_id, lambda states: (*states, *partitions))
        case ops.ChangePartitions(topic_id, changed):
            _update_partitions(
                connection,
                topic_id,
                lambda states: tuple(changed.get(index, state) for index, state in enumerate(states)),
            )
        case ops.AlterTopicConfigs(topic_id, changes):
            (text,) = connection.execute("SELECT configs FROM topic WHERE id = ?", (topic_id,)).fetchone()
            configs = codec.altered_configs_text(text, changes)
            connection.execute("UPDATE topic SET configs = ? WHERE id = ?", (configs, topic_id))
        case ops.AlterBrokerConfigs(broker, changes):
            _alter_configs(connection, "broker_config", "broker", broker, changes)
        case ops.AlterGroupConfigs(group_id, changes):
            _alter_configs(connection, "group_config", "group_id", group_id, changes)
        case ops.AdvanceProducerIds(next_producer_id):
            _set_meta(connection, "next_producer_id", next_producer_id)
        case ops.RegisterBroker(broker_image):
            connection.execute(
                "INSERT OR REPLACE INTO broker VALUES (?, ?)", (broker_image.node_id, codec.broker_text(broker_image))
            )
        case ops.UnregisterBroker(node_id):
            connection.execute("DELETE FROM broker WHERE id = ?", (node_id,))
        case ops.SetCluster(cluster_id, controller_id):
            _set_meta(connection, "cluster_id", cluster_id)
            _set_meta(connection, "controller_id", controller_id)


def _update_partitions(
    connection: sqlite3.Connection, topic_id: bytes, change: Callable[[codec.States], codec.States]
) -> None:
    (text,) = connection.execute("SELECT partitions FROM topic WHERE id = ?", (topic_id,)).fetchone()
    states = change(codec.partitions_from_text(text))
    connection.execute("UPDATE topic SET partitions = ? WHERE id = ?", (codec.partitions_text(states), topic_id))
