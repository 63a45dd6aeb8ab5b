"""`millstream demo`: the main job on real data, start to end, in under a minute.

new_york.py   the flights that left New York in 2013, and the weather there      story.py   what is done with them
telling.py    each step in a line, or all of them as JSON
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from millstream.cli.options import CompressionName, examples


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream demo",
            "millstream demo --data-dir demo   # keeps everything, the job file too",
            "millstream demo --destination hdfs://namenode:8020/tmp/demo",
            "millstream demo --json",
        )
    )(demo)


def demo(
    destination: Annotated[
        str | None,
        typer.Option("--destination", "-o", metavar="URI", help="Where the files go: file, hdfs or webhdfs."),
    ] = None,
    compression: Annotated[
        CompressionName, typer.Option("--compression", "-z", help="Codec of the batches.")
    ] = CompressionName.zstd,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", metavar="N", min=1, max=1000, help="Of each topic.")
    ] = 6,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "-d", metavar="DIR", help="Keep everything here; removed otherwise."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Load a year of real flights from Kafka into Parquet and Avro, and check every one.

    A broker and a schema registry are started, as `millstream up` runs them; flights and weather are produced as Avro
    and loaded in parallel; the schema grows, more flights come, and a second run loads them; the closed months are
    compacted; what the files hold is compared with what was sent, field by field.
    """
    from millstream.cli.demo.story import Story
    from millstream.cli.demo.telling import Teller

    with tempfile.TemporaryDirectory(prefix="millstream-demo-") as temporary:
        folder = Path(temporary) if data_dir is None else data_dir.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        teller = Teller(as_json=as_json)
        with Story(folder, destination, partitions, compression.value, teller) as story:
            story.tell()
        teller.end(kept=data_dir, destination=destination)
