/* What the Avro kernels share in C: varints, and Arrow's buffers to append to. `interpreted.py` is the same in Python. */
#ifndef MILLSTREAM_SCHEMAS_NATIVE_H
#define MILLSTREAM_SCHEMAS_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Instructions: four ints each, `code, column, a, b`. The table in opcodes.py says what each does. */
enum {
    OP_END = 0,
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
    OP_CHECK_DIGITS
};

/* Why a datum is bad. */
enum {
    GOOD = 0,
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
    NO_ROOM
};

/* Instructions of the other direction. */
enum {
    WRITE_END = 0,
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
    WRITE_RAW
};

enum { KIND_NULL = 0, KIND_BITS, KIND_FIXED, KIND_BYTES, KIND_LIST, KIND_STRUCT, KIND_UNION };

/* One column: where Arrow's buffers lie and how far they are filled. Python makes it as sixteen int64s. */
typedef struct {
    int64_t kind;
    int64_t width;       /* bytes of a fixed-width value */
    int64_t parent;      /* the column it lies in, -1: the rows themselves */
    int64_t length;      /* values appended */
    int64_t capacity;    /* values there is room for; offsets have one more */
    int64_t used;        /* bytes appended, of KIND_BYTES */
    int64_t room;        /* bytes there is room for */
    int64_t wanted;      /* the capacity asked for where it was too small */
    int64_t wanted_room; /* likewise the room */
    int64_t nulls;       /* not zero: there may be nulls */
    uint8_t *data;
    uint8_t *validity; /* 0: it is never null */
    int32_t *offsets;
    int64_t kept;        /* scratch of roll_back: the length its union left it */
    int64_t child;       /* a union's first branch, and a branch's next; -1: there is none */
    int64_t sibling;
} Column;

_Static_assert(sizeof(Column) == 16 * sizeof(int64_t), "Python makes columns as sixteen int64s");

/* Bytes behind what is used of a column that may be written to. */
#define SLACK 32

typedef struct {
    long long value;
    long long position; /* behind it, or why it cannot be read, negated */
} Varint;

static inline int64_t unzigzag(uint64_t raw) {
    return (int64_t)((raw >> 1) ^ (0 - (raw & 1)));
}

static __attribute__((noinline)) Varint read_any_varint(const uint8_t *data, int64_t position, int64_t end) {
    Varint read = {0, -BAD_TRUNCATED};
    uint64_t raw = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (position >= end)
            return read;
        uint64_t byte = data[position++];
        raw |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (shift == 63 && byte > 1)
                break;
            read.value = unzigzag(raw);
            read.position = position;
            return read;
        }
    }
    read.position = -BAD_VARINT;
    return read;
}

#define LAST_BYTES 0x8080808080808080u

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
/* The varint in the low bytes of eight, whose last byte `last` marks. */
static inline int64_t squeeze_varint(uint64_t raw, uint64_t last) {
    raw &= (last ^ (last - 1)) & ~LAST_BYTES;
    raw = ((raw & 0x7f007f007f007f00u) >> 1) | (raw & 0x007f007f007f007fu);
    raw = ((raw & 0x3fff00003fff0000u) >> 2) | (raw & 0x00003fff00003fffu);
    raw = ((raw & 0x0fffffff00000000u) >> 4) | (raw & 0x000000000fffffffu);
    return unzigzag(raw);
}
#define WIDE(wide) (wide)
#else
#define squeeze_varint(raw, last) 0
#define WIDE(wide) 0
#endif

/* A zigzag varint within data[position:end]. `wide`: sixteen bytes may be loaded from wherever a value may begin. */
static inline Varint read_varint(const uint8_t *data, int64_t position, int64_t end, int wide) {
    Varint read;
    if (WIDE(wide) && position < end) {
        uint64_t raw, last;
        memcpy(&raw, data + position, 8);
        last = ~raw & LAST_BYTES;
        if (__builtin_expect(last != 0, 1)) {
            read.position = position + (__builtin_ctzll(last) >> 3) + 1;
            if (__builtin_expect(read.position <= end, 1)) {
                read.value = squeeze_varint(raw, last);
                return read;
            }
        }
    }
    return read_any_varint(data, position, end);
}

/* Likewise for numbers that mostly take one byte. */
static inline Varint read_small_varint(const uint8_t *data, int64_t position, int64_t end, int wide) {
    if (__builtin_expect(position < end && data[position] < 0x80, 1)) {
        Varint read = {unzigzag(data[position]), position + 1};
        return read;
    }
    return read_varint(data, position, end, wide);
}

