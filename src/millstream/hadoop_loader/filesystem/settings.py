"""How a file system is to be reached and what its new files are like: plain data that travels by pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEADLINE_S_DEFAULT: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NameService:
    """A pair (or more) of NameNodes under one name: `hdfs://NAME/...` goes to whichever of them is active.

    `rpc_addresses` are HOST:PORT for hdfs://, `http_addresses` HOST:PORT for webhdfs://; either may be empty.
    """

    name: str
    rpc_addresses: tuple[str, ...] = ()
    http_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KerberosSettings:
    """Who to be: a principal with a keytab, which gives tickets anew, or a cache that somebody else renews.

    `cache` is a ticket cache (a path or Kerberos' TYPE:residual); with a keytab it is where the tickets are put, by
    default a private file of this process. `renewal_s` is how often a fresh ticket is got from the keytab.
    """

    principal: str
    keytab: str | None = None
    cache: str | None = None
    renewal_s: float = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystemSettings:
    """All that [destination] says about the file system. None leaves a choice to the server.

    `deadline_s` bounds every call. `user` is the name under simple authentication; `kerberos` takes its place on a
    secured cluster. `permission` is for new files, `directory_permission` for new directories; `owner` and `group` are
    set on both, which HDFS allows the superuser only (a group also to its members). `properties` are further Hadoop
    settings for hdfs://, over those of `hadoop_conf_directory`. `ca_file` has who signs the certificates of swebhdfs://.
    """

    deadline_s: float = DEADLINE_S_DEFAULT
    replication: int | None = None
    block_size_bytes: int | None = None
    permission: int | None = None
    directory_permission: int | None = None
    owner: str | None = None
    group: str | None = None
    hadoop_conf_directory: str | None = None
    nameservices: tuple[NameService, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    kerberos: KerberosSettings | None = None
    ca_file: str | None = None
    # Calls in progress at a time over all threads, those past their deadline that have not ended included.
    calls_max: int = 32
