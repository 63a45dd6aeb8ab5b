"""What a Hadoop conf directory says to clients: the properties of core-site.xml and hdfs-site.xml, and name services.

The settings of a job stand over the directory's. Without either, `hdfs://HOST:PORT` needs no configuration at all; a
name without a port is a name service, whose NameNodes one of the two has to list:

    dfs.ha.namenodes.NAME = nn1,nn2
    dfs.namenode.rpc-address.NAME.nn1 = host:8020        for hdfs://
    dfs.namenode.http-address.NAME.nn1 = host:9870       for webhdfs://; https-address for swebhdfs://
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

_FILES: Final = ("core-site.xml", "hdfs-site.xml")
_PROVIDER: Final = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"


def conf_directory(settings: FileSystemSettings) -> Path | None:
    """The directory of the settings, else of HADOOP_CONF_DIR or HADOOP_HOME; ValueError if a named one is none."""
    if settings.hadoop_conf_directory is not None:
        folder = Path(settings.hadoop_conf_directory).expanduser()
        if not any((folder / name).is_file() for name in _FILES):
            raise ValueError(f"{folder} has neither core-site.xml nor hdfs-site.xml: name a Hadoop conf directory")
        return folder
    if named := os.environ.get("HADOOP_CONF_DIR"):
        return Path(named)
    if home := os.environ.get("HADOOP_HOME"):
        return Path(home) / "etc" / "hadoop"
    return None


def read_properties(settings: FileSystemSettings) -> dict[str, str]:
    """Every property: the directory's, over them the name services of the settings, over them their properties."""
    properties: dict[str, str] = {}
    if (folder := conf_directory(settings)) is not None:
        for name in _FILES:
            if (folder / name).is_file():
                properties |= _read_file(folder / name)
    for service in settings.nameservices:
        # Nothing of another description stays: the ids of the two may be the same.
        marks = [f"-address.{service.name}.{name}" for name in namenode_ids(properties, service.name)]
        properties = {key: value for key, value in properties.items() if not key.endswith(tuple(marks))}
        properties |= _of_service(service.name, service.rpc_addresses, service.http_addresses)
    if settings.kerberos is not None:
        properties.setdefault("hadoop.security.authentication", "kerberos")
    return properties | dict(settings.properties)


def namenodes(properties: Mapping[str, str], nameservice: str, kind: str) -> list[str]:
    """HOST:PORT of a name service's NameNodes in order; `kind` is rpc, http or https. Empty if it is not described."""
    found = []
    for name in namenode_ids(properties, nameservice):
        address = properties.get(f"dfs.namenode.{kind}-address.{nameservice}.{name}")
        if address:
            found.append(address)
    return found


def namenode_ids(properties: Mapping[str, str], nameservice: str) -> list[str]:
    """The ids under which a name service's NameNodes are described."""
    listed = properties.get(f"dfs.ha.namenodes.{nameservice}", "")
    return [name.strip() for name in listed.split(",") if name.strip()]


def _of_service(name: str, rpc_addresses: tuple[str, ...], http_addresses: tuple[str, ...]) -> dict[str, str]:
    count = max(len(rpc_addresses), len(http_addresses))
    properties = {
        "dfs.nameservices": name,
        f"dfs.ha.namenodes.{name}": ",".join(f"nn{number}" for number in range(count)),
        f"dfs.client.failover.proxy.provider.{name}": _PROVIDER,
    }
    for kind, addresses in (("rpc", rpc_addresses), ("http", http_addresses), ("https", http_addresses)):
        for number, address in enumerate(addresses):
            properties[f"dfs.namenode.{kind}-address.{name}.nn{number}"] = address
    return properties


def _read_file(path: Path) -> dict[str, str]:
    try:
        # An administrator's file, as trusted as the job's own.
        root = ET.parse(path).getroot()  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"{path} is no XML file of Hadoop's: {error}") from error
    properties = {}
    for entry in root.iter("property"):
        name, value = entry.findtext("name"), entry.findtext("value")
        if name is not None and value is not None:
            properties[name.strip()] = value.strip()
    return properties
