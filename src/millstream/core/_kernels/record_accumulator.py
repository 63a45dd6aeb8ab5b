"""The producer's accumulator: records encoded into the open batch of their partition as they are sent.

A compiled class and not a function over buffers, since a producer is called record by record. What a call does is: find
the topic, choose a partition, write the record behind the last one of its batch (the layout is in `batch_validation`;
room for the header, which the sender fills in, is left in front), and make a handle of batch and index.

**Threads.** Any thread may send. `_append` is the part that must not be interleaved: compiled, it allocates nothing
that the garbage collector tracks and calls no Python code, so that the GIL is not given up inside; interpreted, it runs
under `_lock`. What needs Python (a new batch, the next sticky partition, waiting for room) happens outside, between two
tries.

**Memory.** `used_bytes` are the capacities of all batches that have not ended, and never more than `buffer_memory`.
A batch begins as large as its partition's last one was and doubles up to `batch_size`; only a record that is larger by
itself makes a larger batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from threading import Lock
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING, PyByteArray_Resize
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.millstream.core._kernels.native import (
        copy_bytes,
        murmur2_of,
        now_ms,
        store_varint,
        varint_size,
    )
else:
    from millstream.core._kernels.interpreted import (
        copy_bytes,
        murmur2_of,
        now_ms,
        resize,
        store_varint,
        varint_size,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_FIRST_CAPACITY = cython.declare(cython.Py_ssize_t, 16384)
_INT32_MAX = cython.declare(cython.longlong, 2147483647)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)

# How a try to append ended.
_APPENDED = cython.declare(cython.int, 0)
_TOPIC_UNKNOWN = cython.declare(cython.int, 1)
_PARTITION_UNKNOWN = cython.declare(cython.int, 2)
_NO_STICKY_PARTITION = cython.declare(cython.int, 3)
_NO_BATCH = cython.declare(cython.int, 4)
_NO_ROOM = cython.declare(cython.int, 5)
_TOO_LARGE = cython.declare(cython.int, 6)
_ENDED = cython.declare(cython.int, 7)

NO_PARTITION = -1

# Held by interpreted batches while they end or get a callback; the compiled ones need none.
_ends = Lock()


@cython.cclass
class OpenBatch:
    """One batch of a partition while records are added to it; what becomes of it is told by its subclass."""

    topic = cython.declare(object, visibility="readonly")
    partition = cython.declare(cython.Py_ssize_t, visibility="readonly")
    # Room for the header, then the records; None once the batch has ended or lives on compressed.
    buffer = cython.declare(bytearray, visibility="public")
    # Bytes of `buffer` in use, the header's among them.
    size = cython.declare(cython.Py_ssize_t, visibility="public")
    # Invariant: size <= capacity == len(buffer) while the batch is open.
    capacity = cython.declare(cython.Py_ssize_t, visibility="readonly")
    # What of `used_bytes` is this batch's; `RecordAccumulator.recharge` moves it.
    charged_bytes = cython.declare(cython.Py_ssize_t, visibility="readonly")
    count = cython.declare(cython.Py_ssize_t, visibility="public")
    base_timestamp = cython.declare(cython.longlong, visibility="public")
    max_timestamp = cython.declare(cython.longlong, visibility="public")
    # Whether it has ended; set by `take_callbacks` only.
    done = cython.declare(cython.bint, visibility="readonly")
    # Callbacks and what each is called with, by turns; None while there are none.
    _callbacks = cython.declare(list)

    def __init__(self, topic: str, partition: int, buffer: bytearray) -> None:
        self.topic = topic
        self.partition = partition
        self.buffer = buffer
        self.size = _HEADER_SIZE
        self.capacity = len(buffer)
        self.charged_bytes = 0
        self.count = 0
        self.base_timestamp = -1
        self.max_timestamp = -1
        self.done = False
        self._callbacks = None

    def add_callback(self, callback: Callable[[Any], object], argument: Any) -> None:
        """Have `callback(argument)` called at its end, on the loop's thread, or here and now where that is past."""
        fresh: list[Any] = []
        if cython.compiled:
            added = self._add_callback(callback, argument, fresh)
        else:
            with _ends:
                added = self._add_callback(callback, argument, fresh)
        if not added:
            callback(argument)

    def take_callbacks(self) -> list[Any]:
        """End, and return the callbacks and their arguments, by turns."""
        fresh: list[Any] = []
        if cython.compiled:
            taken = self._take_callbacks(fresh)
        else:
            with _ends:
                taken = self._take_callbacks(fresh)
        return taken

    @cython.cfunc
    @cython.returns(cython.bint)
    def _add_callback(self, callback: Any, argument: Any, fresh: list[Any]) -> bool:
        if self.done:
            return False
        if self._callbacks is None:
            self._callbacks = fresh
        self._callbacks.append(callback)
        self._callbacks.append(argument)
        return True

    @cython.cfunc
    def _take_callbacks(self, fresh: list[Any]) -> list[Any]:
        taken: list[Any] = fresh if self._callbacks is None else self._callbacks
        self._callbacks = None
        self.done = True
        return taken


