"""`millstream produce` and `consume` as a user pipes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

TopicName = Callable[[], str]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_lines_come_back(millstream: CommandLine, topic_name: TopicName, codec: str) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    lines = "".join(f"line {index}\n" for index in range(5_000))
    result = millstream(
        "produce", name, "-z", codec, "--idempotent", "--batch-bytes", "5000", stdin=lines, process=True
    )
    assert result.out == ""
    assert result.err.startswith("produced 5,000 records, ")
    assert millstream("consume", name, process=True).out == lines


def test_keys_choose_partitions_and_formats_show_them(
    millstream: CommandLine, topic_name: TopicName, tmp_path: Path
) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "3")
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"k{index % 4}:v{index}\n" for index in range(40)) + "no key and no line end")
    summary = millstream("produce", name, "--key-separator", ":", "--file", str(file), "--json").json
    assert (summary["records"], summary["bytes"]) == (41, file.stat().st_size)

    rows = [
        line.split("|")
        for line in millstream("consume", name, "--format", r"{partition}|{key}|{value}").out.splitlines()
    ]
    assert sorted(row[2] for row in rows) == sorted([f"v{index}" for index in range(40)] + ["no key and no line end"])
    for key in ("k0", "k1", "k2", "k3"):
        of_key = [row for row in rows if row[1] == key]
        assert len({row[0] for row in of_key}) == 1
        assert [int(row[2][1:]) for row in of_key] == sorted(int(row[2][1:]) for row in of_key)


def test_headers_and_nulls_are_written(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    options = ("-K", ":", "--null", "<null>", "-H", "source=test=1", "-H", "source=")
    millstream("produce", name, *options, stdin="<null>:value\nkey:<null>\n:\n")
    records = [json.loads(line) for line in millstream("consume", name, "--json").out.splitlines()]
    assert [(one["key"], one["value"]) for one in records] == [(None, "value"), ("key", None), ("", "")]
    assert all(one["headers"] == [["source", "test=1"], ["source", ""]] for one in records)
    assert millstream("consume", name, "-n", "1", "--format", "{headers}").out == "source=test=1,source=\n"
    assert "write name=value" in millstream("produce", name, "-H", "nonsense", code=2).err


def test_an_offset_past_the_end_is_said(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "2")
    millstream("produce", name, "-p", "1", stdin="a\nb\n")
    assert millstream("consume", name, "--offset", "2").out == ""
    assert f"offset 3 is past the end of {name}" in millstream("consume", name, "--offset", "3", code=1).err


def test_json_lines_hold_everything(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    millstream("produce", name, "-K", "=", stdin=b"key=v\xc3\xa4lue\nbinary=\xff\xfe\n")
    first, second = [json.loads(line) for line in millstream("consume", name, "--json").out.splitlines()]
    assert (first["topic"], first["partition"], first["offset"]) == (name, 0, 0)
    assert (first["key"], first["value"]) == ("key", "välue")
    assert second["value"] == {"base64": "//4="}


def test_where_reading_starts_and_ends(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    millstream("produce", name, stdin="".join(f"{index}\n" for index in range(100)))
    assert millstream("consume", name, "-n", "3").out == "0\n1\n2\n"
    assert millstream("consume", name, "--offset", "97").out == "97\n98\n99\n"
    assert millstream("consume", name, "--offset", "-2").out == "98\n99\n"
    assert millstream("consume", name, "--from-time", "2100-01-01").out == ""
    assert millstream("consume", name, "--from-beginning", "-p", "0", "-n", "1").out == "0\n"
    millstream("consume", name, "--from-beginning", "--offset", "1", code=2)
    assert "there is no field {nope}" in millstream("consume", name, "--format", "{nope}", code=2).err
    assert "there is no topic" in millstream("consume", topic_name(), code=1).err


def test_following_sees_what_is_written_and_ends_by_ctrl_c(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "2")
    following = subprocess.Popen(
        [sys.executable, "-m", "millstream", "consume", name, "--follow", "--from-beginning"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=millstream.environment,
    )
    assert following.stdout is not None
    try:
        for word in ("first", "second"):
            millstream("produce", name, stdin=f"{word}\n")
            assert following.stdout.readline() == f"{word}\n".encode()
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=90)
    finally:
        following.kill()
        following.wait()
    assert (following.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_leaves_ends_the_command_quietly(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    millstream("produce", name, stdin="some longer line\n" * 50_000)
    read, write = os.pipe()
    consuming = subprocess.Popen(
        [sys.executable, "-m", "millstream", "consume", name],
        stdout=write,
        stderr=subprocess.PIPE,
        env=millstream.environment,
    )
    os.close(write)
    assert os.read(read, 16) == b"some longer line"
    os.close(read)
    _, err = consuming.communicate(timeout=90)
    assert (consuming.returncode, err) == (1, b"")


def test_a_topic_is_created_by_the_first_record(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("produce", name, stdin="hello\n")
    assert millstream("consume", name).out == "hello\n"


def test_a_record_that_is_refused_fails_the_command_with_the_reason(
    millstream: CommandLine, topic_name: TopicName
) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1", "-c", "max.message.bytes=1000")
    assert f"{name}-0 took no records" in millstream("produce", name, stdin="x" * 3_000 + "\n", code=1).err


@pytest.mark.parametrize("mode", ["0", "1", "all"])
def test_acks(millstream: CommandLine, topic_name: TopicName, mode: str) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    millstream("produce", name, "--acks", mode, stdin="hello\n")
    assert millstream("consume", name, "--follow", "--from-beginning", "-n", "1").out == "hello\n"


def test_a_group_goes_on_where_it_left_off(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "1")
    millstream("produce", name, stdin="".join(f"{index}\n" for index in range(10)))
    assert millstream("consume", name, "--group", name, "-n", "3").out == "0\n1\n2\n"
    assert millstream("consume", name, "--group", name).out == "".join(f"{index}\n" for index in range(3, 10))
    assert millstream("consume", name, "--group", name).out == ""
    millstream("produce", name, stdin="new\n")
    assert millstream("consume", name, "--group", name, "--follow", "-n", "1").out == "new\n"
    (row,) = millstream("groups", "describe", name, "--json").json[0]["offsets"]
    assert (row["committed"], row["lag"]) == (11, 0)
    refused = millstream("consume", name, "--group", name, "--offset", "3", code=2)
    assert "a group decides on partitions and offsets" in refused.err
    assert "there is no topic" in millstream("consume", topic_name(), "--group", name, code=1).err


def test_a_partition_that_is_not_there_is_said_at_once(millstream: CommandLine, topic_name: TopicName) -> None:
    name = topic_name()
    millstream("topics", "create", name, "-p", "2")
    for command in ("produce", "consume"):
        assert f"topic '{name}' has no partition 2: it has 2" in millstream(command, name, "-p", "2", code=2).err


def test_settings_of_the_client_come_from_a_file(
    millstream: CommandLine, topic_name: TopicName, tmp_path: Path
) -> None:
    name = topic_name()
    file = tmp_path / "client.properties"
    # Each command takes what is its client's.
    file.write_text("client.id=from-a-file\ncompression.type=zstd\nmax.poll.records=3\n")
    millstream("topics", "create", name, "-p", "1", "--command-config", str(file))
    millstream("produce", name, "--command-config", str(file), stdin="hello\n")
    assert millstream("consume", name, "--command-config", str(file)).out == "hello\n"
    file.write_text("\nsecurity.protocl=SSL\n")
    refused = millstream("topics", "list", "--command-config", str(file), code=1).err
    assert refused.endswith(f"{file}:2: Unknown configuration: security.protocl; did you mean security.protocol?\n")
    file.write_text("security.protocol=SSL\nssl.truststore.location=/no/such.pem\n")
    for command in (("topics", "list"), ("produce", name), ("consume", name), ("groups", "list")):
        assert "/no/such.pem" in millstream(*command, "--command-config", str(file), code=1).err
    assert "does not exist" in millstream("topics", "list", "--command-config", "/no/file", code=2).err
    assert "--command-config" not in millstream("demo", "--help").out
