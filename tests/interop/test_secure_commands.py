"""The command line on protected listeners of Apache Kafka, by a file that `--command-config` names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.support.secured_kafka import PASSWORD, SECURITY, USER, Secured

from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.job import LoadJob

pytestmark = pytest.mark.java

SECRETS = {"sasl.password", "sasl.jaas.config"}

Ways = dict[str, Callable[[Secured], tuple[int, dict[str, str]]]]


def _trusting(secured: Secured, **more: str) -> dict[str, str]:
    return {"ssl.truststore.location": str(secured.certificates.authority), **more}


def _jaas(module: str, **options: str) -> str:
    given = " ".join(f'{name}="{value}"' for name, value in options.items())
    return f"{SECURITY}.{module} required {given};"


WAYS: Ways = {
    "tls": lambda secured: (secured.tls_port, _trusting(secured, **{"security.protocol": "SSL"})),
    "mutual tls": lambda secured: (
        secured.mutual_port,
        _trusting(secured, **{"security.protocol": "SSL", "ssl.keystore.location": str(secured.certificates.client)}),
    ),
    "plain": lambda secured: (
        secured.sasl_port,
        {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": _jaas("plain.PlainLoginModule", username=USER, password=PASSWORD),
        },
    ),
    "scram over tls": lambda secured: (
        secured.sasl_tls_port,
        _trusting(
            secured,
            **{
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
            },
        ),
    ),
}


def write(file: Path, settings: dict[str, str]) -> str:
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return str(file)


@pytest.mark.parametrize("way", WAYS)
def test_every_command_comes_in(secured: Secured, tmp_path: Path, way: str) -> None:
    port, settings = WAYS[way](secured)
    millstream = CommandLine(f"127.0.0.1:{port}")
    given = ("--command-config", write(tmp_path / "client.properties", settings))
    topic = f"secure-{way.replace(' ', '-')}"
    millstream("topics", "create", topic, "-p", "1", *given)
    assert topic in millstream("topics", "list", *given).out
    assert "retention.ms" in millstream("configs", "describe", "--topic", topic, "--all", *given).out
    millstream("produce", topic, *given, stdin="one\ntwo\n")
    assert millstream("consume", topic, *given).out == "one\ntwo\n"
    assert millstream("consume", topic, "--group", topic, *given).out == "one\ntwo\n"
    (row,) = millstream("groups", "describe", topic, "--json", *given).json[0]["offsets"]
    assert (row["committed"], row["lag"]) == (2, 0)
    assert "2" in millstream("offsets", topic, *given).out


@pytest.mark.parametrize(
    ("way", "changes", "sentence"),
    [
        ("tls", {"ssl.truststore.location": ""}, "is not to be trusted"),
        ("plain", {"sasl.jaas.config": _jaas("plain.PlainLoginModule", username=USER, password="wr0ng")}, "refused"),
        ("scram over tls", {"sasl.password": "wr0ng"}, "refused these credentials"),
        ("scram over tls", {"sasl.mechanism": "GSSAPI"}, "sasl.kerberos.service.name"),
    ],
    ids=["an authority that nobody gave", "a wrong password", "a wrong secret", "a mechanism that lacks something"],
)
def test_what_keeps_it_out_is_one_sentence(
    secured: Secured, tmp_path: Path, way: str, changes: dict[str, str], sentence: str
) -> None:
    port, settings = WAYS[way](secured)
    settings = {name: value for name, value in {**settings, **changes}.items() if value}
    given = ("--command-config", write(tmp_path / "client.properties", settings))
    millstream = CommandLine(f"127.0.0.1:{port}")
    for command in (("topics", "list"), ("produce", "t"), ("consume", "t"), ("groups", "list")):
        refused = millstream(*command, *given, stdin="x\n", code=1)
        assert sentence in refused.err
        assert "wr0ng" not in refused.err


@pytest.mark.parametrize("way", ["mutual tls", "plain", "scram over tls"])
def test_a_load_comes_in_with_its_workers(secured: Secured, tmp_path: Path, way: str) -> None:
    port, settings = WAYS[way](secured)
    topic = f"load-{way.replace(' ', '-')}"
    given = ("--command-config", write(tmp_path / "client.properties", settings))
    millstream = CommandLine(f"127.0.0.1:{port}")
    millstream("topics", "create", topic, "-p", "2", *given)
    millstream("produce", topic, *given, stdin="one\ntwo\n")
    secrets = {name.upper().replace(".", "_"): settings[name] for name in SECRETS & settings.keys()}
    shown = {name: json.dumps(value) for name, value in settings.items()}
    shown |= {name: f'{{ env = "{name.upper().replace(".", "_")}" }}' for name in SECRETS & settings.keys()}
    job = LoadJob.loads(
        f"""
        name = "{topic}"
        workers = 1
        [source]
        bootstrap_servers = "127.0.0.1:{port}"
        topics = "{topic}"
        [value]
        format = "raw"
        [destination]
        uri = "{(tmp_path / "lake").as_uri()}"
        [source.client]
        """
        + "".join(f"{name} = {value}\n" for name, value in shown.items())
    )

    report = run_load(job.resolved(secrets))

    assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, 2, [])
    assert PASSWORD not in json.dumps(report.as_json()) + repr(job.resolved(secrets))
