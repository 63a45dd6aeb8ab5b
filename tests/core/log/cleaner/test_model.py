"""The cleaner against a dictionary: random keys, tombstones, transactions, segments, codecs and maps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.dirty_logs import NOW_MS, TOPIC, Kept, Model, Sweep, compacted, read_committed, stored

from millstream.core.log import Log
from millstream.core.records import Compression, TimestampType

SEEDS = range(300 if os.environ.get("MILLSTREAM_SOAK") == "1" else 40)


def check_cleaned(model: Model, log: Log, *, tombstones_gone: bool = False) -> None:
    """Below the clean point the newest of each key and nothing else; behind it everything; nothing changed."""
    clean_to = log.first_dirty_offset
    if clean_to is None:  # a transaction that began in the first segment is open: nothing may be cleaned
        assert log.first_unstable_offset is not None
        assert log.first_unstable_offset < log.segments.items[1].base_offset
        clean_to = 0
    records, _ = stored(log)
    originals = {each.offset: each for each in model.records}
    assert all(originals[each.offset] == each for each in records), "a record has changed"
    assert [each.offset for each in records] == sorted({each.offset for each in records})
    newest = model.latest(clean_to)
    wanted = {each.offset for each in newest.values() if each.value is not None or not tombstones_gone} | {
        each.offset for each in model.records if each.offset >= clean_to
    }
    assert {each.offset for each in records} == wanted
    committed = {each.key: each for each in read_committed(log)}
    final = model.latest(model.end_offset)
    for key, record in final.items():
        found = committed.get(key)
        if record.value is None and tombstones_gone and found is None:
            continue
        assert found == Kept(*record[:4]), key


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cleaned_log_is_a_dictionary(open_manager: OpenManager, tmp_path: Path, seed: int) -> None:
    model = Model(seed)
    rng = model.random
    keys, transactions, compress = rng.choice((3, 20, 200)), rng.random() < 0.6, rng.random() < 0.5
    log_append_time = rng.random() < 0.4
    for _ in range(rng.choice((10, 60, 150))):
        model.random_step(keys=keys, transactions=transactions, compress=compress, log_append_time=log_append_time)
    if rng.random() < 0.8:
        model.end_all()
    model.roll()
    model.batch([(b"active", b"value")])
    model.write(tmp_path / "data" / str(TOPIC))
    config = compacted(
        segment_bytes=rng.choice((1000, 10_000, 1 << 20)),
        index_interval_bytes=rng.choice((0, 300, 4096)),
        delete_retention_ms=1000,
    )
    manager = open_manager(config)
    log = manager.logs[TOPIC]
    producers = {each.producer_id: (each.epoch, each.last_sequence) for each in log.active_producers()}
    sweep = Sweep(
        manager, map_bytes=rng.choice((10 * 24, 100 * 24, 1 << 16)), io_bytes=rng.choice((8192, 1 << 16)), now_ms=NOW_MS
    )
    sweep.run()
    assert not sweep.cleaner.uncleanable
    check_cleaned(model, log)
    records, _ = stored(log)
    # A second time, before the tombstones' time has come, changes nothing.
    log.first_dirty_offset = None
    sweep.now_ms += 999
    sweep.run()
    check_cleaned(model, log)
    assert stored(log)[0] == records
    # Then they go, and with them the markers of transactions that have no record left.
    sweep.now_ms += 2
    log.first_dirty_offset = None
    sweep.run()
    check_cleaned(model, log, tombstones_gone=True)
    # And all of it is found again, whether the stop was clean or not.
    before = stored(log)
    if rng.random() < 0.5:
        manager.close()
    else:
        manager.checkpoint_cleaner()
        manager.release()
    again = open_manager(config).logs[TOPIC]
    assert stored(again) == before
    assert again.first_dirty_offset == log.first_dirty_offset
    assert {each.producer_id: (each.epoch, each.last_sequence) for each in again.active_producers()} == producers


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD], ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("places", "keys", "cleanings"),
    [(100, 80, 1), (100, 160, 1), (100, 5000, 20)],
    ids=["all keys fit", "halved", "keys come but once"],
)
def test_a_map_too_small_for_all_keys_goes_on_with_some_of_them(
    open_manager: OpenManager, tmp_path: Path, places: int, keys: int, cleanings: int, compression: Compression
) -> None:
    model = Model(3)
    numbers = list(range(keys)) * max(2000 // keys, 1)
    model.random.shuffle(numbers)
    for at in range(0, len(numbers), 50):
        model.batch([(b"%d" % number, b"at %d" % at) for number in numbers[at : at + 50]], compression=compression)
        model.roll()
    model.batch([(b"active", b"value")])
    model.write(tmp_path / "data" / str(TOPIC))
    manager = open_manager(compacted(segment_bytes=20_000))
    log = manager.logs[TOPIC]
    sweep = Sweep(manager, map_bytes=places * 24)
    done = sweep.run()
    assert done == cleanings if cleanings == 1 else done >= cleanings, done
    check_cleaned(model, log)
    records, _ = stored(log)
    assert len(records) == keys + 1


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD], ids=lambda codec: codec.name)
def test_a_batch_keeps_its_log_append_time(open_manager: OpenManager, tmp_path: Path, compression: Compression) -> None:
    """Also where its records are written anew, and where the newest of them go."""
    model = Model(1)
    model.batch(
        [(b"stays", b"1"), (b"deleted", None), (b"goes", b"2")], log_append_ms=NOW_MS + 9, compression=compression
    )
    model.roll()
    model.batch([(b"goes", b"3")], log_append_ms=NOW_MS + 10)
    model.roll()
    model.batch([(b"active", b"value")])
    model.write(tmp_path / "data" / str(TOPIC))
    manager = open_manager(compacted(delete_retention_ms=1000))
    log = manager.logs[TOPIC]
    Sweep(manager).run()
    records, headers = stored(log)
    assert [(each.offset, each.timestamp) for each in records[:3]] == [
        (0, NOW_MS + 9),
        (1, NOW_MS + 9),
        (3, NOW_MS + 10),
    ]
    assert headers[0].has_delete_horizon, "records were written anew"
    assert [each.max_timestamp for each in headers[:2]] == [NOW_MS + 9, NOW_MS + 10]
    assert {each.timestamp_type for each in headers[:2]} == {TimestampType.LOG_APPEND_TIME}
    found = log.offset_for_timestamp(NOW_MS + 10)
    assert found is not None
    assert (found.timestamp, found.offset) == (NOW_MS + 10, 3)
