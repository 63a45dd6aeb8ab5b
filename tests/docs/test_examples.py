"""The examples of the documentation run, against a broker, and print what the page says they print.

A page's ```python blocks run in order and share their names, as a reader would type them. A ```text block behind one is
what it prints; ... stands for whatever comes there.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.registry import registry

from millstream.cli.app import run as run_command

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_BOOTSTRAP = "127.0.0.1:9092"
_REGISTRY = "http://127.0.0.1:8081"


class Example(NamedTuple):
    """One block of a page."""

    line: int
    code: str
    printed: str | None


def examples(page: Path, heading: str | None = None) -> list[Example]:
    """Return the blocks of a page, or of the part of it below a heading."""
    text = page.read_text(encoding="utf-8")
    start = 0 if heading is None else text.index(heading)
    return [
        Example(text.count("\n", 0, found.start()) + 2, found["code"], found["printed"])
        for found in _BLOCK.finditer(text, start)
    ]


def run(page: Path, blocks: list[Example], bootstrap: str, registry_url: str = _REGISTRY) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, code, printed in blocks:
        out = io.StringIO()
        # Tracebacks point into the page.
        compiled = compile(
            "\n" * (line - 1) + code.replace(_BOOTSTRAP, bootstrap).replace(_REGISTRY, registry_url),
            str(page),
            "exec",
            dont_inherit=True,
        )
        with contextlib.redirect_stdout(out):
            exec(compiled, names)
        if printed is not None:
            pattern = ".*".join(re.escape(part) for part in printed.split("..."))
            assert re.fullmatch(pattern, out.getvalue()), f"{page.name}:{line} prints\n{out.getvalue()}"


@pytest.mark.millstream(config={"num.partitions": 1, "group.initial.rebalance.delay.ms": 0})
def test_the_page_of_the_client(millstream_broker: Any) -> None:
    page = ROOT / "docs" / "client.md"
    blocks = examples(page)
    assert len(blocks) == 9
    assert all(block.printed is not None for block in blocks)
    run(page, blocks, millstream_broker.bootstrap_servers)


@pytest.mark.millstream(config={"num.partitions": 1, "group.initial.rebalance.delay.ms": 0})
def test_the_page_of_schemas(millstream_broker: Any) -> None:
    page = ROOT / "docs" / "schemas.md"
    blocks = examples(page)
    assert all(block.printed is not None for block in blocks)
    bootstrap = millstream_broker.bootstrap_servers
    with registry(bootstrap) as running:
        run(page, blocks, bootstrap, running.url)


def load_commands(page: Path) -> list[str]:
    """The commands on the job `flights.toml` in blocks of the page, but for the one that goes on."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^millstream load [^#\n]*flights\.toml[^#\n]*", "\n".join(blocks), re.MULTILINE)
    return [line.strip() for line in dict.fromkeys(lines) if " serve " not in line]


LOADER_PREPARED = """
from millstream import Admin, Producer
from millstream.schemas import RegistryClient
from millstream.schemas.avro import AvroEncoder
import pyarrow as pa
with Admin("127.0.0.1:9092") as admin, RegistryClient("http://127.0.0.1:8081") as registry:
    admin.create_topic("flights", partitions=2)
    schema_id = registry.register("flights-value", FLIGHT)
with Producer("127.0.0.1:9092") as producer:
    values = AvroEncoder(FLIGHT, schema_id).encode(pa.table({"id": range(100)}))
    producer.send_batch("flights", pa.table({"value": values})).result(60)
"""
FLIGHT = '{"type": "record", "name": "Flight", "fields": [{"name": "id", "type": "long"}]}'


@pytest.mark.millstream(config={"num.partitions": 1})
def test_the_page_of_the_loader(millstream_broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its addresses are places below one folder, where the job file of its first TOML block lies too."""
    page = ROOT / "docs" / "loader.md"
    lake = (tmp_path / "lake").as_uri()
    bootstrap = millstream_broker.bootstrap_servers
    with registry(bootstrap) as running:

        def placed(text: str) -> str:
            for address in ("file:///var/lib/lake", "hdfs://cluster1/warehouse/raw", "hdfs://cluster1/warehouse"):
                text = text.replace(f'"{address}"', f'"{lake}"')
            text = text.replace("number=41", "number=report.number")
            return text.replace(_BOOTSTRAP, bootstrap).replace(_REGISTRY, running.url)

        first = re.search(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        assert first is not None
        (tmp_path / "flights.toml").write_text(placed(first[1]).replace(', "weather"', ""))
        clicks = tmp_path / "lake" / "raw" / "clicks" / "parquet"
        clicks.mkdir(parents=True)
        pq.write_table(pa.table({"id": range(3)}), clicks / "part-0.parquet")
        monkeypatch.chdir(tmp_path)
        blocks = [block for block in examples(page) if "BashOperator(" not in block.code]
        assert len(blocks) == len(examples(page)) - 1, "Airflow's own is looked at by tests/packaging"
        prepared = Example(1, f"FLIGHT = {FLIGHT!r}\n{LOADER_PREPARED}", None)
        run(page, [prepared, *(block._replace(code=placed(block.code)) for block in blocks)], bootstrap, running.url)
        shutil.rmtree(tmp_path / "lake" / "raw")
        flights = tmp_path / "lake" / "flights" / "parquet"
        directory = next(flights.rglob("*.parquet")).parent.relative_to(flights)
        commands = [line.replace("year=2013/month=12", str(directory)) for line in load_commands(page)]
        assert len(commands) >= 10
        assert {command: run_command(shlex.split(command)[1:]) for command in commands} == dict.fromkeys(commands, 0)


@pytest.mark.millstream(config={"num.partitions": 1, "group.initial.rebalance.delay.ms": 0})
def test_the_readme(millstream_broker: Any) -> None:
    page = ROOT / "README.md"
    blocks = [block for block in examples(page) if "from millstream import" in block.code]
    assert blocks
    run(page, blocks, millstream_broker.bootstrap_servers)


@pytest.mark.parametrize("name", ["client.md", "schemas.md"])
def test_no_example_is_passed_over(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text.count("```python") == len(examples(ROOT / "docs" / name))
