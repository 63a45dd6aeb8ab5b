"""`make demo-hdfs`: the demo with a real HDFS of its own as the destination.

A NameNode and a DataNode of Apache Hadoop are started from the jars that `make jars` fetched, and ended with the demo.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from millstream.cli.app import run
from millstream.testing.hdfs import MiniHdfs


def main() -> int:
    """Run the demo; arguments are the demo's own. Returns its exit code."""
    print("starting a NameNode and a DataNode of Apache Hadoop", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="millstream-demo-hdfs-") as folder,
        MiniHdfs(Path(folder) / "hdfs") as hdfs,
    ):
        code = run(["demo", "--destination", f"{hdfs.uri}/demo", *sys.argv[1:]])
        if "--json" not in sys.argv[1:]:
            print(
                "This HDFS ends now, with what it holds; `millstream demo --destination hdfs://...` loads into yours."
            )
        return code


if __name__ == "__main__":
    sys.exit(main())
