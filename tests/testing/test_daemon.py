"""How a test's JVMs start, and what is left of them when the tests are killed: nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from millstream.testing.daemon import archive_of, quick_jvm_options
from millstream.testing.kafka import wait_until

# Two stand-ins for JVMs; one is ended in order. Their starter is then killed, as a test run may be.
_STARTER = """
import os, signal, sys
from pathlib import Path
from millstream.testing.daemon import Daemon
daemons = [Daemon(name, lambda: ["sleep", "1000"], Path(sys.argv[1]) / name) for name in ("one", "two")]
for daemon in daemons:
    daemon.start()
print(daemons[0].pid, daemons[1].pid, flush=True)
daemons[0].end()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_test_run_leaves_no_process(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _STARTER, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 2

    wait_until(lambda: all(map(is_gone, pids)), 30.0, "both processes to be gone")


def is_gone(pid: int) -> bool:
    """Whether it runs no more; who adopts it may take its time to bury it."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.name() != "sleep"
    except psutil.NoSuchProcess:
        return True


@pytest.mark.java
def test_classes_come_from_the_archive_beside_the_jars_if_there_is_one(tmp_path: Path) -> None:
    jars = tmp_path / "kafka-4.3.0"
    option = f"-XX:SharedArchiveFile={tmp_path}/kafka-4.3.0.jsa"
    assert option not in quick_jvm_options(jars)
    archive_of(jars).touch()
    assert option in quick_jvm_options(jars)
    # One that is of no use costs no test: the JVM starts without it, and prints nothing among what a tool prints.
    done = subprocess.run(["java", *quick_jvm_options(jars), "-version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout == ""
