"""What is left of a test's JVMs when the tests are killed: nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

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