/* The size of what follows, which lies before `end`. */
static inline Varint read_size(const uint8_t *data, int64_t position, int64_t end, int wide) {
    Varint read;
    if (__builtin_expect(position < end && (data[position] & 0x81) == 0, 1)) {
        read.value = data[position] >> 1;
        read.position = position + 1;
    } else {
        read = read_varint(data, position, end, wide);
        if (read.position < 0)
            return read;
    }
    if (__builtin_expect((uint64_t)read.value > (uint64_t)(end - read.position), 0))
        read.position = -BAD_SIZE;
    return read;
}

/* What is skipped: where it ends, or why it cannot be read, negated. */

static inline int64_t skip_long(const uint8_t *data, int64_t position, int64_t end, int wide) {
    if (WIDE(wide) && position < end) {
        uint64_t last;
        memcpy(&last, data + position, 8);
        last = ~last & LAST_BYTES;
        if (__builtin_expect(last != 0, 1)) {
            int64_t behind = position + (__builtin_ctzll(last) >> 3) + 1;
            if (__builtin_expect(behind <= end, 1))
                return behind;
        }
    }
    return read_any_varint(data, position, end).position;
}

static inline int64_t skip_int(const uint8_t *data, int64_t position, int64_t end, int wide) {
    int64_t behind = skip_long(data, position, end, wide);
    if (__builtin_expect(behind - position > 4, 0)) {
        Varint read = read_any_varint(data, position, end);
        return read.value == (int32_t)read.value ? read.position : -BAD_INT;
    }
    return behind;
}

static inline int64_t skip_bytes(const uint8_t *data, int64_t position, int64_t end, int wide) {
    Varint size = read_size(data, position, end, wide);
    return size.position < 0 ? size.position : size.position + size.value;
}

/* A prefix's schema id, never negative: no schema has one beyond an int32. */
static inline int64_t load_id(const uint8_t *data, int64_t position) {
    return (int64_t)((uint32_t)data[position] << 24 | (uint32_t)data[position + 1] << 16 |
                     (uint32_t)data[position + 2] << 8 | (uint32_t)data[position + 3]);
}

static inline uint32_t load_32(const uint8_t *data, int64_t position) {
    data += position;
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

static inline uint64_t load_64(const uint8_t *data, int64_t position) {
    return load_32(data, position) | (uint64_t)load_32(data, position + 4) << 32;
}

/* Columns. */

static inline void set_bit(uint8_t *bits, int64_t index, int on) {
    uint8_t mask = (uint8_t)(1u << (index & 7));
    bits[index >> 3] = (uint8_t)((bits[index >> 3] & ~mask) | (on ? mask : 0));
}

static inline void set_valid(Column *columns, ptrdiff_t at) {
    Column *column = columns + at;
    set_bit(column->validity, column->length, 1);
}

static inline void put_int32(Column *columns, ptrdiff_t at, int64_t value) {
    Column *column = columns + at;
    ((int32_t *)column->data)[column->length++] = (int32_t)value;
}

static inline void put_int64(Column *columns, ptrdiff_t at, int64_t value) {
    Column *column = columns + at;
    ((int64_t *)column->data)[column->length++] = value;
}

static inline void put_float(Column *columns, ptrdiff_t at, float value) {
    Column *column = columns + at;
    ((float *)column->data)[column->length++] = value;
}

static inline void put_double(Column *columns, ptrdiff_t at, double value) {
    Column *column = columns + at;
    ((double *)column->data)[column->length++] = value;
}

static inline void put_float_bits(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position) {
    Column *column = columns + at;
    ((uint32_t *)column->data)[column->length++] = load_32(data, position);
}

static inline void put_double_bits(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position) {
    Column *column = columns + at;
    ((uint64_t *)column->data)[column->length++] = load_64(data, position);
}

static inline void put_float_as_double(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position) {
    uint32_t bits = load_32(data, position);
    float value;
    memcpy(&value, &bits, 4);
    put_double(columns, at, value);
}

static inline void put_bool(Column *columns, ptrdiff_t at, int value) {
    Column *column = columns + at;
    set_bit(column->data, column->length++, value);
}

static inline void put_fixed(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t size) {
    Column *column = columns + at;
    memcpy(column->data + column->length++ * size, data + position, (size_t)size);
}

static inline void put_struct(Column *columns, ptrdiff_t at) {
    columns[at].length++;
}

/* A null, or the zero that stands where a null's children or another branch's value would. */
static inline void put_null(Column *columns, ptrdiff_t at) {
    Column *column = columns + at;
    int64_t index = column->length++;
    if (column->validity) {
        set_bit(column->validity, index, 0);
        column->nulls = 1;
    }
    switch (column->kind) {
    case KIND_BITS:
        set_bit(column->data, index, 0);
        break;
    case KIND_FIXED:
        if (column->width == 8)
            ((int64_t *)column->data)[index] = 0;
        else if (column->width == 4)
            ((int32_t *)column->data)[index] = 0;
        else
            memset(column->data + index * column->width, 0, (size_t)column->width);
        break;
    case KIND_BYTES:
    case KIND_LIST:
        column->offsets[index + 1] = column->offsets[index];
        break;
    default:
        break;
    }
}

/* Whether `count` more values fit; where not, how many are wanted is noted. */
static inline int reserve(Column *columns, ptrdiff_t at, int64_t count) {
    Column *column = columns + at;
    if (__builtin_expect(count <= column->capacity - column->length, 1))
        return 1;
    if (column->wanted < column->length + count)
        column->wanted = column->length + count;
    return 0;
}

static inline int has_room(Column *column, int64_t size) {
    if (__builtin_expect(size + SLACK <= column->room - column->used, 1))
        return 1;
    if (column->wanted_room < column->used + size + SLACK)
        column->wanted_room = column->used + size + SLACK;
    return 0;
}

static __attribute__((noinline)) int is_utf8(const uint8_t *data, int64_t size) {
    const uint8_t *end = data + size;
    while (data < end) {
        uint8_t lead = *data++;
        if (lead < 0x80)
            continue;
        int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0xc2 || lead > 0xf4 || end - data < more)
            return 0;
        uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (*data < low || *data > high)
            return 0;
        for (data++; --more; data++)
            if ((*data & 0xc0) != 0x80)
                return 0;
    }
    return 1;
}

