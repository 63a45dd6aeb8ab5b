"""Apache Kafka with a listener for each way to come in: TLS, mutual TLS, SASL with TLS and without; and with ACLs."""

from __future__ import annotations

from pathlib import Path

from tests.support.certificates import Certificates, make_certificates

from millstream.testing.kafka import ApacheKafka, free_ports

USER, PASSWORD = "ann", "ann's secret"
SECURITY = "org.apache.kafka.common.security"
# Time in which a session ends and has to be renewed.
SESSION_MS = 2_000


class Secured:
    """One Kafka with a listener for each way to come in."""

    def __init__(self, folder: Path, jars: Path) -> None:
        self.certificates: Certificates = make_certificates(folder / "certificates")
        plain, self.tls_port, self.mutual_port, self.sasl_port, self.sasl_tls_port, controller = free_ports(6)
        bound = {
            "PLAINTEXT": plain,
            "TLS": self.tls_port,
            "MUTUAL": self.mutual_port,
            "SASL": self.sasl_port,
            "SASLTLS": self.sasl_tls_port,
        }
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in bound.items())
        jaas = f"{SECURITY}.{{}} required {{}};"
        properties = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,"
            "SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.authority),
            "listener.name.mutual.ssl.client.auth": "required",
            "connections.max.reauth.ms": str(SESSION_MS),
            # Everybody may do what no ACL is about.
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
        password = PASSWORD.replace('"', '\\"')
        for name in ("sasl", "sasltls"):
            prefix = f"listener.name.{name}"
            properties[f"{prefix}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
            properties[f"{prefix}.plain.sasl.jaas.config"] = jaas.format(
                "plain.PlainLoginModule", f'user_{USER}="{password}"'
            )
            for scram in ("scram-sha-256", "scram-sha-512"):
                properties[f"{prefix}.{scram}.sasl.jaas.config"] = jaas.format("scram.ScramLoginModule", "")
            properties[f"{prefix}.oauthbearer.sasl.jaas.config"] = jaas.format(
                "oauthbearer.OAuthBearerLoginModule", 'unsecuredLoginStringClaim_sub="broker"'
            )
        self.kafka = ApacheKafka(folder / "kafka", jars=jars, properties=properties, port=plain)

    def start(self) -> None:
        self.kafka.start()
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            self.kafka.run_tool(
                "kafka.admin.ConfigCommand",
                *("--alter", "--entity-type", "users", "--entity-name", USER),
                *("--add-config", f"{mechanism}=[password={PASSWORD}]"),
            )
