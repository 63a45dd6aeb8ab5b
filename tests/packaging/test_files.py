"""The files of `packaging/`: the unit starts what exists, the example loads, the image names no registry."""

from __future__ import annotations

import configparser
import contextlib
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from millstream.core.config import BrokerConfig

FOLDER = Path(__file__).parents[2] / "packaging"


def unit(name: str = "millstream.service") -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / name)
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


@pytest.mark.parametrize(
    "name",
    ["millstream.service", "millstream-load@.service", "millstream-load@.timer", "millstream-load-serve.service"],
)
def test_systemd_accepts_the_units(name: str, tmp_path: Path) -> None:
    # Where there is no systemd, what can be checked without it is: every line is a section, a setting or a comment.
    text = (FOLDER / name).read_text()
    assert all(re.match(r"(\[\w+\]|[A-Z]\w+=.*|#.*|)\Z", line) for line in text.splitlines())
    if shutil.which("systemd-analyze"):
        copy = tmp_path / name
        copy.write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
        )
        assert not [line for line in done.stderr.splitlines() if name in line], done.stderr


def test_the_units_of_loads_run_commands_there_are() -> None:
    import typer

    from millstream.cli.app import app

    commands = typer.main.get_command(app).commands["load"].commands  # type: ignore[attr-defined]
    run, serve = unit("millstream-load@.service")["Service"], unit("millstream-load-serve.service")["Service"]
    assert "millstream load run --quiet /etc/millstream/jobs/%i.toml" in run["ExecStart"]
    assert "millstream load serve --http 127.0.0.1:9480 " in serve["ExecStart"]
    assert {"--quiet", "-q"} & {name for param in commands["run"].params for name in param.opts}
    assert "--http" in {name for param in commands["serve"].params for name in param.opts}
    assert run["SuccessExitStatus"].split() == ["4", "130"]
    assert serve["SuccessExitStatus"] == "130"
    assert serve["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize("home", ["airflow.operators.bash", "airflow.providers.standard.operators.bash"])
def test_the_dag_has_a_task_for_each_job(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow, 2 and 3, stands in as two classes: its own package pins what the rest of the tests need."""
    tasks: list[dict[str, Any]] = []

    class Dag(contextlib.AbstractContextManager["Dag"]):
        def __init__(self, **settings: Any) -> None:
            self.settings = settings

        def __exit__(self, *error: object) -> None:
            pass

    parts = home.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    modules = {name: types.ModuleType(name) for name in names}
    modules["airflow"].DAG = Dag  # type: ignore[attr-defined]
    modules[home].BashOperator = lambda **settings: tasks.append(settings)  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "flights.toml", self / "clicks.toml"]))

    runpy.run_path(str(FOLDER / "airflow_load.py"))

    assert [task["task_id"] for task in tasks] == ["load_clicks", "load_flights"]
    assert tasks[0]["bash_command"] == "millstream load run --quiet /etc/millstream/jobs/clicks.toml"
    assert tasks[0]["skip_on_exit_code"] == 4


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