@cython.final
@cython.no_gc
@cython.freelist(256)
@cython.cclass
class RecordHandle:
    """One record on its way: a future of its RecordMetadata, of 40 bytes. It always ends.

    Wait for it on a loop by `await handle`, on any other thread by `handle.result(timeout)`.
    """

    # A batch holds callbacks of its handles until it ends and a handle its batch: a circle that always opens by
    # itself, so the garbage collector needn't look at handles, of which there may be millions.
    _batch = cython.declare(OpenBatch)
    _index = cython.declare(cython.Py_ssize_t)
    _timestamp = cython.declare(cython.longlong)

    @property
    def topic(self) -> str:
        """The topic it goes to."""
        return self._batch.topic

    @property
    def partition(self) -> int:
        """The partition it goes to."""
        return self._batch.partition

    def done(self) -> bool:
        """Whether it has ended: in metadata or in an error."""
        return self._batch.done

    def result(self, timeout: float | None = None) -> Any:
        """Return the record's RecordMetadata; blocks for at most `timeout` seconds.

        Raises the KafkaError it ended with, TimeoutError, and RuntimeError on the thread of its own loop.
        """
        self._batch.wait(timeout)
        return self._batch.outcome(self._index, self._timestamp)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error it ended with, None where it was acknowledged; blocks as `result` does."""
        self._batch.wait(timeout)
        return self._batch.error_of(self._index)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(handle)` called when it has ended: on the producer's loop, or now where it has."""
        self._batch.add_callback(callback, self)

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self._batch.done:
            yield from self._batch.ended_on_this_loop()
        return self._batch.outcome(self._index, self._timestamp)

    def __repr__(self) -> str:
        return f"<RecordHandle {self._batch.describe(self._index, self._timestamp)}>"


@cython.cclass
class PartitionQueue:
    """The batches of one partition that the sender has not taken."""

    topic = cython.declare(object, visibility="readonly")
    partition = cython.declare(cython.Py_ssize_t, visibility="readonly")
    # The sender's state of this partition.
    owner = cython.declare(object, visibility="public")
    # The batch that records are added to, or None.
    open = cython.declare(OpenBatch, visibility="readonly")
    # Those that are full, oldest first.
    _closed = cython.declare(list)
    # Whether it is in the accumulator's list of queues that the sender has to look at.
    _is_listed = cython.declare(cython.bint)
    _last_size = cython.declare(cython.Py_ssize_t)

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.owner = None
        self.open = None
        self._closed = []
        self._is_listed = False
        self._last_size = 0


