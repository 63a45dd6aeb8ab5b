"""Files of rows: Parquet and Avro, written, closed, checked, and told of as StagedFiles.

checked_output.py  bytes on their way to the file system: counted, summed up      codecs.py  of Avro's blocks
parquet_file.py    rows buffered to row groups     avro_file.py   datums gathered into blocks
limits.py          how many rows still fit         closing.py     close, check the length, read the footer back
containers.py      what a finished file says of itself: a header, or a footer
open_files.py      the files open in a worker, within its memory; the largest is closed where that ends
"""

from millstream.hadoop_loader.writing.avro_file import AvroFile, Datums
from millstream.hadoop_loader.writing.closing import DamagedFileError
from millstream.hadoop_loader.writing.open_files import FileKey, OpenFiles, Rows, datum_bytes
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

__all__ = ["AvroFile", "DamagedFileError", "Datums", "FileKey", "OpenFiles", "ParquetFile", "Rows", "datum_bytes"]
