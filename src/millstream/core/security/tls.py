"""The TLS context of a client, from PEM in files or as text."""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class TlsError(ValueError):
    """A setting cannot be used; `setting` is the field of TlsSettings to mend."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(setting, reason)
        self.setting = setting
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """What to speak, whom to trust, and who to be. A location is a file; the other fields of a store are PEM text."""

    versions: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    cipher_suites: tuple[str, ...] = ()
    check_hostname: bool = True
    # Without either, the system's authorities are trusted.
    truststore_location: str | None = None
    truststore_certificates: str | None = None
    keystore_location: str | None = None
    keystore_certificate_chain: str | None = None
    keystore_key: str | None = field(default=None, repr=False)
    key_password: str | None = field(default=None, repr=False)


def client_tls(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context that checks servers by their certificates. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    versions = [_VERSIONS[name] for name in settings.versions]
    if versions:
        context.minimum_version, context.maximum_version = min(versions), max(versions)
    context.check_hostname = settings.check_hostname
    if settings.cipher_suites:
        try:
            context.set_ciphers(":".join(settings.cipher_suites))
        except ssl.SSLError as error:
            raise TlsError("cipher_suites", "OpenSSL knows none of these") from error
    _trust(context, settings)
    _identify(context, settings)
    return context


def _trust(context: ssl.SSLContext, settings: TlsSettings) -> None:
    location, certificates = settings.truststore_location, settings.truststore_certificates
    if location is None and certificates is None:
        context.load_default_certs()
        return
    if location is not None and certificates is not None:
        raise TlsError("truststore_certificates", "a location and the certificates themselves exclude each other")
    try:
        context.load_verify_locations(cafile=location, cadata=_lines(certificates))
    except (OSError, ssl.SSLError, ValueError) as error:
        setting = "truststore_location" if location is not None else "truststore_certificates"
        raise TlsError(setting, f"no PEM certificates to read there: {error}") from error


def _identify(context: ssl.SSLContext, settings: TlsSettings) -> None:
    location, chain, key = (settings.keystore_location, settings.keystore_certificate_chain, settings.keystore_key)
    if location is None and chain is None and key is None:
        return
    if location is not None:
        if chain is not None or key is not None:
            raise TlsError("keystore_location", "a location and the key itself exclude each other")
        _load_chain(context, Path(location), settings.key_password, "keystore_location")
        return
    if chain is None or key is None:
        raise TlsError("keystore_key", "the key and its certificate chain go together")
    # OpenSSL's Python face reads keys from files only; this one is the user's alone and gone at once.
    handle, name = tempfile.mkstemp(suffix=".pem")
    path = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{_lines(key)}\n{_lines(chain)}\n")
        _load_chain(context, path, settings.key_password, "keystore_key")
    finally:
        path.unlink()


def _load_chain(context: ssl.SSLContext, path: Path, password: str | None, setting: str) -> None:
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(path, password=lambda: password or "")
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = f"the password is wrong, or there is no PEM key with its certificate: {error}"
        raise TlsError(setting, reason) from error


def _lines(text: str | None) -> str | None:
    """Put back the line ends that a properties file or an environment variable wrote as \\n."""
    return None if text is None else text.replace("\\n", "\n")
