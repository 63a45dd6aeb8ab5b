"""Arrow's files over ours: Parquet and whatever else pyarrow reads or writes, at any destination.

    with lake.open(path) as file:
        table = pq.read_table(arrow_input(file), pre_buffer=True)
    with lake.create(path) as file:
        with pq.ParquetWriter(arrow_output(file), schema) as writer:
            ...

Arrow never closes ours: whoever opened a file closes it, which for one being written means that only its writer decides
that it is whole. `pre_buffer` has pyarrow read neighbouring column chunks by one call, which counts where each is one
over the network.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

    from millstream.hadoop_loader.filesystem.interface import InputFile, OutputFile


def arrow_input(file: InputFile) -> pa.PythonFile:
    """`file` for pyarrow to read, by several of its threads if it likes."""
    import pyarrow as pa

    return pa.PythonFile(_Input(file), mode="r")


def arrow_output(file: OutputFile) -> pa.PythonFile:
    """`file` for pyarrow to write; closing what is returned does not close `file`."""
    import pyarrow as pa

    return pa.PythonFile(_Output(file), mode="w")


class _Input:
    """What pyarrow asks of a file that it reads; it locks around `seek` and `read`."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._position = 0
        self.closed = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self._file.size

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = start + position
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        data = self._file.read_at(self._position, self._file.size - self._position if size < 0 else size)
        self._position += len(data)
        return data

    def close(self) -> None:
        self.closed = True


class _Output:
    """What pyarrow asks of a file that it writes."""

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self.closed = False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._file.size_bytes

    def write(self, data: Buffer) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        """Nothing: bytes are gathered until they are worth a call, and `sync` is the writer's to ask for."""

    def close(self) -> None:
        self.closed = True
