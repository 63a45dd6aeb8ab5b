"""RegistryConfig: where the registries are, and how patiently to ask them. Plain values, so that it can be pickled."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from millstream.core.security.tls import TlsError, TlsSettings, client_tls

CACHE_ENTRIES_MAX: Final = 1_000
TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
RETRIES: Final = 3
BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
RESPONSE_BYTES_MAX: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Settings of a client of schema registries; `urls` are tried in order, then round and round.

    `auth` is user and password, `token` a bearer token or what gives one; both are absent from repr. `timeout_s` bounds
    a whole call with its retries. Raises ValueError for what cannot be meant.
    """

    urls: tuple[str, ...]
    auth: tuple[str, str] | None = field(default=None, repr=False)
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    # PEM files: whom to trust (the system's authorities otherwise), who to be (key and certificates in one file).
    ca_location: str | None = None
    keystore_location: str | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True
    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    # How often each URL is tried again; the pause between two rounds grows from the first to the longest.
    retries: int = RETRIES
    backoff_s: float = BACKOFF_S
    backoff_s_max: float = BACKOFF_S_MAX
    # Of each kind of thing that is remembered.
    cache_entries_max: int = CACHE_ENTRIES_MAX
    response_bytes_max: int = RESPONSE_BYTES_MAX

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("a registry needs an address: give at least one URL")
        if self.auth is not None and self.token is not None:
            raise ValueError("auth and token exclude each other")
        for name in ("timeout_s", "connect_timeout_s", "backoff_s", "backoff_s_max", "cache_entries_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number over 0")
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}: give 0 or more")

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS context for https. Raises ValueError, naming the setting, for files that cannot be used."""
        settings = TlsSettings(
            truststore_location=self.ca_location,
            keystore_location=self.keystore_location,
            key_password=self.key_password,
            check_hostname=self.check_hostname,
        )
        try:
            return client_tls(settings)
        except TlsError as error:
            name = "ca_location" if error.setting.startswith("truststore") else error.setting
            raise ValueError(f"{name}: {error.reason}") from error


def with_urls(url: str | Sequence[str], config: RegistryConfig) -> RegistryConfig:
    """Return `config` with the addresses of `url`: one, several, or several in one text with commas.

    A user and password in a URL become `auth`, so that no message shows them. Raises ValueError.
    """
    texts = url.split(",") if isinstance(url, str) else list(url)
    urls: list[str] = []
    auth = config.auth
    for index, text in enumerate(texts):
        parts = _address_parts(text.strip())
        if parts is None:
            # A password with a comma in it is in two of the texts.
            shown = ",".join(texts[index:]).rpartition("@")[2] if isinstance(url, str) else text.rpartition("@")[2]
            raise ValueError(
                f"{shown!r} is no address of a registry: write http://HOST:PORT; in a user or password before it,"
                " percent-encode / ? # @ : and commas"
            )
        if parts.username is not None:
            found = (unquote(parts.username), unquote(parts.password or ""))
            if auth is not None and auth != found:
                raise ValueError("give user and password once: in `auth`, or the same in each URL")
            auth = found
        urls.append(_without_user(parts).rstrip("/"))
    return replace(config, urls=tuple(urls), auth=auth)


def _address_parts(url: str) -> SplitResult | None:
    """Take a registry's URL apart; None for what is none.

    A password with a slash ends the host before its "@": no path may have one, or it would be shown as a path is.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return None
    return None if "@" in parts.path + parts.query + parts.fragment else parts


def _without_user(parts: SplitResult) -> str:
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
