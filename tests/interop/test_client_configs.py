"""The clients' configs beside those of Kafka's own clients: each name is known, of the same type and default."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from millstream.core.config import ADMIN_CONFIGS, CONSUMER_CONFIGS, PRODUCER_CONFIGS
from millstream.core.config.client_configs import JAVA_ONLY, WITHOUT_EFFECT
from millstream.testing.kafka import Java

pytestmark = pytest.mark.java

TABLES = {"producer": PRODUCER_CONFIGS, "consumer": CONSUMER_CONFIGS, "admin": ADMIN_CONFIGS}
PROGRAM = Path(__file__).parents[1] / "support" / "ClientConfigs.java"
# Only PEM stores are read; brokers should see a name; the system grows a socket's buffer as needed; a large batch
# should not fill an answer.
OTHER_DEFAULTS = {
    "client.id": "millstream",
    "max.partition.fetch.bytes": "4194304",
    "partition.assignment.strategy": "range,cooperative-sticky",
    "receive.buffer.bytes": "-1",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
}
OURS = {"buffer.memory", "sasl.password", "sasl.username"}
# Tokens are checked by the broker that is shown them, and signing an assertion is left to a token provider of the user.
LEFT_OUT_PREFIXES = (
    "sasl.oauthbearer.assertion.",
    "sasl.oauthbearer.jwks.",
    "sasl.oauthbearer.jwt.",
    "sasl.oauthbearer.expected.",
)
LEFT_OUT = {
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
    "retries",
}


def test_names_types_and_defaults_are_kafkas(jars: Path, tmp_path: Path) -> None:
    java = Java(jars)
    java.compile(PROGRAM, tmp_path)
    command = java.command("ClientConfigs")
    command[command.index("-cp") + 1] += f":{tmp_path}"
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    theirs: dict[str, dict[str, tuple[str, str]]] = {}
    for line in printed.splitlines():
        kind, name, type_name, default = line.split("\t")
        theirs.setdefault(kind, {})[name] = (type_name, default)
    assert theirs.keys() == TABLES.keys()
    for kind, definition in TABLES.items():
        for name, (type_name, default) in theirs[kind].items():
            if name in JAVA_ONLY or name in WITHOUT_EFFECT or name.startswith(LEFT_OUT_PREFIXES):
                continue
            if name not in definition:
                assert name in LEFT_OUT, f"{kind}: {name} is not known"
                continue
            key = definition[name]
            assert key.type.name == type_name, name
            rendered = "null" if key.default is None else _text(key.default)
            assert rendered == OTHER_DEFAULTS.get(name, default), name
        assert set(definition) - set(theirs[kind]) <= OURS


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)