/* Whether data[position:position + size] is UTF-8. */
static inline int is_text(const uint8_t *data, int64_t position, int64_t size, int wide) {
    const uint8_t *from = data + position;
    int64_t at = 0;
#if defined(__SSE2__)
    if (__builtin_expect(size <= 16 && wide, 1)) {
        int high = _mm_movemask_epi8(_mm_loadu_si128((const __m128i *)from)) & (int)((1u << size) - 1);
        return __builtin_expect(high == 0, 1) || is_utf8(from, size);
    }
    for (; at + 16 <= size; at += 16)
        if (_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(from + at))))
            return is_utf8(from + at, size - at);
#endif
    for (; at < size; at++)
        if (from[at] >= 0x80)
            return is_utf8(from + at, size - at);
    return 1;
}

static inline int64_t skip_text(const uint8_t *data, int64_t position, int64_t end, int wide) {
    Varint size = read_size(data, position, end, wide);
    if (size.position < 0)
        return size.position;
    return is_text(data, size.position, size.value, wide) ? size.position + size.value : -BAD_TEXT;
}

static inline void end_bytes(Column *column, int64_t size) {
    column->used += size;
    column->offsets[++column->length] = (int32_t)column->used;
}

/* Append bytes to a KIND_BYTES column; 0 where there is no room. */
static inline int put_bytes(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t size,
                            int wide) {
    Column *column = columns + at;
    if (!has_room(column, size))
        return 0;
#if defined(__SSE2__)
    if (__builtin_expect(size <= 16 && wide, 1))
        _mm_storeu_si128((__m128i *)(column->data + column->used),
                         _mm_loadu_si128((const __m128i *)(data + position)));
    else
#endif
        memcpy(column->data + column->used, data + position, (size_t)size);
    end_bytes(column, size);
    return 1;
}

/* What is read into a column: where it ends, or why it cannot be read, negated. */

static inline int64_t take_long(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t end,
                                int wide) {
    Varint read = read_varint(data, position, end, wide);
    if (__builtin_expect(read.position >= 0, 1))
        put_int64(columns, at, read.value);
    return read.position;
}

static inline int64_t take_int(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t end,
                               int wide) {
    Varint read = read_small_varint(data, position, end, wide);
    if (__builtin_expect(read.value != (int32_t)read.value, 0))
        return -BAD_INT;
    if (__builtin_expect(read.position >= 0, 1))
        put_int32(columns, at, read.value);
    return read.position;
}

static inline int64_t take_bytes(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t end,
                                 int wide) {
    Varint size = read_size(data, position, end, wide);
    if (size.position < 0)
        return size.position;
    return put_bytes(columns, at, data, size.position, size.value, wide) ? size.position + size.value : -NO_ROOM;
}

