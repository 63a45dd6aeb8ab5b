"""GSSAPI on a listener of Apache Kafka, with a realm of its own.

`make test-kerberos` runs these: they need the `gssapi` package, which is built against the headers of Kerberos, and
MIT's key server. Not every machine has them, so `make test` leaves them out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kerberos import REALM, Realm

from millstream import Admin, Consumer, Producer, aio
from millstream.core.security import AuthenticationError
from millstream.testing.kafka import ApacheKafka, free_ports

pytestmark = [pytest.mark.java, pytest.mark.kerberos]

_MODULE = "com.sun.security.auth.module.Krb5LoginModule required"


class Kerberized:
    """A Kafka whose clients are known by their tickets, and the key tabs of `ann` and `bob`."""

    def __init__(self, folder: Path, jars: Path, realm: Realm) -> None:
        service = realm.add("kafka/localhost")
        self.ann, self.bob = realm.add("ann"), realm.add("bob")
        plain, self.port, controller = free_ports(3)
        listeners = f"PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{self.port}"
        jaas = f'{_MODULE} useKeyTab=true storeKey=true keyTab="{service}" principal="kafka/localhost@{REALM}";'
        self.kafka = ApacheKafka(
            folder,
            jars=jars,
            port=plain,
            more_jvm_options=(f"-Djava.security.krb5.conf={realm.config}",),
            properties={
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
                # A service ticket is for a name, so brokers have to be reached by that.
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL://localhost:{self.port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
                "listener.name.sasl.sasl.enabled.mechanisms": "GSSAPI",
                "listener.name.sasl.gssapi.sasl.jaas.config": jaas,
                "sasl.kerberos.service.name": "kafka",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ann;User:ANONYMOUS",
                "connections.max.reauth.ms": "2000",
            },
        )

    def configs(self, **more: str) -> dict[str, str]:
        """What a client needs to come in."""
        return {
            "bootstrap.servers": f"localhost:{self.port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "GSSAPI",
            "sasl.kerberos.service.name": "kafka",
            **more,
        }

    def with_keytab(self, name: str, keytab: Path) -> dict[str, str]:
        """The same as whom a key tab is of, as Java's clients are told."""
        line = f'{_MODULE} useKeyTab=true keyTab="{keytab}" principal="{name}@{REALM}";'
        return self.configs(**{"sasl.jaas.config": line})


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    with Realm(tmp_path_factory.mktemp("realm")) as running:
        before = {name: os.environ.get(name) for name in running.environment}
        os.environ.update(running.environment)
        try:
            yield running
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@pytest.fixture(scope="module")
def kerberized(realm: Realm, tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Kerberized]:
    made = Kerberized(tmp_path_factory.mktemp("kerberized"), jars, realm)
    with made.kafka:
        yield made


def test_records_are_sent_and_read_by_ticket(kerberized: Kerberized) -> None:
    configs = kerberized.with_keytab("ann", kerberized.ann)
    with Admin(configs) as admin:
        admin.create_topic("by-ticket", partitions=1)
    with Producer(configs) as producer:
        assert producer.send("by-ticket", b"signed and sealed").result(60).offset == 0
    with Consumer({**configs, "group.id": "readers", "auto.offset.reset": "earliest"}) as consumer:
        consumer.subscribe(["by-ticket"])
        assert next(iter(consumer)).value == b"signed and sealed"


def test_the_broker_knows_who_it_is(kerberized: Kerberized) -> None:
    """Ann may do everything, bob nothing: the name arrived."""
    with Admin(kerberized.with_keytab("ann", kerberized.ann)) as admin:
        admin.create_topic("anns-own", partitions=1)
        assert "anns-own" in admin.list_topics()
    with Admin(kerberized.with_keytab("bob", kerberized.bob)) as admin:
        assert admin.list_topics() == {}


async def test_the_surroundings_say_who_it_is(kerberized: Kerberized, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(kerberized.ann))
    async with aio.Admin(kerberized.configs()) as admin:
        assert len((await admin.describe_cluster()).brokers) == 1


async def test_a_session_is_renewed(kerberized: Kerberized) -> None:
    """The broker ends connections whose session is over (KIP-368); what is asked later goes over another."""
    async with aio.Producer(kerberized.with_keytab("ann", kerberized.ann), linger_ms=200) as producer:
        for index in range(20):
            assert (await (await producer.send_soon("renewed", b"%d" % index))).offset == index


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sasl.kerberos.service.name": "nobody"}, "Kerberos does not vouch for nobody/localhost"),
        ({"sasl.jaas.config": f'{_MODULE} useKeyTab=true keyTab="/nowhere" principal="ann@{REALM}";'}, "Kerberos"),
        ({"sasl.jaas.config": f'{_MODULE} principal="ann@NO.SUCH.REALM";'}, "no Kerberos credentials"),
    ],
    ids=["no such service", "no such key tab", "no such realm"],
)
def test_what_is_wrong_is_said(kerberized: Kerberized, changes: dict[str, str], message: str) -> None:
    configs = {**kerberized.with_keytab("ann", kerberized.ann), **changes}
    with Admin(configs) as admin, pytest.raises(AuthenticationError, match=message):
        admin.list_topics()
