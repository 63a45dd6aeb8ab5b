"""A driver in a process of its own that kills itself, with SIGKILL, before or after the first act of a name.

    python -m tests.support.killed_driver URI ROLE PRODUCED before|after PATTERN

What it would do otherwise is one run of `commit_simulation.Driver`. It ends with 0 if no act had that name.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time

from tests.support.commit_simulation import Driver, World

from millstream.hadoop_loader.commit import CommitSettings, Role
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.faulty_filesystem import FaultyFileSystem

# The fault points of the protocol, by what their acts are called.
POINTS = {
    "the claim's counter": r"create _millstream/renewals",
    "the temporary entry": r"create _millstream/publishing",
    "its bytes": r"write _millstream/publishing",
    "its sync": r"sync _millstream/publishing",
    "its end": r"close _millstream/publishing",
    "publishing the claim": r"rename _millstream/publishing/\d+\+killed.* -> _millstream/log",
    "the epoch's staging": r"make_child _millstream/staging/\d+-\w+$",
    "cleaning staging": r"rename _millstream/staging/\d+-\w+ -> _millstream/discarded",
    "emptying discarded": r"delete _millstream/discarded",
    "a renewal": r"rename _millstream/renewals",
    "a split's staging": r"make_child _millstream/staging/\d+-\w+/",
    "a staged file": r"write _millstream/staging",
    "a staged file's end": r"close _millstream/staging",
    "the directories": r"make_directory orders",
    "a file's move": r"rename _millstream/staging/[^ ]+ -> orders/[^ ]+\+\d+\.",
    "_SUCCESS": r"create orders/[^ ]+/_SUCCESS",
    "room in trash": r"make_directory _millstream/trash",
    "a compacted file's name": r"rename _millstream/staging/[^ ]+ -> _millstream/staging",
    "a directory into trash": r"rename orders/[^ ]+ -> _millstream/trash",
    "a compacted directory in": r"rename _millstream/staging/[^ ]+ -> orders/[^+]+$",
    "the mark that it is applied": r"create _millstream/applied",
    "a run of the inventory": r"close _millstream/inventory",
    "the checkpoint": r"rename [^ ]+ -> _millstream/checkpoints",
    "giving the claim back": r"delete _millstream/renewals",
}


def main(uri: str, role: str, produced: str, when: str, pattern: str) -> int:
    """Run until killed."""

    def die(name: str, moment: str) -> None:
        if moment == when and re.match(pattern, name):
            os.kill(os.getpid(), signal.SIGKILL)

    settings = CommitSettings(claim_timeout_s=60, entries_per_checkpoint=2, snapshot_retention_s=0, threads=1)
    world = World(produced=int(produced), settings=settings, partitions=1, formats=("parquet",))
    filesystem = FaultyFileSystem(
        open_filesystem(uri, FileSystemSettings()),
        before_call=lambda name: die(name, "before"),
        after_act=lambda name: die(name, "after"),
    )
    Driver(world, filesystem, f"killed-{time.time_ns()}", random.Random()).run(Role(role))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
