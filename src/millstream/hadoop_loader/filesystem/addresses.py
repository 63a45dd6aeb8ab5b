"""From an address to a file system: `file:`, `hdfs:` (hdfs-native) and `webhdfs:`/`swebhdfs:` (WebHDFS over HTTP(S)).

    file:///data/lake        /data/lake                    a path alone is a local one
    hdfs://host:8020/lake    hdfs://nameservice/lake       NameNodes by the settings or by a Hadoop conf directory
    webhdfs://host:9870/lake swebhdfs://host:9871/lake     as hdfs://, with the NameNode's port for HTTP

The clients are imported when an address needs them, so a job for a local disk runs without the extra `hdfs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from millstream.hadoop_loader.filesystem.errors import FileSystemError
from millstream.hadoop_loader.filesystem.local import LocalFileSystem
from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem.interface import FileSystem

SCHEMES = ("file", "hdfs", "webhdfs", "swebhdfs")


def open_filesystem(uri: str, settings: FileSystemSettings | None = None) -> FileSystem:
    """The file system at `uri`, whose path is its root (which need not exist yet). ValueError for an address of none,
    FileSystemError where the extra `hdfs` is not installed.

    Nothing is connected before the first call. Close it, or use it in a `with` block.
    """
    settings = settings or FileSystemSettings()
    if "://" not in uri and not uri.startswith("file:"):
        return LocalFileSystem(str(Path(uri).absolute()), settings)
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{uri}: no such kind of destination; use file://, hdfs://, webhdfs:// or swebhdfs://")
    if parts.query or parts.fragment:
        raise ValueError(f"{uri}: a destination has no '?' or '#'; write %3F and %23 in names")
    path = unquote(parts.path)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not path.startswith("/"):
            raise ValueError(f"{uri}: a local destination is file:///PATH, with three slashes")
        return LocalFileSystem(path, settings)
    root = path.rstrip("/")
    if "//" in root or any(part in {".", ".."} for part in root.split("/")):
        raise ValueError(f"{uri}: its path has an empty part, '.' or '..'")
    if not parts.hostname:
        raise ValueError(
            f"{uri}: names no host; write {parts.scheme}://HOST:PORT/PATH or {parts.scheme}://NAMESERVICE/PATH"
        )
    if parts.username or parts.password:
        raise ValueError(
            f"{parts.scheme}://{parts.hostname}: a user has a setting of its own and is no part of the address"
        )
    try:
        if parts.scheme == "hdfs":
            from millstream.hadoop_loader.filesystem.native import HdfsFileSystem

            return HdfsFileSystem(parts.netloc, root, settings)
        from millstream.hadoop_loader.filesystem.webhdfs import WebHdfsFileSystem

        return WebHdfsFileSystem(parts.scheme, parts.netloc, root, settings)
    except ModuleNotFoundError as error:
        what, remedy = f"the package {error.name}, which reaches it, is not there", "pip install 'millstream[hdfs]'"
        raise FileSystemError(what, uri=uri, remedy=remedy) from error
