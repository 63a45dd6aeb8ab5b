"""`millstream.testing.broker`: a broker for a block, how soon it is there, and that it never stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.core.client import Client, NewTopic, create_topics
from millstream.testing import BrokerStartError, TestBroker, broker
from millstream.testing.kafka import wait_until


async def topics_of(bootstrap: str) -> set[str]:
    async with Client(bootstrap) as client:
        return set((await client.metadata()).topics)


async def create(bootstrap: str, name: str) -> None:
    async with Client(bootstrap) as client:
        assert await create_topics(client, [NewTopic(name)]) == {name: None}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_a_broker_for_a_block_of_code() -> None:
    with broker() as b:
        assert b.bootstrap_servers.startswith("127.0.0.1:")
        assert await topics_of(b.bootstrap_servers) == set()
        await create(b.bootstrap_servers, "t")
        assert (b.log_dir / "t-0").is_dir()
        pid, log_dir = b.pid, b.log_dir
    assert not is_alive(pid)
    assert not log_dir.exists()


async def test_brokers_do_not_see_each_other() -> None:
    with broker() as first, broker() as second:
        await create(first.bootstrap_servers, "only-in-the-first")
        assert await topics_of(second.bootstrap_servers) == set()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_it_comes_back_on_its_data_and_its_port(how: str) -> None:
    with broker() as b:
        await create(b.bootstrap_servers, "kept")
        before = b.bootstrap_servers
        if how == "stop":
            assert b.stop() == 0
        else:
            b.kill()
        assert not b.is_running
        b.start()
        assert b.bootstrap_servers == before
        assert await topics_of(before) == {"kept"}


async def test_settings_and_a_directory_of_ones_own(tmp_path: Path) -> None:
    with broker({"num.partitions": 7}, log_dir=tmp_path / "data") as b:
        async with Client(b.bootstrap_servers) as client:
            await create_topics(client, [NewTopic("t")])
            assert len((await client.metadata(["t"])).topic("t").partitions) == 7
    assert (tmp_path / "data" / "t-6").is_dir()


def test_the_data_is_kept_on_demand() -> None:
    with broker(keep=True) as b:
        log_dir = b.log_dir
    assert log_dir.is_dir()
    TestBroker.close(b)  # a second close leaves it, too
    assert log_dir.is_dir()
    subprocess.run(["rm", "-r", str(log_dir.parent)], check=True)


def test_a_broker_that_cannot_start_says_why() -> None:
    with pytest.raises(BrokerStartError, match=r"num\.partitions") as raised, broker({"num.partitions": "many"}):
        pass
    assert "before it served" in str(raised.value)


def test_what_it_printed_is_noted_on_the_error_that_leaves_the_block() -> None:
    with pytest.raises(ValueError, match="mine") as raised, broker():
        raise ValueError("mine")
    assert "serving on 127.0.0.1:" in raised.value.__notes__[0]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(end: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import time\nfrom millstream.testing import broker\n"
        "with broker() as b:\n    print(b.pid, flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # SIGKILL leaves the directory behind
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.send_signal(end)
        parent.wait(60)
    wait_until(lambda: not is_alive(pid), 60, f"the end of broker {pid}")


def test_it_ends_at_exit_where_nobody_closed_it() -> None:
    code = "from millstream.testing import broker\nb = broker()\nb.start()\nprint(b.pid, b.log_dir)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid, log_dir = done.stdout.split()
    assert not is_alive(int(pid))
    assert not Path(log_dir).exists()
