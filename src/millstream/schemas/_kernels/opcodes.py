"""The instructions of Avro programs, and why a datum is bad: the numbers of native.h for Python.

An instruction is four ints: code, column, a, b. `column` is where a value goes; instructions that only skip have none.

    END                          the datum ends here, and its value has to
    PUT_NULL                     append a null (or zero) to the column; nothing is read
    SET_VALID                    the column's next value is not null
    BOOLEAN INT LONG FLOAT DOUBLE BYTES STRING     read one as it is
    INT_AS_LONG .. FLOAT_AS_DOUBLE                 read one and promote it
    SCALED, DIVIDED              a long times, or by, a: another unit of time
    CHECK_DIGITS                 a decimal of the writer's comes next: tables[a:] has its size (-1: it says so itself),
                                 where in the pool ten to the power of its precision lies, and in how many bytes
    CHECK_TIME                   the column's last value, of a to the millisecond, must be a time of day
    RAW                          the rest of the value as bytes
    FIXED                        a bytes as they are
    DECIMAL_BYTES                bytes as a decimal; ten to the power of its precision lies at a of the pool
    DECIMAL_FIXED                b bytes likewise
    ENUM                         one of a symbols; tables[b + symbol] is the reader's, -1: it has none. b = -1: the same
    NULLABLE                     a union with null as branch a of two: a null goes on at b
    BRANCH                       a union of b branches: tables[a + branch] is where to go on
    JUMP                         go on at a
    STRUCT                       the struct's children follow
    UNION                        a dense union's value follows in column a, branch b of the reader
    BLOCKS                       an array or map begins
    BLOCK                        a block of it; tables[a:] says what an item is, b is where to go on behind the last one
    NEXT                         one item is read: the next one at a, or the next block at b
    DEFAULT, RESUME              read from b bytes at a of the pool; go on with the datum
    FAIL                         the writer's cannot be read as the reader's: reason a
    SKIP_INT SKIP_LONG SKIP_BYTES SKIP_STRING SKIP_BOOLEAN SKIP_RAW, SKIP_FIXED (a bytes), SKIP_ENUM (a symbols)
    SKIP_NULLABLE                as NULLABLE, without a column
    CALL, RETURN                 the instructions at a, and back: how recursive schemas are skipped
    CAPTURE, CAPTURED            what is skipped between them goes into the column as it is

Those that write have the same shape; `column` is where a value comes from.

    WRITE_END                    the datum is whole
    WRITE_BOOLEAN .. BYTES       as Avro's; WRITE_WORD: a float or double of a bytes
    WRITE_FIXED                  a bytes as they are
    WRITE_RAW                    bytes without their size: a datum as it is
    WRITE_DECIMAL                of a bytes, as fixed of b bytes, or as bytes where b = 0
    WRITE_ENUM                   a symbol
    WRITE_NULLABLE               the branch, a where the value is null, which goes on at b; else 1 - a
    WRITE_REQUIRED               the value must not be null
    WRITE_CHOICE                 the first child that is not null: tables[a:] has b pairs of a column (-1: none of them)
                                 and where to go on
    WRITE_BRANCH                 branch a; WRITE_JUMP: go on at a
    WRITE_BLOCKS, WRITE_NEXT     the items of a list up to a, where the loop goes back to; an empty list goes on at a
    WRITE_CONSTANT               b bytes at a of the pool
"""

from __future__ import annotations

(
    OP_END,
    OP_PUT_NULL,
    OP_SET_VALID,
    OP_BOOLEAN,
    OP_INT,
    OP_LONG,
    OP_INT_AS_LONG,
    OP_INT_AS_FLOAT,
    OP_LONG_AS_FLOAT,
    OP_INT_AS_DOUBLE,
    OP_LONG_AS_DOUBLE,
    OP_FLOAT,
    OP_DOUBLE,
    OP_FLOAT_AS_DOUBLE,
    OP_SCALED,
    OP_DIVIDED,
    OP_BYTES,
    OP_STRING,
    OP_RAW,
    OP_FIXED,
    OP_DECIMAL_BYTES,
    OP_DECIMAL_FIXED,
    OP_ENUM,
    OP_NULLABLE,
    OP_BRANCH,
    OP_JUMP,
    OP_STRUCT,
    OP_UNION,
    OP_BLOCKS,
    OP_BLOCK,
    OP_NEXT,
    OP_DEFAULT,
    OP_RESUME,
    OP_FAIL,
    OP_SKIP_INT,
    OP_SKIP_LONG,
    OP_SKIP_BYTES,
    OP_SKIP_STRING,
    OP_SKIP_FIXED,
    OP_SKIP_BOOLEAN,
    OP_SKIP_ENUM,
    OP_SKIP_RAW,
    OP_CALL,
    OP_RETURN,
    OP_CAPTURE,
    OP_CAPTURED,
    OP_CHECK_TIME,
    OP_SKIP_NULLABLE,
    OP_CHECK_DIGITS,
) = range(49)

# Why a datum is bad; NO_ROOM is no fault of its own.
(
    GOOD,
    BAD_TRUNCATED,
    BAD_VARINT,
    BAD_INT,
    BAD_BOOLEAN,
    BAD_SIZE,
    BAD_TEXT,
    BAD_BRANCH,
    BAD_SYMBOL,
    BAD_READER_SYMBOL,
    BAD_COUNT,
    BAD_EMPTY_ITEMS,
    BAD_BLOCK,
    BAD_DEPTH,
    BAD_DECIMAL,
    BAD_RANGE,
    BAD_TRAILING,
    BAD_FRAMING,
    BAD_RESOLUTION,
    NO_ROOM,
) = range(20)

# Instructions of the other direction.
(
    WRITE_END,
    WRITE_BOOLEAN,
    WRITE_INT,
    WRITE_LONG,
    WRITE_WORD,
    WRITE_BYTES,
    WRITE_FIXED,
    WRITE_DECIMAL,
    WRITE_ENUM,
    WRITE_NULLABLE,
    WRITE_REQUIRED,
    WRITE_CHOICE,
    WRITE_BRANCH,
    WRITE_JUMP,
    WRITE_BLOCKS,
    WRITE_NEXT,
    WRITE_CONSTANT,
    WRITE_RAW,
) = range(18)

# How a column is laid out.
(
    KIND_NULL,
    KIND_BITS,
    KIND_FIXED,
    KIND_BYTES,
    KIND_LIST,
    KIND_STRUCT,
    KIND_UNION,
) = range(7)

# A column is so many int64s: the fields of native.h's Column, in order.
COLUMN_FIELDS = 16
(
    FIELD_KIND,
    FIELD_WIDTH,
    FIELD_PARENT,
    FIELD_LENGTH,
    FIELD_CAPACITY,
    FIELD_USED,
    FIELD_ROOM,
    FIELD_WANTED,
    FIELD_WANTED_ROOM,
    FIELD_NULLS,
    FIELD_DATA,
    FIELD_VALIDITY,
    FIELD_OFFSETS,
    FIELD_KEPT,
    FIELD_CHILD,
    FIELD_SIBLING,
) = range(16)

# Bytes behind what is used of a column's data that may be written to.
SLACK = 32

# A column that is read is so many int64s: the fields of native.h's Source, in order.
SOURCE_FIELDS = 8
(
    SOURCE_DATA,
    SOURCE_OFFSETS,
    SOURCE_VALIDITY,
    SOURCE_VALIDITY_START,
    SOURCE_BITS_START,
    SOURCE_SYMBOLS,
    SOURCE_SYMBOL_COUNT,
) = range(7)