@cython.cclass
class _TopicQueues:
    """One topic: a queue per partition, and where records without a key go now."""

    queues = cython.declare(list)
    count = cython.declare(cython.Py_ssize_t)
    sticky = cython.declare(cython.Py_ssize_t)
    # Bytes given to the sticky partition since it was chosen (KIP-794).
    sticky_bytes = cython.declare(cython.Py_ssize_t)

    def __init__(self) -> None:
        self.queues = []
        self.count = 0
        self.sticky = NO_PARTITION
        self.sticky_bytes = 0


@cython.cclass
class RecordAccumulator:
    """The batches being filled, of all partitions, under one bound of bytes.

    `make_batch(topic, partition, buffer)` makes a batch, `choose_partition(topic)` the next sticky partition.
    `on_ready()` is called, on the sending thread, when the sender has something new to look at and does not know yet.
    `too_large(size_bytes)` is what a record raises that no batch can take.
    """

    _make_batch = cython.declare(object)
    _choose_partition = cython.declare(object)
    _on_ready = cython.declare(object)
    _too_large = cython.declare(object)
    _topics = cython.declare(dict)
    _lock = cython.declare(object)
    _ignore_keys = cython.declare(cython.bint)
    _batch_size = cython.declare(cython.Py_ssize_t)
    _record_size_max = cython.declare(cython.Py_ssize_t)
    # Invariant: 0 <= used_bytes <= buffer_memory.
    buffer_memory = cython.declare(cython.Py_ssize_t, visibility="readonly")
    used_bytes = cython.declare(cython.Py_ssize_t, visibility="readonly")
    # Queues that got a batch, or had one closed, since the sender looked.
    _listed = cython.declare(list)
    _told = cython.declare(cython.bint)
    # What every send raises from now on: the producer is closed, or has failed for good.
    ending = cython.declare(object, visibility="public")
    _outcome = cython.declare(cython.int)
    # What the last try lacked: bytes of room, or of a batch.
    _lacking = cython.declare(cython.Py_ssize_t)
    _lacking_at = cython.declare(PartitionQueue)

    def __init__(
        self,
        make_batch: Callable[[str, int, bytearray], Any],
        choose_partition: Callable[[str], int],
        on_ready: Callable[[], object],
        too_large: Callable[[int], Exception],
        *,
        buffer_memory: int,
        batch_size: int,
        record_size_max: int,
        ignore_keys: bool = False,
    ) -> None:
        self._make_batch = make_batch
        self._choose_partition = choose_partition
        self._on_ready = on_ready
        self._too_large = too_large
        self._topics = {}
        self._lock = Lock()
        self._ignore_keys = ignore_keys
        self.buffer_memory = buffer_memory
        self.used_bytes = 0
        self._batch_size = max(1, min(batch_size, buffer_memory))
        self._record_size_max = record_size_max
        self._listed = []
        self._told = False
        self.ending = None
        self._outcome = _APPENDED
        self._lacking = 0
        self._lacking_at = None

    # What the sender and the loop call.

    def set_partitions(self, topic: str, count: int) -> None:
        """Learn how many partitions a topic has; it never has fewer than it had."""
        queues: _TopicQueues | None = self._topics.get(topic)
        if queues is None:
            queues = _TopicQueues()
            self._topics[topic] = queues
        while len(queues.queues) < count:
            queues.queues.append(PartitionQueue(topic, len(queues.queues)))
        queues.count = len(queues.queues)

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has, 0 where that is not known."""
        queues: _TopicQueues | None = self._topics.get(topic)
        return 0 if queues is None else queues.count

    def forget(self, topic: str) -> bool:
        """Forget a topic that nobody has sent to for long; whether its queues are empty and that could be."""
        if cython.compiled:
            forgotten = self._forget(topic)
        else:
            with self._lock:
                forgotten = self._forget(topic)
        return forgotten

    def take_listed(self) -> list[Any]:
        """Return the queues that have something new for the sender; from now on it is told again."""
        following: list[Any] = []
        if cython.compiled:
            taken = self._take_listed(following)
        else:
            with self._lock:
                taken = self._take_listed(following)
        return taken

    def take_closed(self, queue: PartitionQueue, close_open: cython.bint) -> list[Any]:
        """Return the batches of a queue that are full, oldest first; with `close_open` also the one that is not."""
        following: list[Any] = []
        if cython.compiled:
            taken = self._take_closed(queue, close_open, following)
        else:
            with self._lock:
                taken = self._take_closed(queue, close_open, following)
        return taken

    def recharge(self, batch: OpenBatch, size_bytes: cython.Py_ssize_t) -> None:
        """Have a batch count `size_bytes` from now on: 0 when it has ended, less when it was compressed."""
        if cython.compiled:
            self._recharge(batch, size_bytes)
        else:
            with self._lock:
                self._recharge(batch, size_bytes)

    def try_add_encoded(
        self, topic: str, partition: int, buffer: bytearray, count: int, base_timestamp: int, max_timestamp: int
    ) -> Any:
        """Queue a batch whose records are encoded; return it, or None while there is no room or no such partition.

        `buffer` has room for the header in front; it is the producer's from now on.
        """
        batch: OpenBatch = self._make_batch(topic, partition, buffer)
        batch.size = len(buffer)
        batch.count = count
        batch.base_timestamp = base_timestamp
        batch.max_timestamp = max_timestamp
        if cython.compiled:
            taken = self._add_encoded(batch)
        else:
            with self._lock:
                taken = self._add_encoded(batch)
        if not taken:
            return None
        self._tell()
        return batch

    @cython.cfunc
    def _take_listed(self, following: list[Any]) -> list[Any]:
        taken: list[Any] = self._listed
        queue: PartitionQueue
        for queue in taken:
            queue._is_listed = False
        self._listed = following
        self._told = False
        return taken

    @cython.cfunc
    def _take_closed(self, queue: PartitionQueue, close_open: cython.bint, following: list[Any]) -> list[Any]:
        taken: list[Any]
        if close_open and queue.open is not None:
            self._close_open(queue)
        taken = queue._closed
        queue._closed = following
        return taken

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.void)
    def _recharge(self, batch: OpenBatch, size_bytes: cython.Py_ssize_t) -> None:
        self.used_bytes += size_bytes - batch.charged_bytes
        batch.charged_bytes = size_bytes

    @cython.cfunc
    @cython.returns(cython.bint)
    def _forget(self, topic: Any) -> bool:
        queues: _TopicQueues | None = self._topics.get(topic)
        queue: PartitionQueue
        if queues is not None:
            for queue in queues.queues:
                if queue.open is not None or queue._closed or queue._is_listed:
                    return False
            del self._topics[topic]
        return True

    @cython.cfunc
    @cython.returns(cython.bint)
    def _add_encoded(self, batch: OpenBatch) -> bool:
        queues: _TopicQueues | None = self._topics.get(batch.topic)
        queue: PartitionQueue
        if self.ending is not None or queues is None or not 0 <= batch.partition < queues.count:
            return False
        if self.used_bytes + batch.capacity > self.buffer_memory:
            return False
        queue = queues.queues[batch.partition]
        if queue.open is not None:
            self._close_open(queue)
        self._recharge(batch, batch.capacity)
        queue._closed.append(batch)
        self._list(queue)
        return True

    # Sending.

    @cython.cfunc
    @cython.returns(object)
    def _send(
        self,
        stalled: Any,
        topic: Any,
        value: Any,
        key: Any,
        partition: Any,
        timestamp_ms: Any,
        headers: Any,
    ) -> Any:
        header_bytes: bytes | None = None
        wanted: cython.Py_ssize_t = NO_PARTITION
        timestamp: cython.longlong
        batch = None
        outcome: cython.int
        lacking: cython.Py_ssize_t
        queue: PartitionQueue
        if type(value) is not bytes and value is not None and type(value) is not bytearray:
            value = _as_bytes(value, "value")
        if type(key) is not bytes and key is not None and type(key) is not bytearray:
            key = _as_bytes(key, "key")
        if partition is not None:
            wanted = partition
            if wanted < 0:
                raise ValueError(f"partition {partition} is below 0")
        if timestamp_ms is None:
            timestamp = now_ms()
        else:
            timestamp = timestamp_ms
            if timestamp < 0:
                raise ValueError(f"timestamp_ms {timestamp_ms} is below 0")
        if headers:
            header_bytes = _encoded_headers(headers)
        while True:
            if cython.compiled:
                handle = self._append(topic, value, key, wanted, timestamp, header_bytes, batch)
                outcome = self._outcome
                lacking = self._lacking
                queue = self._lacking_at
            else:
                with self._lock:
                    handle = self._append(topic, value, key, wanted, timestamp, header_bytes, batch)
                    outcome, lacking, queue = self._outcome, self._lacking, self._lacking_at
            if outcome == _APPENDED:
                if not self._told:
                    self._tell()
                return handle
            if outcome == _NO_BATCH:
                batch = self._make_batch(topic, queue.partition, bytearray(lacking))
            elif outcome == _NO_STICKY_PARTITION:
                self._tell()
                self._stick(topic, self._choose_partition(topic))
                batch = None
            elif outcome == _TOO_LARGE:
                raise self._too_large(lacking)
            elif outcome == _ENDED:
                # One error for all sends: without this each raise would add to its traceback, and hold its frames.
                raise self.ending.with_traceback(None)
            else:
                # It raises, or returns when another try may go better.
                self._tell()
                stalled(topic, wanted if outcome == _PARTITION_UNKNOWN else NO_PARTITION, lacking)

    @cython.cfunc
    @cython.returns(object)
    def _append(
        self,
        topic: Any,
        value: Any,
        key: Any,
        wanted: cython.Py_ssize_t,
        timestamp: cython.longlong,
        header_bytes: bytes | None,
        spare: Any,
    ) -> Any:
        """Try to add the record; `_outcome` says what is lacking where no handle is returned.

        `spare` is an empty batch that is used where the open one is full, if it fits what is lacking.
        """
        queues: _TopicQueues
        queue: PartitionQueue
        batch: OpenBatch | None
        handle: RecordHandle
        key_size: cython.Py_ssize_t = -1
        value_size: cython.Py_ssize_t = -1
        headers_size: cython.Py_ssize_t = 1
        body_size: cython.Py_ssize_t
        size: cython.Py_ssize_t
        capacity: cython.Py_ssize_t
        is_sticky: cython.bint = False
        if self.ending is not None:
            self._outcome = _ENDED
            return None
        queues = self._topics.get(topic)
        self._lacking = 0
        if queues is None:
            self._outcome = _TOPIC_UNKNOWN
            return None
        if value is not None:
            value_size = len(value)
        if key is not None:
            key_size = len(key)
        if header_bytes is not None:
            headers_size = len(header_bytes)
        if wanted < 0:
            if key_size >= 0 and not self._ignore_keys:
                wanted = (murmur2_of(_address(key), key_size) & 0x7FFFFFFF) % queues.count
            elif queues.sticky < 0:
                self._outcome = _NO_STICKY_PARTITION
                return None
            else:
                wanted = queues.sticky
                is_sticky = True
        if wanted >= queues.count:
            self._outcome = _PARTITION_UNKNOWN
            return None
        queue = queues.queues[wanted]
        batch = queue.open
        # A size that never changes with the batch: attributes, and the sizes themselves.
        body_size = 1 + varint_size(key_size) + varint_size(value_size) + headers_size
        if key_size > 0:
            body_size += key_size
        if value_size > 0:
            body_size += value_size
        if batch is not None:
            size = body_size + varint_size(timestamp - batch.base_timestamp) + varint_size(batch.count)
            size += varint_size(size)
            if batch.size + size > batch.capacity and not self._grow(batch, size):
                self._close_open(queue)
                self._list(queue)
                batch = None
                if is_sticky and queues.count > 1 and queues.sticky_bytes + size >= self._batch_size:
                    queues.sticky = NO_PARTITION
                    self._outcome = _NO_STICKY_PARTITION
                    return None
        if batch is None:
            size = body_size + 2
            size += varint_size(size)
            if _HEADER_SIZE + size > self._record_size_max or _HEADER_SIZE + size > self.buffer_memory:
                self._outcome = _TOO_LARGE
                self._lacking = _HEADER_SIZE + size
                return None
            capacity = max(_HEADER_SIZE + size, min(self._batch_size, max(queue._last_size, _FIRST_CAPACITY)))
            if spare is not None:
                batch = spare
                if batch.partition != wanted or batch.capacity < _HEADER_SIZE + size:
                    batch = None
            if batch is None:
                self._outcome = _NO_BATCH
                self._lacking = capacity
                self._lacking_at = queue
                return None
            if self.used_bytes + batch.capacity > self.buffer_memory:
                self._outcome = _NO_ROOM
                self._lacking = batch.capacity
                return None
            self._recharge(batch, batch.capacity)
            batch.base_timestamp = batch.max_timestamp = timestamp
            queue.open = batch
            self._list(queue)
        handle = RecordHandle.__new__(RecordHandle)
        handle._batch = batch
        handle._index = batch.count
        handle._timestamp = timestamp
        body_size += varint_size(timestamp - batch.base_timestamp) + varint_size(batch.count)
        _write_record(batch, body_size, timestamp, key, key_size, value, value_size, header_bytes)
        if is_sticky:
            queues.sticky_bytes += size
        if batch.size >= self._batch_size:
            self._close_open(queue)
            self._list(queue)
        self._outcome = _APPENDED
        return handle

    @cython.cfunc
    @cython.returns(cython.bint)
    def _grow(self, batch: OpenBatch, size: cython.Py_ssize_t) -> bool:
        """Make room in a batch for `size` bytes more, where that keeps within the bounds; whether there is."""
        capacity: cython.Py_ssize_t = min(2 * batch.capacity, self._batch_size)
        if batch.size + size > capacity or self.used_bytes + capacity - batch.capacity > self.buffer_memory:
            return False
        if cython.compiled:
            PyByteArray_Resize(batch.buffer, capacity)
        else:
            resize(batch.buffer, capacity)
        self._recharge(batch, capacity)
        batch.capacity = capacity
        return True

    @cython.cfunc
    @cython.returns(cython.void)
    def _close_open(self, queue: PartitionQueue) -> None:
        queue._last_size = queue.open.size
        queue._closed.append(queue.open)
        queue.open = None

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.void)
    def _list(self, queue: PartitionQueue) -> None:
        if not queue._is_listed:
            queue._is_listed = True
            self._listed.append(queue)

    @cython.cfunc
    @cython.returns(cython.void)
    def _stick(self, topic: Any, partition: cython.Py_ssize_t) -> None:
        queues: _TopicQueues | None = self._topics.get(topic)
        if queues is not None and partition < queues.count:
            queues.sticky = partition
            queues.sticky_bytes = 0

    @cython.cfunc
    @cython.returns(object)
    def _tell(self) -> Any:
        if self._listed and not self._told:
            self._told = True
            self._on_ready()


@cython.final
@cython.cclass
class Appender:
    """`send` for one kind of caller: `stalled(topic, partition, lacking_bytes)` is what it does where it has to wait.

    It is called when the topic is not known (`partition` -1, nothing lacking), when the partition is not, and when
    there is no room for so many bytes. It raises, or returns to have another try made.
    """

    _accumulator = cython.declare(RecordAccumulator)
    _stalled = cython.declare(object)

    def __init__(self, accumulator: RecordAccumulator, stalled: Callable[[str, int, int], object]) -> None:
        self._accumulator = accumulator
        self._stalled = stalled

    def send(
        self,
        topic: str,
        value: bytes | bytearray | memoryview | None = None,
        *,
        key: bytes | bytearray | memoryview | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
    ) -> RecordHandle:
        """Add a record to the batch of its partition; returns at once with its handle where there is room."""
        return self._accumulator._send(self._stalled, topic, value, key, partition, timestamp_ms, headers)


@cython.cfunc
@cython.inline
@cython.returns(cython.void)
def _write_record(
    batch: OpenBatch,
    body_size: cython.Py_ssize_t,
    timestamp: cython.longlong,
    key: Any,
    key_size: cython.Py_ssize_t,
    value: Any,
    value_size: cython.Py_ssize_t,
    header_bytes: bytes | None,
) -> None:
    out: cython.p_uchar = (
        cython.cast(cython.p_uchar, PyByteArray_AS_STRING(batch.buffer)) if cython.compiled else batch.buffer
    )
    at: cython.Py_ssize_t = store_varint(out, batch.size, body_size)
    out[at] = 0
    at = store_varint(out, at + 1, timestamp - batch.base_timestamp)
    at = store_varint(out, at, batch.count)
    at = store_varint(out, at, key_size)
    if key_size > 0:
        copy_bytes(out, at, _address(key), 0, key_size)
        at += key_size
    at = store_varint(out, at, value_size)
    if value_size > 0:
        copy_bytes(out, at, _address(value), 0, value_size)
        at += value_size
    if header_bytes is None:
        out[at] = 0
        at += 1
    else:
        copy_bytes(out, at, _address(header_bytes), 0, len(header_bytes))
        at += len(header_bytes)
    batch.size = at
    batch.count += 1
    if timestamp > batch.max_timestamp:
        batch.max_timestamp = timestamp


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.p_const_uchar)
def _address(content: Any) -> Any:
    """Return where the bytes of `content` lie, bytes or a bytearray."""
    if not cython.compiled:
        return content
    if type(content) is bytes:
        return cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(content))
    return cython.cast(cython.p_const_uchar, PyByteArray_AS_STRING(content))


@cython.cfunc
@cython.returns(object)
def _as_bytes(content: Any, name: str) -> Any:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    hint = ""
    if isinstance(content, str):
        hint = f"; encode it, as in {name if name.isidentifier() else 'content'}.encode()"
    raise TypeError(f"{name} is bytes, a bytearray, a memoryview or None, not {type(content).__name__}{hint}")


@cython.cfunc
@cython.returns(bytes)
def _encoded_headers(headers: Any) -> bytes:
    """Return the count of headers and the headers, as they end a record."""
    count = 0
    parts: list[bytes] = []
    for pair in headers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"headers are pairs of a name and bytes, as [('trace', b'7')], not {pair!r}")
        name, content = pair
        if type(name) is not str:
            raise TypeError(f"the name of a header is a str, not {type(name).__name__}")
        encoded = name.encode()
        parts.append(_varint(len(encoded)))
        parts.append(encoded)
        if content is None:
            parts.append(b"\x01")
        else:
            if type(content) is not bytes:
                content = _as_bytes(content, "the content of a header")
            parts.append(_varint(len(content)))
            parts.append(content)
        count += 1
    parts.insert(0, _varint(count))
    return b"".join(parts)


@cython.cfunc
@cython.returns(bytes)
def _varint(number: cython.longlong) -> bytes:
    out = bytearray(10)
    data: cython.p_uchar = cython.cast(cython.p_uchar, PyByteArray_AS_STRING(out)) if cython.compiled else out
    return bytes(out[: store_varint(data, 0, number)])


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of `data` with Kafka's seed, unsigned."""
    return murmur2_of(_address(data), len(data))


def partition_of_key(key: bytes, partition_count: int) -> int:
    """Return the partition of a key, the same as Java's: its hash without the sign, modulo the count."""
    return (murmur2(key) & 0x7FFFFFFF) % partition_count


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