static inline int64_t take_text(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t end,
                                int wide) {
    Varint size = read_size(data, position, end, wide);
    if (size.position < 0)
        return size.position;
    Column *column = columns + at;
    if (!has_room(column, size.value))
        return -NO_ROOM;
    const uint8_t *from = data + size.position;
#if defined(__SSE2__)
    if (__builtin_expect(size.value <= 16 && wide, 1)) {
        __m128i word = _mm_loadu_si128((const __m128i *)from);
        _mm_storeu_si128((__m128i *)(column->data + column->used), word);
        int high = _mm_movemask_epi8(word) & (int)((1u << size.value) - 1);
        if (__builtin_expect(high != 0, 0) && !is_utf8(from, size.value))
            return -BAD_TEXT;
        end_bytes(column, size.value);
        return size.position + size.value;
    }
#endif
    if (!is_text(data, size.position, size.value, wide))
        return -BAD_TEXT;
    memcpy(column->data + column->used, from, (size_t)size.value);
    end_bytes(column, size.value);
    return size.position + size.value;
}

/* Append a big-endian two's complement number as decimal128 or decimal256; 0 where it has too many digits. `bound` is
   ten to the power of the precision, `width` bytes little-endian. */
static inline int put_decimal(Column *columns, ptrdiff_t at, const uint8_t *data, int64_t position, int64_t size,
                              const uint8_t *bound) {
    Column *column = columns + at;
    int64_t width = column->width;
    uint8_t *to = column->data + column->length * width;
    uint8_t sign = size > 0 && data[position] & 0x80 ? 0xff : 0;
    uint8_t magnitude[32];
    for (; size > width; size--, position++)
        if (data[position] != sign)
            return 0;
    unsigned carry = sign ? 1 : 0;
    for (int64_t byte = 0; byte < width; byte++) {
        uint8_t value = byte < size ? data[position + size - 1 - byte] : sign;
        to[byte] = value;
        carry += (uint8_t)(value ^ sign);
        magnitude[byte] = (uint8_t)carry;
        carry >>= 8;
    }
    /* The magnitude is unsigned but for the most negative number, whose top bit stays set: too many digits as well. */
    for (int64_t byte = width - 1; byte >= 0; byte--) {
        if (magnitude[byte] < bound[byte])
            break;
        if (magnitude[byte] > bound[byte] || byte == 0)
            return 0;
    }
    if ((sign == 0) != (to[width - 1] < 0x80) && size > 0)
        return 0;
    column->length++;
    return 1;
}

/* What is rarer has a call of its own: inlined, it would cost the rest a fifth of its speed.

   A number that the reader has another type for. */
static __attribute__((noinline, unused)) int64_t take_promoted(Column *columns, ptrdiff_t at, int op, const uint8_t *data, int64_t position,
                                    int64_t end, int wide) {
    int is_int = op == OP_INT_AS_LONG || op == OP_INT_AS_FLOAT || op == OP_INT_AS_DOUBLE;
    Varint read = read_varint(data, position, end, wide);
    if (read.position < 0)
        return read.position;
    if (is_int && read.value != (int32_t)read.value)
        return -BAD_INT;
    if (op == OP_INT_AS_LONG)
        put_int64(columns, at, read.value);
    else if (op == OP_INT_AS_FLOAT || op == OP_LONG_AS_FLOAT)
        put_float(columns, at, (float)read.value);
    else
        put_double(columns, at, (double)read.value);
    return read.position;
}

/* A time, times `unit` or divided by it, rounded down: C's division rounds towards zero. */
static __attribute__((noinline, unused)) int64_t take_time(Column *columns, ptrdiff_t at, int op, int64_t unit, const uint8_t *data,
                                int64_t position, int64_t end, int wide) {
    Varint read = read_varint(data, position, end, wide);
    if (read.position < 0)
        return read.position;
    if (op == OP_SCALED) {
        if (read.value > INT64_MAX / unit || read.value < -(INT64_MAX / unit))
            return -BAD_RANGE;
        put_int64(columns, at, read.value * unit);
    } else {
        put_int64(columns, at, read.value / unit - (read.value % unit < 0));
    }
    return read.position;
}

