"""Checkpoints: the state at a number, so that a reader need not go back to the first entry.

`checkpoints/NUMBER` has offsets and all else that is small, and names the sorted runs that hold the files
(`inventory_runs`). A checkpoint says what the entries up to its number say, so two drivers that write the same one
agree, and whichever arrives first stays. Runs are shared: the next checkpoint adds one with what changed since, and now
and then merges the newest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from millstream.hadoop_loader.commit import envelope, names
from millstream.hadoop_loader.commit.encoding import (
    UNKNOWN,
    positions_from_json,
    positions_to_json,
    watermarks_from_json,
    watermarks_to_json,
)
from millstream.hadoop_loader.commit.entries import Role, Totals
from millstream.hadoop_loader.commit.errors import CorruptLogError
from millstream.hadoop_loader.commit.inventory import Inventory
from millstream.hadoop_loader.commit.inventory_runs import InventoryRun, RunWriter, runs_to_merge
from millstream.hadoop_loader.commit.state import ClaimRecord, TableState
from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemError,
    InputFile,
    UnavailableError,
    UnknownOutcomeError,
)


def encode_checkpoint(state: TableState) -> bytes:
    """The bytes of a checkpoint of `state`, whose inventory must be all in runs."""
    assert not state.files.entries, f"{len(state.files.entries)} entries' files are in no run"
    header = {"number": state.number, "kind": "checkpoint", "cluster_id": state.cluster_id, "epoch": state.epoch}
    content = {
        "claims": [list(claim) for claim in state.claims.values()],
        "topics": state.topics,
        "positions": positions_to_json(state.positions),
        "watermarks": watermarks_to_json(state.watermarks),
        "open": {key: sorted(below) for key, below in state.open.items()},
        "closed": {key: sorted(below) for key, below in state.closed.items()},
        "schemas": state.schemas,
        "totals": state.totals,
        "reports": list(state.reports),
        "last_loads": state.last_loads,
        "runs": state.files.runs,
    }
    return envelope.encode(header, {"state": [content]})


def decode_checkpoint(data: bytes, path: str, number: int, open_file: Callable[[str], InputFile]) -> TableState:
    """The state of a checkpoint read whole. Raises CorruptLogError."""
    header, sections = envelope.decode(data, path)
    if header.get("number") != number or header.get("kind") != "checkpoint":
        raise CorruptLogError(f"{path}: is no checkpoint of {number}; delete it")
    envelope.check_sections(path, sections, ("state",))
    try:
        return _state(header, next(iter(sections["state"])), number, open_file)
    except UNKNOWN as error:
        raise envelope.of_newer_version(path, repr(error)) from error


def _state(
    header: Mapping[str, Any], content: Mapping[str, Any], number: int, open_file: Callable[[str], InputFile]
) -> TableState:
    state = TableState(number=number, cluster_id=header["cluster_id"], epoch=header["epoch"])
    for role, *rest in content["claims"]:
        state.claims[Role(role)] = ClaimRecord(Role(role), *rest)
    state.topics = content["topics"]
    state.positions = positions_from_json(content["positions"])
    state.watermarks = watermarks_from_json(content["watermarks"])
    state.open = {key: set(below) for key, below in content["open"].items()}
    state.closed = {key: set(below) for key, below in content["closed"].items()}
    state.schemas = content["schemas"]
    state.totals = {key: Totals(*values) for key, values in content["totals"].items()}
    # Checkpoints of before there were last loads have those that are among the reports.
    state.last_loads = content.get("last_loads", {})
    for report in content["reports"]:
        state.add_report(report)
    state.files = Inventory(tuple(InventoryRun(*run) for run in content["runs"]), open_file)
    return state


def write_checkpoint(filesystem: FileSystem, state: TableState, nonce: str) -> None:
    """Write the checkpoint of `state` (all of whose entries are applied), and have the state stand on it.

    Any error leaves the state as it was. The run that was added is deleted, unless there was no answer, or a checkpoint
    may name it: then it stays until cleaning deletes a checkpoint, and looks what the others name.
    """
    name = f"{names.number_name(state.number)}+{nonce}"
    run, temporary = f"{names.INVENTORY}/{name}", f"{names.PUBLISHING}/{name}+checkpoint"
    old = state.files
    is_sent = False
    try:
        runs = old.runs
        if old.entries:
            # What is new counts as a run of its own until it has been written.
            merged = runs_to_merge([*(run.lines for run in runs), old.changes]) - 1
            added = _write_run(filesystem, state, merged, run)
            runs = (*runs[: len(runs) - merged], *([added] if added.lines else []))
        state.files = Inventory(runs, filesystem.open)
        write_file(filesystem, temporary, encode_checkpoint(state))
        is_sent = True
        try:
            filesystem.rename(temporary, names.checkpoint_path(state.number))
        except FileExistsError:
            filesystem.delete(temporary)
    except BaseException as error:
        state.files = old
        if isinstance(error, Exception) and not isinstance(error, (UnavailableError, UnknownOutcomeError)):
            _withdraw(filesystem, run, temporary, is_sent=is_sent)
        raise


def _withdraw(filesystem: FileSystem, run: str, temporary: str, *, is_sent: bool) -> None:
    with suppress(FileSystemError, OSError):
        # A refusal may be the answer to the second sending of a rename that took effect at the first. It did not, and
        # never will, if the temporary was still there to be deleted.
        if filesystem.delete(temporary) or not is_sent:
            filesystem.delete(run)


def write_file(filesystem: FileSystem, path: str, data: bytes) -> None:
    """Write a file nobody reads yet: synced, closed, and its length checked."""
    with filesystem.create(path) as file:
        file.write(data)
        file.sync()
    check_length(filesystem, path, len(data))


def check_length(filesystem: FileSystem, path: str, length: int) -> None:
    """Raise FileNotFoundError or CorruptLogError unless `path` is a file of `length` bytes."""
    status = filesystem.status(path)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{filesystem.uri}/{path}")
    if status.length != length:
        raise CorruptLogError(f"{path}: has {status.length} of the {length} bytes written; run again")


def _write_run(filesystem: FileSystem, state: TableState, merged: int, path: str) -> InventoryRun:
    writer = RunWriter()
    with filesystem.create(path) as file:
        for line in state.files.merged_lines(merged):
            data = writer.add(line)
            if data:
                file.write(data)
        file.write(writer.finish())
        file.sync()
    check_length(filesystem, path, writer.length)
    return InventoryRun(path, writer.lines, writer.length)
