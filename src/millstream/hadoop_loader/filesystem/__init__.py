"""One interface to local disks, HDFS and WebHDFS, with a deadline on every call.

    with open_filesystem("hdfs://nameservice/lake", FileSystemSettings(deadline_s=30)) as lake:
        with lake.create("incoming/part-0") as file:
            file.write(data)
            file.sync()
        lake.rename("incoming/part-0", "ready/part-0")     # never replaces: FileExistsError

What calls promise is written in `interface`, what their errors mean in `errors`.
"""

from millstream.hadoop_loader.filesystem.addresses import open_filesystem
from millstream.hadoop_loader.filesystem.arrow import arrow_input, arrow_output
from millstream.hadoop_loader.filesystem.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    FileSystemError,
    QuotaExceededError,
    StorageFullError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.interface import (
    NAME_BYTES_MAX,
    FileStatus,
    FileSystem,
    InputFile,
    OutputFile,
    parent_of,
)
from millstream.hadoop_loader.filesystem.local import LocalFileSystem
from millstream.hadoop_loader.filesystem.settings import FileSystemSettings, KerberosSettings, NameService

__all__ = [
    "NAME_BYTES_MAX",
    "AccessDeniedError",
    "DirectoryNotEmptyError",
    "FileStatus",
    "FileSystem",
    "FileSystemError",
    "FileSystemSettings",
    "InputFile",
    "KerberosSettings",
    "LocalFileSystem",
    "NameService",
    "OutputFile",
    "QuotaExceededError",
    "StorageFullError",
    "UnavailableError",
    "UnknownOutcomeError",
    "arrow_input",
    "arrow_output",
    "open_filesystem",
    "parent_of",
]
