cdef extern from "native.h" nogil:
    enum:
        OP_END
        OP_PUT_NULL
        OP_SET_VALID
        OP_BOOLEAN
        OP_INT
        OP_LONG
        OP_INT_AS_LONG
        OP_INT_AS_FLOAT
        OP_LONG_AS_FLOAT
        OP_INT_AS_DOUBLE
        OP_LONG_AS_DOUBLE
        OP_FLOAT
        OP_DOUBLE
        OP_FLOAT_AS_DOUBLE
        OP_SCALED
        OP_DIVIDED
        OP_BYTES
        OP_STRING
        OP_RAW
        OP_FIXED
        OP_DECIMAL_BYTES
        OP_DECIMAL_FIXED
        OP_ENUM
        OP_NULLABLE
        OP_BRANCH
        OP_JUMP
        OP_STRUCT
        OP_UNION
        OP_BLOCKS
        OP_BLOCK
        OP_NEXT
        OP_DEFAULT
        OP_RESUME
        OP_FAIL
        OP_SKIP_INT
        OP_SKIP_LONG
        OP_SKIP_BYTES
        OP_SKIP_STRING
        OP_SKIP_FIXED
        OP_SKIP_BOOLEAN
        OP_SKIP_ENUM
        OP_SKIP_RAW
        OP_CALL
        OP_RETURN
        OP_CAPTURE
        OP_CAPTURED
        OP_CHECK_TIME
        OP_SKIP_NULLABLE
        OP_CHECK_DIGITS
        GOOD
        BAD_TRUNCATED
        BAD_VARINT
        BAD_INT
        BAD_BOOLEAN
        BAD_SIZE
        BAD_TEXT
        BAD_BRANCH
        BAD_SYMBOL
        BAD_READER_SYMBOL
        BAD_COUNT
        BAD_EMPTY_ITEMS
        BAD_BLOCK
        BAD_DEPTH
        BAD_DECIMAL
        BAD_RANGE
        BAD_TRAILING
        BAD_FRAMING
        BAD_RESOLUTION
        NO_ROOM
        WRITE_END
        WRITE_BOOLEAN
        WRITE_INT
        WRITE_LONG
        WRITE_WORD
        WRITE_BYTES
        WRITE_FIXED
        WRITE_DECIMAL
        WRITE_ENUM
        WRITE_NULLABLE
        WRITE_REQUIRED
        WRITE_CHOICE
        WRITE_BRANCH
        WRITE_JUMP
        WRITE_BLOCKS
        WRITE_NEXT
        WRITE_CONSTANT
        WRITE_RAW
    ctypedef struct Column:
        long long kind
    ctypedef struct Varint:
        long long value
        long long position
    Varint read_small_varint(const unsigned char *data, long long position, long long end, bint wide)
    Varint read_size(const unsigned char *data, long long position, long long end, bint wide)
    long long skip_long(const unsigned char *data, long long position, long long end, bint wide)
    long long skip_int(const unsigned char *data, long long position, long long end, bint wide)
    long long skip_bytes(const unsigned char *data, long long position, long long end, bint wide)
    long long skip_text(const unsigned char *data, long long position, long long end, bint wide)
    long long load_id(const unsigned char *data, long long position)
    long long take_long(
        Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long end, bint wide
    )
    long long take_int(
        Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long end, bint wide
    )
    long long take_bytes(
        Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long end, bint wide
    )
    long long take_text(
        Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long end, bint wide
    )
    void set_valid(Column *columns, Py_ssize_t at)
    void put_int32(Column *columns, Py_ssize_t at, long long value)
    void put_float_bits(Column *columns, Py_ssize_t at, const unsigned char *data, long long position)
    void put_double_bits(Column *columns, Py_ssize_t at, const unsigned char *data, long long position)
    void put_float_as_double(Column *columns, Py_ssize_t at, const unsigned char *data, long long position)
    void put_bool(Column *columns, Py_ssize_t at, bint value)
    void put_fixed(Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long size)
    void put_struct(Column *columns, Py_ssize_t at)
    void put_null(Column *columns, Py_ssize_t at)
    bint reserve(Column *columns, Py_ssize_t at, long long count)
    bint put_bytes(
        Column *columns, Py_ssize_t at, const unsigned char *data, long long position, long long size, bint wide
    )
    long long take_promoted(
        Column *columns, Py_ssize_t at, int op, const unsigned char *data, long long position, long long end, bint wide
    )
    long long take_time(
        Column *columns, Py_ssize_t at, int op, long long unit, const unsigned char *data, long long position,
        long long end, bint wide
    )
    bint is_time(const Column *columns, Py_ssize_t at, long long unit)
    long long take_decimal(
        Column *columns, Py_ssize_t at, const unsigned char *pool, long long bound, long long size,
        const unsigned char *data, long long position, long long end, bint wide
    )
    int check_digits(
        const unsigned char *pool, long long at, long long width, long long size, const unsigned char *data,
        long long position, long long end, bint wide
    )
    void put_list(Column *columns, Py_ssize_t at, Py_ssize_t child)
    void put_union(Column *columns, Py_ssize_t at, Py_ssize_t child, long long type)
    void roll_back(Column *columns, Py_ssize_t count, long long rows)
    ctypedef struct Source:
        long long symbol_count
    bint source_is_valid(const Source *sources, Py_ssize_t at, long long index)
    bint source_bit(const Source *sources, Py_ssize_t at, long long index)
    long long source_int32(const Source *sources, Py_ssize_t at, long long index)
    long long source_int64(const Source *sources, Py_ssize_t at, long long index)
    long long source_offset(const Source *sources, Py_ssize_t at, long long index)
    long long source_symbol(const Source *sources, Py_ssize_t at, long long index)
    long long write_number(unsigned char *out, long long position, long long number)
    long long write_bytes(
        unsigned char *out, long long position, const unsigned char *data, long long start, long long size
    )
    long long write_source_bytes(
        unsigned char *out, long long position, const Source *sources, Py_ssize_t at, long long start, long long size
    )
    long long write_word(
        unsigned char *out, long long position, const Source *sources, Py_ssize_t at, long long index, long long size
    )
    long long write_decimal(
        unsigned char *out, long long position, const Source *sources, Py_ssize_t at, long long index,
        long long width, long long size
    )
