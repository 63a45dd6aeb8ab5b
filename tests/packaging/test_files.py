"""The files of `packaging/`: the unit starts what exists, the example loads, the image names no registry."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

from millstream.core.config import BrokerConfig

FOLDER = Path(__file__).parents[2] / "packaging"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / "millstream.service")
    return parser


def test_the_unit_waits_for_the_broker_and_lets_it_stop() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["LimitNOFILE"]) >= 65_536
    assert service["KillSignal"] == "SIGTERM"
    assert service["ExecStart"].endswith("millstream server --config /etc/millstream/server.properties")
    writable = service["ReadWritePaths"].split()
    config = BrokerConfig.load(FOLDER / "server.properties")
    assert [str(path) for path in config.log_dirs] == [writable[0]]
    assert config.string("millstream.log.file").startswith(writable[1])


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    # Where there is no systemd, what can be checked without it is: every line is a section, a setting or a comment.
    text = (FOLDER / "millstream.service").read_text()
    assert all(re.match(r"(\[\w+\]|[A-Z]\w+=.*|#.*|)\Z", line) for line in text.splitlines())
    if shutil.which("systemd-analyze"):
        copy = tmp_path / "millstream.service"
        copy.write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
        )
        assert not [line for line in done.stderr.splitlines() if "millstream.service" in line], done.stderr


def test_the_example_configuration_has_no_unknown_names() -> None:
    config = BrokerConfig.load(FOLDER / "server.properties")
    assert config.warnings == ()
    assert config.string("millstream.http.listener") == "127.0.0.1:9404"


def test_the_image_is_built_from_a_plain_base_and_runs_as_nobody_special() -> None:
    text = (FOLDER / "Containerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases == ["python:3.11-slim", "python:3.11-slim"]
    assert re.search(r"^USER millstream$", text, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
    for source in re.findall(r"^COPY (?!--)(.+) \./?\S*$", text, re.MULTILINE):
        for name in source.split():
            assert (FOLDER.parent / name).exists(), f"COPY {name}"
