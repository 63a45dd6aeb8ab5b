"""The client at a registry that speaks TLS, wants a certificate, and a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.schemas.server.conftest import own_settings
from tests.support.certificates import make_certificates
from tests.support.registry import registry

from millstream.schemas import AsyncRegistryClient, RegistryClient, RegistryError, RegistryUnavailableError


async def test_tls_with_certificates_and_passwords(millstream_broker_session: Any, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "tls")
    users = tmp_path / "users.properties"
    users.write_text("ann:s3cret\n")
    settings = {
        **own_settings(),
        "ssl.certificate.location": str(certificates.server),
        "ssl.client.authentication": "REQUIRED",
        "ssl.client.ca.location": str(certificates.authority),
        "authentication.method": "BASIC",
        "authentication.users.location": str(users),
    }
    trusting: dict[str, Any] = {"ca_location": str(certificates.authority), "timeout_s": 60}
    known = {**trusting, "keystore_location": str(certificates.client)}
    bootstrap = millstream_broker_session.bootstrap_servers
    with registry(bootstrap, settings, listen="https://127.0.0.1:0") as running:
        with RegistryClient(running.url, auth=("ann", "s3cret"), **known) as client:
            schema_id = client.register("s", '"string"')
        async with AsyncRegistryClient(running.url.replace("https://", "https://ann:s3cret@"), **known) as awaited:
            assert (await awaited.schema(schema_id)).text == '"string"'
        with RegistryClient(running.url, auth=("ann", "wrong"), **known) as client:
            with pytest.raises(RegistryError) as refused:
                client.subjects()
            assert refused.value.status == 401
        for stranger in (trusting, {"timeout_s": 60}):
            client = RegistryClient(running.url, auth=("ann", "s3cret"), retries=0, **stranger)
            with client, pytest.raises(RegistryUnavailableError, match="https://127"):
                client.subjects()
