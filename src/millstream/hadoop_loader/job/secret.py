"""A password, token or key of a job: where it is to be found, and never shown.

In a job file a secret is a reference, `{ env = "NAME" }` or `{ file = "PATH" }`; text in the clear is refused there,
because job files are kept in version control. A reference is looked up when a run starts (`LoadJob.resolved`), so a
rotated file is taken by the next run; from there on the job carries the text itself, also to workers on other machines,
which have neither the variable nor the file. Its repr shows the reference, never the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from millstream.hadoop_loader.job.problem import JobError, Problem

SECRET_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret: one of `env` (a variable's name) and `file` (a path); or the `text` itself.

    Secret("s3cret"), Secret(env="KAFKA_PASSWORD"), Secret(file="/etc/millstream/kafka.password")
    """

    text: str | None = field(default=None, repr=False)
    env: str | None = None
    file: str | None = None

    def resolved(self, environ: Mapping[str, str], *, key: str = "a secret") -> Secret:
        """Return the secret with its text looked up; `key` is what messages call it. Raises JobError."""
        if self.text is not None:
            return self
        if self.env is not None:
            text = environ.get(self.env)
            if not text:
                state = "is not set" if text is None else "is empty"
                raise _error(
                    key,
                    f'{{ env = "{self.env}" }}',
                    f"the variable {self.env} {state}",
                    "set it for the process that runs the job, or name a file with { file = ... }",
                )
            return replace(self, text=text)
        assert self.file is not None, "a secret that refers to nothing"
        return replace(self, text=self._read(self.file, key))

    def reveal(self) -> str:
        """Return the text of a secret that was looked up; a job does that by `LoadJob.resolved`."""
        assert self.text is not None, f"{self!r} was not looked up: take it from LoadJob.resolved(environ)"
        return self.text

    def _read(self, file: str, key: str) -> str:
        shown = f'{{ file = "{file}" }}'
        try:
            with Path(file).expanduser().open("rb") as stream:
                data = stream.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            remedy = "name a file that the user who runs the job can read"
            raise _error(key, shown, f"the file cannot be read: {error.strerror}", remedy) from error
        try:
            text = data.decode().strip("\r\n")
        except UnicodeDecodeError as error:
            raise _error(key, shown, "the file is no UTF-8 text", "write the secret as text, on one line") from error
        if not text or len(data) > SECRET_BYTES_MAX:
            what = "the file is empty" if not text else f"the file is longer than {SECRET_BYTES_MAX} bytes"
            raise _error(key, shown, what, "put nothing but the secret into it")
        return text


def is_reference(given: Any) -> bool:
    """Whether a value of a job file is meant as a reference to a secret."""
    return isinstance(given, Mapping) and bool(given) and not given.keys() - {"env", "file"}


def _error(key: str, value: str, what: str, remedy: str) -> JobError:
    return JobError([Problem(key, value, what, remedy)])
