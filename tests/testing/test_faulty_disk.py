"""FaultyDisk on its own; what it does to a log is tested with the log."""

from contextlib import suppress
from pathlib import Path

from millstream.testing.faulty_disk import FaultyDisk


def test_what_it_holds_open_goes_with_it(tmp_path: Path) -> None:
    """A process of many tests has many of them, each with every file that a log has replaced."""
    path = tmp_path / "checkpoint"
    path.write_bytes(b"0")
    disk = FaultyDisk()
    disk.unlink(str(path))
    assert held(tmp_path) == 1
    del disk
    assert held(tmp_path) == 0


def held(folder: Path) -> int:
    """How many descriptors of this process lead to deleted files of a folder."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that listed them, and those of other threads
            found += str(each.readlink()).startswith(str(folder))
    return found
