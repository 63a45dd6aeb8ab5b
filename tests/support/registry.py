"""A schema registry for a test: the real one, a child process of its own.

    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        schemas.url                       # "http://127.0.0.1:PORT"

`Asker` asks one plainly, for tests whose subject is what it answers.
"""

from __future__ import annotations

import http.client
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from millstream.cli.child import RegistryProcess

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
ASK_TIMEOUT_S: Final = 60.0
CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


@contextmanager
def registry(
    bootstrap: str, settings: Mapping[str, str] | None = None, *, listen: str = "127.0.0.1:0"
) -> Iterator[RegistryProcess]:
    """A registry that keeps its schemas in the cluster at `bootstrap`; `settings` are Confluent's names.

    What is yielded has `.url`, `.pid`, `.stop()`, `.kill()` and `.output()`; it is ended with the block. One with a
    topic of its own elects its leader in a group of its own: members of a group forward writes to one another.
    """
    config = {"kafkastore.topic.replication.factor": "1", **(settings or {})}
    if topic := config.get("kafkastore.topic"):
        config.setdefault("schema.registry.group.id", f"registries of {topic}")
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        running = RegistryProcess(
            bootstrap,
            config=config,
            listen=listen,
            output=Path(folder) / "output.txt",
            start_timeout_s=START_TIMEOUT_S,
        )
        try:
            yield running
        except BaseException as error:
            error.add_note(f"the registry at {running.url} printed:\n{running.output()}")
            raise
        finally:
            running.kill()


class Answered(NamedTuple):
    """What a registry answered."""

    status: int
    body: Any
    content_type: str | None = None

    @property
    def error_code(self) -> int | None:
        """The error code, if there is one."""
        return self.body.get("error_code") if isinstance(self.body, dict) else None


class Asker:
    """Asks a registry, one connection a question; any thread."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._address = urlsplit(url)
        self._headers = dict(headers or {})

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Answered:
        """Ask; `body` is sent as JSON, `query` behind the path."""
        assert self._address.hostname is not None
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=ASK_TIMEOUT_S)
        try:
            shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
            target = path + (f"?{urlencode(shown)}" if shown else "")
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": CONTENT_TYPE, **self._headers} if data is not None else self._headers
            connection.request(method, target, data, headers)
            # A registry that stops closes behind its answer: then the answer has the connection to itself.
            with connection.getresponse() as response:
                raw = response.read()
            content_type = response.getheader("content-type")
            is_json = raw and content_type is not None and "json" in content_type
            return Answered(response.status, json.loads(raw) if is_json else raw.decode(), content_type)
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answered:
        """GET."""
        return self.ask("GET", path, **query)

    def register(self, subject: str, schema: str, **fields: Any) -> Answered:
        """POST a schema under a subject; fields in capitals are of the query, as NORMALIZE=True."""
        query = {name.lower(): value for name, value in fields.items() if name.isupper()}
        body = {"schema": schema} | {name: value for name, value in fields.items() if not name.isupper()}
        return self.ask("POST", f"/subjects/{quote(subject, safe='')}/versions", body, **query)
