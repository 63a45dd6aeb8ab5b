"""The command line on protected listeners of Apache Kafka, by a file that `--command-config` names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from tests.cli.conftest import CommandLine
from tests.support.secured_kafka import PASSWORD, SECURITY, USER, Secured

from millstream.cli.app import run
from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, Secret, SourceSettings, ValueSettings
from millstream.testing.kafka import wait_until

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


def test_a_wrong_secret_is_one_sentence_and_a_rotated_one_is_taken_by_the_next_run(
    secured: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, settings = WAYS["scram over tls"](secured)
    topic = "load-rotated"
    given = ("--command-config", write(tmp_path / "client.properties", settings))
    millstream = CommandLine(f"127.0.0.1:{port}")
    millstream("topics", "create", topic, "-p", "2", *given)
    millstream("produce", topic, *given, stdin="one\ntwo\n")
    secret, job = tmp_path / "secret", tmp_path / "job.toml"
    client = {name: json.dumps(value) for name, value in settings.items()}
    client["sasl.password"] = f'{{ file = "{secret}" }}'
    job.write_text(
        f"""
        name = "{topic}"
        workers = 1
        source.bootstrap_servers = "127.0.0.1:{port}"
        source.topics = "{topic}"
        value.format = "raw"
        destination.uri = "{(tmp_path / "lake").as_uri()}"
        """
        + "".join(f"source.client.{name} = {value}\n" for name, value in client.items())
    )

    def load() -> tuple[int, dict[str, Any]]:
        code = run(["load", "run", "--quiet", "--json", str(job)])
        said = capsys.readouterr()
        assert "wr0ng" not in said.out + said.err
        assert PASSWORD not in said.out + said.err
        return code, json.loads(said.out)

    secret.write_text("wr0ng\n")
    code, refused = load()
    (sentence,) = refused["errors"]
    assert (code, refused["outcome"], refused["rows"]) == (1, "failed", 0)
    assert f"127.0.0.1:{port}" in sentence
    assert "refused these credentials" in sentence

    secret.write_text(f"{PASSWORD}\n")
    code, loaded = load()
    assert (code, loaded["outcome"], loaded["rows"], loaded["errors"]) == (0, "loaded", 2, [])


@contextmanager
def denied(secured: Secured, topic: str, operation: AclOperation) -> Iterator[None]:
    """Have the user lack a right to a topic that everybody else has."""
    admin = AdminClient({"bootstrap.servers": secured.kafka.bootstrap_servers})

    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    acls = [
        AclBinding(*where, "User:*", "*", AclOperation.ALL, AclPermissionType.ALLOW),
        AclBinding(*where, f"User:{USER}", "*", operation, AclPermissionType.DENY),
    ]
    of_topic = AclBindingFilter(*where, None, None, AclOperation.ANY, AclPermissionType.ANY)  # type: ignore[arg-type]

    def wait_for(count: int) -> None:
        # The controller has taken them; the broker's authorizer hears of them a moment later.
        wait_until(lambda: len(admin.describe_acls(of_topic).result(60)) == count, 60.0, f"{count} ACLs of {topic}")

    for made in admin.create_acls(acls).values():
        made.result(60)
    wait_for(2)
    yield
    for gone in admin.delete_acls([of_topic]).values():
        gone.result(60)
    wait_for(0)


def test_a_right_that_lacks_leaves_out_its_topic_alone(secured: Secured, tmp_path: Path) -> None:
    port, settings = WAYS["plain"](secured)
    shown, hidden = "acl-shown", "acl-hidden"
    given = ("--command-config", write(tmp_path / "client.properties", settings))
    millstream = CommandLine(f"127.0.0.1:{port}")
    for topic in (shown, hidden):
        millstream("topics", "create", topic, "-p", "1", *given)
        millstream("produce", topic, *given, stdin="one\ntwo\n")
    client = {name: Secret(text=value) if name in SECRETS else value for name, value in settings.items()}
    job = LoadJob(
        name="rights",
        workers=1,
        split_attempts=1,
        source=SourceSettings(bootstrap_servers=f"127.0.0.1:{port}", topics=(shown, hidden), client=client),
        value=ValueSettings(format="raw"),
        destination=DestinationSettings(uri=(tmp_path / "lake").as_uri()),
    )

    # They share a split: it is told of the one, and the other one is loaded.
    with denied(secured, hidden, AclOperation.READ):
        partly = run_load(job)
    assert (partly.outcome, partly.splits, partly.rows) == (Outcome.PARTIAL, 1, 2)
    assert [hidden in error and "fetch of" in error for error in partly.errors] == [True]
    assert (run_load(job).outcome, run_load(job).outcome) == (Outcome.LOADED, Outcome.NOTHING_NEW)

    # A topic that was loaded and is not shown any more is no deleted one, by its name nor by a pattern.
    by_pattern = replace(job, source=replace(job.source, topics=(), topics_pattern="acl-.*"))
    with denied(secured, hidden, AclOperation.DESCRIBE):
        for one in (job, by_pattern):
            report = run_load(one)
            assert (report.outcome, report.exit_code) == (Outcome.PARTIAL, 3)
            assert f"topic {hidden} was loaded before and cannot be read now" in report.errors[0]
            assert "the rights to describe and to read it" in report.errors[0]
    assert run_load(by_pattern).outcome is Outcome.NOTHING_NEW
