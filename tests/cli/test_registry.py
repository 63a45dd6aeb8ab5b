"""`millstream registry` and `millstream up`: start, stop, the sentences, and children that die."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.registry import Asker

from millstream import __version__
from millstream.cli.child import ChildProcess
from millstream.cli.errors import CommandError
from millstream.cli.serve_registry import plain_registry_config
from millstream.cli.supervisor import (
    FAILURES_MAX,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    WELL_AFTER_S,
    Child,
    Restarts,
    Supervisor,
)
from millstream.testing import TestBroker
from millstream.testing.kafka import free_ports, wait_until

DEADLINE_S = 120.0


def millstream(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "millstream", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    return line or f"nothing; on the error output: {process.stderr.read()}"


def test_a_registry_stops_while_it_still_waits_for_the_cluster() -> None:
    """Something accepts the connection and says nothing; the start itself would give up after a minute, with code 1."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = millstream(
            "registry", "--bootstrap", f"127.0.0.1:{silent.getsockname()[1]}", "--listen", "127.0.0.1:0"
        )
        try:
            silent.settimeout(DEADLINE_S)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
            connection.close()
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_registry_says_where_it_serves_and_stops_in_order(
    millstream_broker_session: TestBroker, number: signal.Signals
) -> None:
    bootstrap = millstream_broker_session.bootstrap_servers
    settings = ("--set", f"kafkastore.topic=_schemas-{number.name}", "--set", f"schema.registry.group.id={number.name}")
    process = millstream("registry", "--bootstrap", bootstrap, "--listen", "127.0.0.1:0", *settings)
    try:
        line = line_of(process)
        assert line.startswith(f"millstream {__version__} registry serving on http://127.0.0.1:"), line
        assert Asker(line.split()[-1]).register("s", '"int"').body["id"] == 1
        process.send_signal(number)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no Kafka cluster is named"),
        (("--bootstrap", "127.0.0.1:1"), "cannot connect to 127.0.0.1:1"),
        (("--bootstrap", "127.0.0.1:1", "--set", "kafkastore.timout.ms=1"), "did you mean kafkastore.timeout.ms"),
        (("--bootstrap", "127.0.0.1:1", "--listen", "https://127.0.0.1:0"), "ssl.certificate.location"),
        (("--bootstrap", "127.0.0.1:1", "--listen", "nonsense:x"), "listeners"),
        (("--bootstrap", "127.0.0.1:1", "--listen", "192.0.2.1:8081"), "assign requested address"),
    ],
)
def test_what_keeps_it_from_starting_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    process = millstream("registry", *arguments)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert sentence in err
    assert err.startswith("millstream: ")
    assert len(err.strip().splitlines()) == 1, err


def test_the_light_path_reads_what_is_plain_and_leaves_the_rest() -> None:
    config = plain_registry_config(["-b", "127.0.0.1:9092", "--listen", "127.0.0.1:0", "-s", "log.level=DEBUG"])
    assert config is not None
    assert config.string("log.level") == "DEBUG"
    for rest in (["--help"], ["--bootstrap"], ["--show-config", "x"], ["--bootstrap", "-s"]):
        assert plain_registry_config(rest) is None


def test_the_config_is_shown() -> None:
    process = millstream("registry", "--bootstrap", "127.0.0.1:1", "--show-config")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert json.loads(out)["kafkastore.topic"] == "_schemas"


def test_restarts_wait_longer_each_time_and_end_at_last() -> None:
    restarts = Restarts()
    pauses = []
    for _ in range(FAILURES_MAX - 1):
        restarts.note_start(0)
        restarts.note_end(1)
        pauses.append(restarts.due_at - 1)
    assert pauses == [min(PAUSE_FIRST_S * 2**one, PAUSE_MAX_S) for one in range(FAILURES_MAX - 1)]
    with pytest.raises(CommandError, match="times in a row"):
        restarts.note_end(1)


def test_a_child_that_was_well_begins_anew() -> None:
    restarts = Restarts(failures=FAILURES_MAX - 1)
    restarts.note_start(0)
    restarts.note_end(WELL_AFTER_S)
    assert restarts.failures == 1


def test_starts_that_fail_count_however_long_the_child_ran_before() -> None:
    restarts = Restarts()
    restarts.note_start(0)
    restarts.note_end(WELL_AFTER_S)
    for _ in range(FAILURES_MAX - 2):
        restarts.note_end(restarts.due_at)
    with pytest.raises(CommandError, match="times in a row"):
        restarts.note_end(restarts.due_at)


class Idle(ChildProcess):
    """A child that has nothing to do."""

    what = "it"
    serving_on = "nothing"
    pid = 0
    is_running = True

    def __init__(self, stops: list[float]) -> None:
        self._stops = stops

    def stop(self, timeout_s: float = 0.0) -> int:
        self._stops.append(timeout_s)
        return 0