/* Whether the last value of a column, of `unit` to the millisecond, is a time of day. */
static __attribute__((noinline, unused)) int is_time(const Column *columns, ptrdiff_t at, int64_t unit) {
    const Column *column = columns + at;
    int64_t last = column->length - 1;
    int64_t value = column->width == 4 ? ((const int32_t *)column->data)[last] : ((const int64_t *)column->data)[last];
    return value >= 0 && value < 86400000 * unit;
}

/* A decimal of `size` bytes, or of those that say so themselves where it is negative; `pool[bound:]` is ten to the
   power of its precision. */
static __attribute__((noinline, unused)) int64_t take_decimal(Column *columns, ptrdiff_t at, const uint8_t *pool, int64_t bound, int64_t size,
                                   const uint8_t *data, int64_t position, int64_t end, int wide) {
    if (size < 0) {
        Varint read = read_size(data, position, end, wide);
        if (read.position < 0)
            return read.position;
        position = read.position;
        size = read.value;
    } else if (end - position < size) {
        return -BAD_TRUNCATED;
    }
    return put_decimal(columns, at, data, position, size, pool + bound) ? position + size : -BAD_DECIMAL;
}

/* Look at the decimal that comes next, of `size` bytes or of those that it says itself where that is negative, without
   taking it: GOOD, or why it is bad. `pool[at:]` is ten to the power of the precision, `width` bytes little-endian. */
static __attribute__((noinline, unused)) int check_digits(const uint8_t *pool, int64_t at, int64_t width, int64_t size,
                               const uint8_t *data, int64_t position, int64_t end, int wide) {
    if (size < 0) {
        Varint read = read_size(data, position, end, wide);
        if (read.position < 0)
            return (int)-read.position;
        position = read.position;
        size = read.value;
    } else if (end - position < size) {
        return BAD_TRUNCATED;
    }
    const uint8_t *bound = pool + at;
    uint8_t sign = size > 0 && data[position] & 0x80 ? 0xff : 0;
    for (; size > width; size--, position++)
        if (data[position] != sign)
            return BAD_DECIMAL;
    unsigned carry = sign ? 1 : 0;
    int is_less = 0;
    for (int64_t byte = 0; byte < width; byte++) {
        uint8_t value = byte < size ? data[position + size - 1 - byte] : sign;
        carry += (uint8_t)(value ^ sign);
        uint8_t magnitude = (uint8_t)carry;
        carry >>= 8;
        if (magnitude != bound[byte])
            is_less = magnitude < bound[byte];
    }
    return is_less && !carry ? GOOD : BAD_DECIMAL;
}

/* End a list: its items are those of `child` so far. */
static inline void put_list(Column *columns, ptrdiff_t at, ptrdiff_t child) {
    Column *column = columns + at;
    column->offsets[++column->length] = (int32_t)columns[child].length;
}

/* Begin a dense union's value: it lies in `child`, whose number among the branches is `type`. */
static inline void put_union(Column *columns, ptrdiff_t at, ptrdiff_t child, int64_t type) {
    Column *column = columns + at;
    column->offsets[column->length] = (int32_t)columns[child].length;
    column->data[column->length++] = (uint8_t)type;
}

/* Take back what was appended beyond the first `rows`. Parents lie before their children, and a union's children in the
   order of its types. */
static inline void roll_back(Column *columns, ptrdiff_t count, int64_t rows) {
    for (ptrdiff_t at = 0; at < count; at++) {
        Column *column = columns + at;
        int64_t length = rows;
        if (column->parent >= 0) {
            Column *parent = columns + column->parent;
            if (parent->kind == KIND_LIST)
                length = parent->offsets[parent->length];
            else if (parent->kind == KIND_UNION)
                length = column->kept;
            else
                length = parent->length;
        }
        if (column->kind == KIND_UNION) {
            for (int64_t child = column->child; child >= 0; child = columns[child].sibling)
                columns[child].kept = columns[child].length;
            for (int64_t index = length; index < column->length; index++) {
                int64_t child = column->child;
                for (int type = column->data[index]; type > 0; type--)
                    child = columns[child].sibling;
                if (column->offsets[index] < columns[child].kept)
                    columns[child].kept = column->offsets[index];
            }
        }
        if (column->kind == KIND_BYTES)
            column->used = column->offsets[length];
        column->length = length;
    }
}

/* A column that is read: where Arrow's buffers lie, from its first value on. Python makes it as eight int64s. */
typedef struct {
    const uint8_t *data;
    const int32_t *offsets;
    const uint8_t *validity; /* 0: nothing is null */
    int64_t validity_start;  /* the bit of the first value */
    int64_t bits_start;      /* likewise in the data of booleans */
    const int32_t *symbols;  /* an enum's: dictionary number to symbol, -1 where it has none */
    int64_t symbol_count;
    int64_t unused;
} Source;

