"""Damaged Avro datums through the kernels: `python tools/fuzz_avro.py [--seconds N] [--seed N] [--sanitize]`.

With --sanitize the kernels are built with AddressSanitizer into a temporary folder first; values lie in memory of just
their size and columns in the system allocator's, so that a byte read or written beyond either ends the run. `make fuzz`
does so for minutes; `make test` runs the same rounds for a second or two, without the sanitizer.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KERNELS = ("avro_decoding", "avro_encoding")
PACKAGE = "millstream.schemas._kernels"

WRITER: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "a", "type": "string"},
        {"name": "b", "type": ["null", "long"]},
        {"name": "c", "type": {"type": "array", "items": {"type": "array", "items": "string"}}},
        {
            "name": "d",
            "type": {"type": "map", "values": ["int", "string", "null", {"type": "array", "items": "float"}]},
        },
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 5}},
        {"name": "g", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "h", "type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}},
        {"name": "i", "type": ["null", {"type": "record", "name": "I", "fields": [{"name": "x", "type": "boolean"}]}]},
        {"name": "j", "type": {"type": "record", "name": "T", "fields": [{"name": "t", "type": ["null", "T"]}]}},
        {"name": "k", "type": "double"},
        {"name": "l", "type": {"type": "array", "items": "null"}},
        {"name": "m", "type": ["null", {"type": "long", "logicalType": "time-micros"}]},
    ],
}
READER: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "b", "type": ["double", "null"]},
        {"name": "new", "type": {"type": "array", "items": "string"}, "default": ["x" * 40, ""]},
        {"name": "c", "type": {"type": "array", "items": {"type": "array", "items": "bytes"}}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["C", "B"], "default": "B"}},
        {"name": "a", "type": ["null", "string"]},
        {"name": "m", "type": ["string", "double", "null"]},
    ],
}


def datum(chance: random.Random) -> bytes:
    """Return a whole datum of WRITER."""

    def number(value: int) -> bytes:
        raw, out = (value << 1 ^ value >> 63) & 0xFFFFFFFFFFFFFFFF, bytearray()
        while raw > 0x7F:
            out.append(raw & 0x7F | 0x80)
            raw >>= 7
        return bytes([*out, raw])

    def text() -> bytes:
        content = ("aé\U0001f600" * 9)[: chance.randrange(24)].encode()
        return number(len(content)) + content

    def many(item: Any) -> bytes:
        out = b""
        for _ in range(chance.randrange(3)):
            items = b"".join(parts := [item() for _ in range(chance.randrange(1, 4))])
            count = len(parts)
            out += number(count) if chance.random() < 0.5 else number(-count) + number(len(items))
            out += items
        return out + b"\0"

    def branch() -> bytes:
        floats = many(lambda: chance.randbytes(4))
        return chance.choice([b"\0" + number(chance.randrange(-99, 99)), b"\2" + text(), b"\4", b"\6" + floats])

    return b"".join(
        (
            text(),
            chance.choice([b"\0", b"\2" + number(chance.getrandbits(chance.randrange(1, 63)))]),
            many(lambda: many(text)),
            many(lambda: text() + branch()),
            number(chance.randrange(3)),
            chance.randbytes(5),
            number(8) + b"\0" + chance.randbytes(7),
            chance.randbytes(12),
            chance.choice([b"\0", b"\2\1", b"\2\0"]),
            b"\2" * chance.randrange(9) + b"\0",
            chance.randbytes(8),
            chance.choice([b"\0", b"\6\0"]),
            chance.choice([b"\0", b"\2" + number(chance.randrange(86_400_000_000))]),
        )
    )


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a datum with a few bytes changed, cut out or put in."""
    out = bytearray(content)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        at = chance.randrange(len(out) + 1)
        how = chance.randrange(4)
        if how == 0:
            out[at : at + 1] = chance.randbytes(1)
        elif how == 1:
            del out[at : at + chance.randrange(1, 9)]
        elif how == 2:
            out[at:at] = chance.choice(
                [b"\xff" * 9 + b"\1", b"\x80" * 10, chance.randbytes(3), b"\xfe\xff\xff\xff\x0f"]
            )
        else:
            del out[at:]
    return bytes(out)


