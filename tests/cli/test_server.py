"""`millstream server` and `doctor`: starts, stops, and the sentences for what keeps them from it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from millstream import __version__
from millstream.cli.pairs import parse_pairs
from millstream.cli.serve import load_config, plain_config
from millstream.core.config import ConfigError
from millstream.testing.kafka import free_ports


@contextmanager
def serving(*arguments: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `millstream server` until the block ends; gives the process and where it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "millstream", "server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(f"millstream {__version__} serving on "), process.stderr and process.stderr.read()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_so_and_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with serving("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")) as (process, address):
        command = CommandLine(address)
        command("produce", "kept", stdin="one\ntwo\n")
        process.send_signal(number)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()
    with serving("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")) as (_, address):
        assert CommandLine(address)("consume", "kept").out == "one\ntwo\n"


def test_the_data_lies_beside_the_caller_by_default(tmp_path: Path) -> None:
    with serving("--listen", "127.0.0.1:0", cwd=tmp_path):
        assert (tmp_path / "millstream-data" / "meta.properties").is_file()


def test_a_properties_file_of_kafka_is_taken(tmp_path: Path, offline: CommandLine) -> None:
    file = tmp_path / "server.properties"
    file.write_text(
        "process.roles=broker,controller\nnode.id=3\ncontroller.listener.names=CONTROLLER\n"
        "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n"
        f"log.dirs={tmp_path}/a,{tmp_path}/b\nnum.partitions=5\n"
    )
    shown = offline("server", "--config", str(file), "--set", "num.partitions=6", "--show-config").json
    assert (shown["node.id"], shown["num.partitions"], shown["log.dirs"]) == (3, 6, [f"{tmp_path}/a", f"{tmp_path}/b"])
    with serving("--config", str(file)) as (_, address):
        CommandLine(address)("topics", "create", "t")
        (topic,) = CommandLine(address)("topics", "list", "--json").json
        assert topic["partitions"] == 5


def test_what_keeps_it_from_starting_is_one_sentence(tmp_path: Path, offline: CommandLine) -> None:
    data = str(tmp_path / "data")
    free = ("--listen", "127.0.0.1:0")
    with serving(*free, "--data-dir", data) as (_, address):
        taken = offline("server", *free, "--data-dir", data, code=1)
        assert "is in use by another process" in taken.err
        assert offline("server", *free, "--data-dir", data, code=1, process=True).err == taken.err
        bound = offline("server", "--listen", address, "--data-dir", str(tmp_path / "other"), code=1)
        assert "Address already in use; stop the process that listens there" in bound.err
    other_node = offline("server", *free, "--data-dir", data, "--set", "node.id=7", code=1)
    assert "node.id is 1, but this broker's is 7" in other_node.err
    file = tmp_path / "server.properties"
    file.write_text("# first\nnum.partitions=many\n")
    bad = offline("server", "--config", str(file), code=1)
    assert f"{file}, line 2: Invalid value many for configuration num.partitions" in bad.err
    for result in (taken, bound, other_node, bad):
        assert len(result.err.splitlines()) == 1, result.err


def test_a_data_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path, offline: CommandLine) -> None:
    file = tmp_path / "file"
    file.write_text("")
    zookeeper, unreadable = tmp_path / "zookeeper", tmp_path / "unreadable"
    for directory, text in (
        (zookeeper, "version=0\nbroker.id=0\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\n"),
        (unreadable, "version=1\nnode.id=x\n"),
    ):
        directory.mkdir()
        (directory / "meta.properties").write_text(text)
    for directory, complaint in (
        (file, "is a file"),
        (file / "below", f"cannot be made: {file} is a file"),
        (zookeeper, "migrate it to KRaft"),
        (unreadable, "node.id is x"),
    ):
        result = offline("server", "--listen", "127.0.0.1:0", "--set", f"log.dirs={directory}", code=1)
        assert complaint in result.err
        assert len(result.err.splitlines()) == 1, result.err
    assert "migrate it to KRaft" in offline("doctor", "-d", str(zookeeper), code=1).out
    assert offline("doctor", "-d", str(unreadable), "--json").json["open_transactions"] == []
    with serving("--listen", "127.0.0.1:0", "--set", f"log.dirs={tmp_path / 'good'},{file}") as (_, address):
        assert CommandLine(address)("topics", "create", "t").out == "t: created\n"


def test_an_unknown_name_is_said_with_the_nearest_one(tmp_path: Path) -> None:
    with serving("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), "--set", "num.partition=3") as (
        process,
        _,
    ):
        process.terminate()
        _, err = process.communicate(timeout=90)
    assert "num.partition is no config that is known here; is it meant to be num.partitions?" in err


def test_a_public_address_is_warned_about(tmp_path: Path) -> None:
    with serving("--listen", "0.0.0.0:0", "--data-dir", str(tmp_path / "data")) as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=90)
    assert "public address" in err


def test_options_go_over_the_file_and_settings_over_both(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    file.write_text(f"listeners=PLAINTEXT://127.0.0.1:1111\nlog.dirs={tmp_path}/file\nnum.partitions=2\n")
    kept = load_config(file, listen=None, data_dir=None, settings={})
    assert (kept.listeners[0].port, kept.log_dirs) == (1111, (tmp_path / "file",))
    over = load_config(file, listen="127.0.0.1:2222", data_dir=tmp_path / "option", settings={"num.partitions": "9"})
    assert (over.listeners[0].port, over.log_dirs, over.num_partitions) == (2222, (tmp_path / "option",), 9)
    default = load_config(None, listen=None, data_dir=None, settings={})
    assert (default.listeners[0].host, default.listeners[0].port) == ("127.0.0.1", 9092)
    assert default.log_dirs == (Path.cwd() / "millstream-data",)
    with pytest.raises(ConfigError):
        load_config(None, listen=None, data_dir=None, settings={"num.partitions": "x"})
    with pytest.raises(ValueError, match="write name=value"):
        parse_pairs(["nonsense"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--show-config"],
        ["--listen"],
        ["--listen", "x:y"],
        ["--listen", "--help"],
        ["--set", "nonsense"],
        ["--set", "num.partitions=x"],
        ["--config", "/nonexistent/server.properties"],
        ["--data-dir", "/dev/null"],
        ["--listen=127.0.0.1:0"],
        ["--nonsense", "x"],
    ],
    ids=" ".join,
)
def test_what_is_not_plain_or_is_wrong_is_left_to_the_command(arguments: list[str]) -> None:
    assert plain_config(arguments) is None


def test_a_plain_command_line_means_what_the_command_says(tmp_path: Path, offline: CommandLine) -> None:
    file = tmp_path / "server.properties"
    file.write_text("num.partitions=2\nlistener.name=x\nlisteners=PLAINTEXT://127.0.0.1:1111\n")
    for arguments in (
        [],
        ["-c", str(file), "-s", "num.partitions=3", "--set", "num.partitions=4"],
        ["-l", "127.0.0.1:5", "--listen", "127.0.0.1:6", "--config", str(file), "-d", str(tmp_path / "data")],
    ):
        config = plain_config(arguments)
        assert config is not None
        shown = offline("server", *arguments, "--show-config").json
        assert {name: str(config[name]) for name in shown} == {name: str(value) for name, value in shown.items()}


def test_doctor_looks_at_the_machine_and_at_a_directory(tmp_path: Path, offline: CommandLine) -> None:
    alone = offline("doctor", "--json").json
    assert {"kernels"} <= {finding["subject"] for finding in alone["findings"]}
    assert alone["open_transactions"] == []
    data = tmp_path / "data"
    with serving("--listen", "127.0.0.1:0", "--data-dir", str(data)) as (process, address):
        CommandLine(address)("produce", "t", stdin="one\n")
        running = offline("doctor", "--data-dir", str(data))
        assert "in use by another process" in running.out
        assert "in use by another process" in offline("doctor", "-d", str(data), "--abort", "all", code=1).err
        process.terminate()
        process.wait(90)
    stopped = offline("doctor", "--data-dir", str(data))
    assert str(data) in stopped.out
    assert "in use" not in stopped.out
    assert "no such open transaction" in offline("doctor", "-d", str(data), "--abort", "t-0:1", code=1).err


def test_a_port_that_was_asked_for_is_the_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with serving("--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path / "data")) as (_, address):
        assert address == f"127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), 60).close()