_Static_assert(sizeof(Source) == 8 * sizeof(int64_t), "Python makes sources as eight int64s");

static inline int source_is_valid(const Source *sources, ptrdiff_t at, int64_t index) {
    const Source *source = sources + at;
    if (!source->validity)
        return 1;
    index += source->validity_start;
    return source->validity[index >> 3] >> (index & 7) & 1;
}

static inline int source_bit(const Source *sources, ptrdiff_t at, int64_t index) {
    index += sources[at].bits_start;
    return sources[at].data[index >> 3] >> (index & 7) & 1;
}

static inline int64_t source_int32(const Source *sources, ptrdiff_t at, int64_t index) {
    return ((const int32_t *)sources[at].data)[index];
}

static inline int64_t source_int64(const Source *sources, ptrdiff_t at, int64_t index) {
    return ((const int64_t *)sources[at].data)[index];
}

static inline int64_t source_offset(const Source *sources, ptrdiff_t at, int64_t index) {
    return sources[at].offsets[index];
}

/* The symbol of an enum's value, -1 where there is none. */
static inline int64_t source_symbol(const Source *sources, ptrdiff_t at, int64_t index) {
    int64_t number = source_int32(sources, at, index);
    return number >= 0 && number < sources[at].symbol_count ? sources[at].symbols[number] : -1;
}

/* Bytes that a varint may be written over: ten, and what eight stored at once reach beyond. */
#define VARINT_ROOM 16

/* A zigzag varint. CPython 3.13 has a write_varint in its headers. */
static inline int64_t write_number(uint8_t *out, int64_t position, int64_t number) {
    uint64_t raw = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    if (raw < 0x80) {
        out[position] = (uint8_t)raw;
        return position + 1;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (raw < (uint64_t)1 << 56) {
        int64_t size = (70 - __builtin_clzll(raw)) / 7;
        raw = (raw & 0x000000000fffffffu) | (raw & 0x00fffffff0000000u) << 4;
        raw = (raw & 0x00003fff00003fffu) | (raw & 0x0fffc0000fffc000u) << 2;
        raw = (raw & 0x007f007f007f007fu) | (raw & 0x3f803f803f803f80u) << 1;
        raw |= LAST_BYTES & (((uint64_t)1 << (8 * (size - 1))) - 1);
        memcpy(out + position, &raw, 8);
        return position + size;
    }
#endif
    for (; raw > 0x7f; raw >>= 7)
        out[position++] = (uint8_t)(raw | 0x80);
    out[position++] = (uint8_t)raw;
    return position;
}

static inline int64_t write_bytes(uint8_t *out, int64_t position, const uint8_t *data, int64_t start, int64_t size) {
    memcpy(out + position, data + start, (size_t)size);
    return position + size;
}

static inline int64_t write_source_bytes(uint8_t *out, int64_t position, const Source *sources, ptrdiff_t at,
                                         int64_t start, int64_t size) {
    return write_bytes(out, position, sources[at].data, start, size);
}

/* A float or double, whose bytes Avro has little-endian. */
static inline int64_t write_word(uint8_t *out, int64_t position, const Source *sources, ptrdiff_t at, int64_t index,
                                 int64_t size) {
    const uint8_t *from = sources[at].data + index * size;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(out + position, from, (size_t)size);
#else
    for (int64_t byte = 0; byte < size; byte++)
        out[position + byte] = from[size - 1 - byte];
#endif
    return position + size;
}

/* A decimal of `width` little-endian bytes as `size` big-endian ones, or with size 0 as few as it takes behind how many
   those are; -1 where it takes more than `size`. */
static inline int64_t write_decimal(uint8_t *out, int64_t position, const Source *sources, ptrdiff_t at, int64_t index,
                                    int64_t width, int64_t size) {
    const uint8_t *from = sources[at].data + index * width;
    uint8_t sign = from[width - 1] & 0x80 ? 0xff : 0;
    int64_t least = width;
    while (least > 1 && from[least - 1] == sign && (from[least - 2] & 0x80) == (sign & 0x80))
        least--;
    if (size == 0) {
        size = least;
        out[position++] = (uint8_t)(2 * size);
    } else if (least > size) {
        return -1;
    }
    for (int64_t byte = size - 1; byte >= 0; byte--)
        out[position++] = byte < width ? from[byte] : sign;
    return position;
}

#endif