def test_children_are_stopped_though_nobody_reads_what_is_said() -> None:
    stops: list[float] = []

    def say(line: str) -> None:
        if "serves" in line:
            signal.raise_signal(signal.SIGTERM)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    children = [Child(name, lambda is_wanted: Idle(stops)) for name in ("first", "second")]
    children[1].process = Idle(stops)
    assert Supervisor(children, say).run() == 0
    assert len(stops) == 2


def test_a_signal_may_come_at_any_line() -> None:
    # In a process of its own: it is one that may hang.
    program = """
import signal, sys
from millstream.cli.supervisor import Supervisor

lines = 0

def at_line(frame, event, argument):
    global lines
    if callable(signal.getsignal(signal.SIGCHLD)):
        lines += 1
        signal.raise_signal(signal.SIGTERM if lines == 2000 else signal.SIGCHLD)
    return at_line

sys.settrace(at_line)
code = Supervisor([], print).run()
sys.settrace(None)
assert lines > 1999
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=DEADLINE_S / 2, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Up:
    """`millstream up` in a folder, and what it said so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        addresses = () if "--config" in arguments else ("--listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0")
        self.process = millstream("up", "--data-dir", str(folder), *addresses, *arguments)

    def wait_for(self, words: str) -> tuple[str, int]:
        """The address and the process of the line that has these words."""
        while words not in (line := line_of(self.process)):
            assert line.startswith("millstream up: "), line
        found = re.search(r"on (\S+), process (\d+)", line)
        assert found is not None, line
        return found[1], int(found[2])


def test_up_keeps_broker_and_registry_running(tmp_path: Path) -> None:
    up = Up(tmp_path, "--registry-set", "schema.compatibility.level=FULL")
    try:
        _, broker = up.wait_for("broker serves")
        url, registry = up.wait_for("registry serves")
        asker = Asker(url)
        assert asker.get("/config").body == {"compatibilityLevel": "FULL"}
        assert asker.register("kept", '"int"').body["id"] == 1
        os.kill(registry, signal.SIGKILL)
        assert up.wait_for("registry serves again")[0] == url
        assert asker.get("/schemas/ids/1").body["schema"] == '"int"'
        os.kill(broker, signal.SIGKILL)
        _, broker = up.wait_for("broker serves again")
        wait_until(lambda: asker.register("next", '"long"').body.get("id") == 2, DEADLINE_S, "a schema registered")
        up.process.send_signal(signal.SIGINT)
        out, err = up.process.communicate(timeout=DEADLINE_S)
        assert up.process.returncode == 0, err
        assert [line.split()[2] for line in out.splitlines()] == ["registry", "broker"]
    finally:
        up.process.kill()
        up.process.communicate()


def test_up_leaves_to_files_what_they_say(tmp_path: Path) -> None:
    port, registry_port = free_ports(2)
    broker_file, registry_file = tmp_path / "broker.properties", tmp_path / "registry.properties"
    broker_file.write_text(f"listeners=INNER://127.0.0.1:{port}\nlistener.security.protocol.map=INNER:PLAINTEXT\n")
    registry_file.write_text(f"listeners=http://127.0.0.1:{registry_port}\nkafkastore.topic.replication.factor=3\n")
    up = Up(tmp_path / "data", "--config", str(broker_file), "--registry-config", str(registry_file))
    try:
        assert up.wait_for("broker serves")[0] == f"127.0.0.1:{port}"
        url, registry = up.wait_for("registry serves")
        assert url == f"http://127.0.0.1:{registry_port}"
        assert "with 1 replicas, not 3" in (tmp_path / "data" / "registry.log").read_text()
        os.kill(registry, signal.SIGKILL)
        assert up.wait_for("registry serves again")[0] == url
    finally:
        up.process.kill()
        up.process.communicate()


def test_the_children_end_with_their_parent_however_it_went(tmp_path: Path) -> None:
    up = Up(tmp_path)
    _, broker = up.wait_for("broker serves")
    url, registry = up.wait_for("registry serves")
    up.process.kill()
    up.process.communicate()

    def gone(pid: int) -> Callable[[], bool]:
        return lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]

    wait_until(gone(registry), DEADLINE_S, "the registry's end")
    wait_until(gone(broker), DEADLINE_S, "the broker's end")
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)


def test_up_ends_where_a_child_cannot_start(tmp_path: Path) -> None:
    up = Up(tmp_path, "--registry-set", "kafkastore.timeout.ms=never")
    out, err = up.process.communicate(timeout=DEADLINE_S)
    assert up.process.returncode == 1
    assert "kafkastore.timeout.ms" in err
    assert "broker has stopped" in out
    # What it says is of this start, though those before it wrote to the same file.
    log = tmp_path / "registry.log"
    log.write_text(f"of a start before\n{log.read_text()}")
    _, err = Up(tmp_path, "--registry-set", "kafkastore.timeout.ms=never").process.communicate(timeout=DEADLINE_S)
    assert "kafkastore.timeout.ms" in err
    assert "of a start before" not in err
