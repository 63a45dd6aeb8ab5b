"""The notebooks run from top to bottom against a broker, and are kept without what they printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tests.support.registry import registry

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
# nbformat says that it is typed; this function of it is not.
_read: Any = nbformat.read
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A process of its own: a kernel and its client bring sockets, loops and warnings that are not ours.
_EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=400, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs keep what is theirs."""
    return tmp_path_factory.mktemp("settings")


def executed(path: Path, bootstrap: str, folder: Path, settings: Path, registry_url: str = "") -> Any:
    """Run a notebook, and return it with its outputs."""
    result = folder / path.name
    environment = {
        **os.environ,
        "MILLSTREAM_BOOTSTRAP_SERVER": bootstrap,
        "MILLSTREAM_REGISTRY": registry_url,
        "IPYTHONDIR": str(settings / "ipython"),
        # Here matplotlib keeps the list of fonts, which it takes seconds to make.
        "MPLCONFIGDIR": str(settings / "matplotlib"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        [sys.executable, "-c", _EXECUTE, str(path), str(result)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=450,
    )
    assert done.returncode == 0, done.stderr
    return _read(result, as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01-explore-a-topic.ipynb", "02-load-to-hadoop.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = _read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook) == []
    assert all(cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_a_topic_is_explored(millstream_broker: Any, tmp_path: Path, settings: Path) -> None:
    notebook = executed(NOTEBOOKS[0], millstream_broker.bootstrap_servers, tmp_path, settings)
    printed = "".join(output.text for output in outputs(notebook) if output.output_type == "stream")
    assert printed == "336776 flights sent\n336,776 records in 6 partitions\n"
    shown = [kind for output in outputs(notebook) for kind in output.get("data", {})]
    assert {"text/html", "image/png"} <= set(shown)
    (table,) = [output.data["text/html"] for output in outputs(notebook) if "text/html" in output.get("data", {})]
    assert "dep_delay" in table
    again = executed(NOTEBOOKS[0], millstream_broker.bootstrap_servers, tmp_path, settings)
    assert "already exists" in "".join(output.text for output in outputs(again) if output.output_type == "stream")


def test_topics_are_loaded_into_hadoop(millstream_broker: Any, tmp_path: Path, settings: Path) -> None:
    with registry(millstream_broker.bootstrap_servers) as schemas:
        notebook = executed(NOTEBOOKS[1], millstream_broker.bootstrap_servers, tmp_path, settings, schemas.url)
    printed = "".join(output.text for output in outputs(notebook) if output.output_type == "stream")
    for line in (
        "there is no such zone; did you mean America/New_York?",
        "loaded: 166,158 rows",
        "loaded: 170,618 rows",
        "new-york-flights: cancelled is new",
        "336,776 flights",
        "673,552 rows verified, 0 findings",
    ):
        assert line in printed, printed
    shown = [kind for output in outputs(notebook) for kind in output.get("data", {})]
    assert shown.count("image/png") == 3
    assert (tmp_path / "lake" / "new-york-flights" / "parquet" / "year=2013" / "month=11" / "_SUCCESS").is_file()