def fuzz(seed: int, seconds: float) -> int:
    """Decode, validate and encode again until the time is over; return how many datums were seen."""
    import pyarrow as pa

    from millstream.schemas.avro import AvroDecoder, AvroEncoder, AvroValidator

    chance = random.Random(seed)
    writer, reader = json.dumps(WRITER), json.dumps(READER)
    decoders = [
        AvroDecoder(reader_schema=writer, framing="none", on_recursion="binary"),
        AvroDecoder(reader_schema=writer, framing="none", on_recursion="binary", on_union="dense_union"),
        AvroDecoder(reader_schema=reader, writer_schema=writer, framing="none"),
        AvroDecoder({7: writer}, reader),
    ]
    validator = AvroValidator(writer_schema=writer, framing="none")
    encoder, whole = AvroEncoder(reader), AvroEncoder(writer, on_recursion="binary")
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    seen = good = 0
    end = time.monotonic() + seconds
    while seen < 200 or time.monotonic() < end:
        for decoder in decoders:
            prefix = b"\0\0\0\0\7" if decoder is decoders[-1] else b""
            datums = [prefix + damaged(datum(chance), chance) for _ in range(chance.randrange(1, 40))]
            content = b"".join(datums)
            positions = array("q", [0])
            for one in datums:
                positions.append(positions[-1] + len(one))
            address = libc.malloc(max(1, len(content)))
            ctypes.memmove(address, content, len(content))
            data = memoryview((ctypes.c_ubyte * len(content)).from_address(address)).cast("B")
            decoded = decoder.decode_located(data, positions)
            decoded.batch.validate(full=True)
            assert decoded.batch.num_rows + len(decoded.errors) == len(datums), (seed, seen)
            assert bool(decoded.errors) == (decoded.rows is not None), (seed, seen)
            if decoder is decoders[0]:
                encoded = whole.encode(decoded.batch)
                assert whole.encode(decoder.decode(encoded).batch).equals(encoded), (seed, seen)
                assert len(encoded) == decoded.batch.num_rows, (seed, seen)
                valid = validator.validate_located(data, positions)
                assert {one.row for one in valid.errors} <= {one.row for one in decoded.errors}, (seed, seen)
            if decoder is decoders[2]:
                again = decoder.decode(pa.array(datums)).batch
                assert again.equals(decoded.batch), (seed, seen)
                assert len(encoder.encode(decoded.batch)) == decoded.batch.num_rows
            del data
            libc.free(address)
            seen += len(datums)
            good += decoded.batch.num_rows
    print(f"seed {seed}: {seen} datums, {good} good")
    return seen


def build(folder: Path) -> None:
    """Compile the kernels with AddressSanitizer into `folder`."""
    build_module: Any = importlib.import_module("Cython.Build")
    tools: Any = importlib.import_module("setuptools")

    os.chdir(ROOT)
    source = Path("src/millstream/schemas/_kernels")
    extensions = [
        tools.Extension(
            f"{PACKAGE}.{name}",
            [str(source / f"{name}.py")],
            include_dirs=[str(source)],
            extra_compile_args=["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"],
            extra_link_args=["-fsanitize=address"],
        )
        for name in KERNELS
    ]
    directives = {"language_level": "3", "boundscheck": False, "wraparound": False, "cdivision": True}
    modules = build_module.cythonize(
        extensions,
        include_path=["src"],
        build_dir=str(folder / "c"),
        force=True,
        compiler_directives=directives | {"initializedcheck": False},
    )
    tools.setup(
        name="fuzz",
        packages=[],
        ext_modules=modules,
        script_args=["-q", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder / "temp")],
    )


def use(folder: Path) -> None:
    """Have the kernels in `folder` imported instead of those beside their sources."""
    for name in KERNELS:
        found = next((folder / PACKAGE.replace(".", "/")).glob(f"{name}.*.so"))
        spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{name}", found)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--kernels", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kernels is not None:
        use(options.kernels)
    if not options.sanitize:
        fuzz(options.seed, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        library = subprocess.run(
            [os.environ.get("CC", "gcc"), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        sanitized = os.environ | {
            "LD_PRELOAD": library,
            "ASAN_OPTIONS": "detect_leaks=0",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "PYTHONMALLOC": "malloc",
        }
        command = [sys.executable, __file__, "--seconds", str(options.seconds), "--seed", str(options.seed)]
        return subprocess.run([*command, "--kernels", folder], env=sanitized).returncode


if __name__ == "__main__":
    sys.exit(main())
