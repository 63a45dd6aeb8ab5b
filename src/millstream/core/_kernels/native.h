/* CRC-32C and big-endian loads and stores for the kernels; everything is static, each kernel has its own copy.
 *
 * CRC-32C has three ways to run, chosen once when the module is loaded:
 *   x86-64 with SSE4.2, AArch64 with the CRC extension: one instruction per 8 bytes with a latency of 3 cycles, so three
 *   independent streams run interleaved and are joined by a table that moves a checksum over a stretch of zero bytes
 *   (V. Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011);
 *   anywhere else: eight tables, 8 bytes a step (M. Kounavis and F. Berry, "A Systematic Approach to Building High
 *   Performance Software-Based CRC Generators", 2005).
 * Checksums inside are kept un-inverted; the public function inverts at both ends.
 */
#ifndef MILLSTREAM_NATIVE_H
#define MILLSTREAM_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define MS_HARDWARE __attribute__((target("sse4.2")))
#define MS_STEP8(crc, word) _mm_crc32_u64((crc), (word))
#define MS_STEP4(crc, word) _mm_crc32_u32((uint32_t)(crc), (word))
#define MS_STEP1(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define MS_HARDWARE
static inline uint64_t ms_arm_step8(uint64_t crc, uint64_t word) {
    uint32_t value = (uint32_t)crc;
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(value) : "r"(word));
    return value;
}
static inline uint64_t ms_arm_step4(uint64_t crc, uint32_t word) {
    uint32_t value = (uint32_t)crc;
    __asm__(".arch_extension crc\n\tcrc32cw %w0, %w0, %w1" : "+r"(value) : "r"(word));
    return value;
}
static inline uint64_t ms_arm_step1(uint64_t crc, uint8_t byte) {
    uint32_t value = (uint32_t)crc;
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(value) : "r"((uint32_t)byte));
    return value;
}
#define MS_STEP8(crc, word) ms_arm_step8((crc), (word))
#define MS_STEP4(crc, word) ms_arm_step4((crc), (word))
#define MS_STEP1(crc, byte) ms_arm_step1((crc), (byte))
#endif

#define MS_POLYNOMIAL 0x82f63b78u /* Castagnoli, bits reflected */
#define MS_LONG_BYTES 4096        /* per stream, three streams a round */
#define MS_SHORT_BYTES 256

static uint32_t ms_tables[8][256];
static uint32_t ms_shift_long[4][256];
static uint32_t ms_shift_short[4][256];
static int ms_has_hardware;

static inline uint64_t ms_load_native64(const uint8_t *data) {
    uint64_t value;
    memcpy(&value, data, 8);
    return value;
}

static inline uint32_t ms_load_native32(const uint8_t *data) {
    uint32_t value;
    memcpy(&value, data, 4);
    return value;
}

static inline uint64_t ms_load_little64(const uint8_t *data) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(ms_load_native64(data));
#else
    return ms_load_native64(data);
#endif
}

static inline uint32_t ms_crc_by_table(uint32_t crc, const uint8_t *data, size_t size) {
    while (size >= 8) {
        uint64_t word = ms_load_little64(data) ^ crc;
        crc = ms_tables[7][word & 0xff] ^ ms_tables[6][(word >> 8) & 0xff] ^ ms_tables[5][(word >> 16) & 0xff] ^
              ms_tables[4][(word >> 24) & 0xff] ^ ms_tables[3][(word >> 32) & 0xff] ^
              ms_tables[2][(word >> 40) & 0xff] ^ ms_tables[1][(word >> 48) & 0xff] ^ ms_tables[0][word >> 56];
        data += 8;
        size -= 8;
    }
    while (size--)
        crc = (crc >> 8) ^ ms_tables[0][(crc ^ *data++) & 0xff];
    return crc;
}

#ifdef MS_HARDWARE
static inline uint32_t ms_shift(const uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xff] ^ table[1][(crc >> 8) & 0xff] ^ table[2][(crc >> 16) & 0xff] ^ table[3][crc >> 24];
}

MS_HARDWARE static inline uint32_t ms_crc_rest(uint64_t crc, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8)
        crc = MS_STEP8(crc, ms_load_native64(data));
    if (size & 4) {
        crc = MS_STEP4(crc, ms_load_native32(data));
        data += 4;
    }
    for (size &= 3; size; size--)
        crc = MS_STEP1(crc, *data++);
    return (uint32_t)crc;
}

MS_HARDWARE static uint32_t ms_crc_by_hardware(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t first = crc, second, third;
    while (size >= 3 * MS_SHORT_BYTES) {
        size_t stretch = size >= 3 * MS_LONG_BYTES ? MS_LONG_BYTES : MS_SHORT_BYTES;
        const uint8_t *end = data + stretch;
        second = third = 0;
        while (data < end) {
            first = MS_STEP8(first, ms_load_native64(data));
            second = MS_STEP8(second, ms_load_native64(data + stretch));
            third = MS_STEP8(third, ms_load_native64(data + 2 * stretch));
            data += 8;
        }
        if (stretch == MS_LONG_BYTES) {
            first = ms_shift(ms_shift_long, (uint32_t)first) ^ second;
            first = ms_shift(ms_shift_long, (uint32_t)first) ^ third;
        } else {
            first = ms_shift(ms_shift_short, (uint32_t)first) ^ second;
            first = ms_shift(ms_shift_short, (uint32_t)first) ^ third;
        }
        data += 2 * stretch;
        size -= 3 * stretch;
    }
    return ms_crc_rest(first, data, size);
}

/* Three checksums at once, carried on from those in `crcs`: one alone waits three cycles for each of its steps. */
MS_HARDWARE static void ms_crc_of_three(uint32_t crcs[3], const uint8_t *const data[3], const size_t sizes[3]) {
    uint64_t first = crcs[0], second = crcs[1], third = crcs[2];
    size_t common = sizes[0] < sizes[1] ? sizes[0] : sizes[1];
    common = (common < sizes[2] ? common : sizes[2]) & ~(size_t)7;
    for (size_t at = 0; at < common; at += 8) {
        first = MS_STEP8(first, ms_load_native64(data[0] + at));
        second = MS_STEP8(second, ms_load_native64(data[1] + at));
        third = MS_STEP8(third, ms_load_native64(data[2] + at));
    }
    crcs[0] = ms_crc_rest(first, data[0] + common, sizes[0] - common);
    crcs[1] = ms_crc_rest(second, data[1] + common, sizes[1] - common);
    crcs[2] = ms_crc_rest(third, data[2] + common, sizes[2] - common);
}

/* table[i][b]: the checksum b << 8i after `size` zero bytes; linear, so 32 single bits give all of it. */
static void ms_make_shift(uint32_t table[4][256], size_t size) {
    static const uint8_t zeros[MS_LONG_BYTES];
    for (int bit = 0; bit < 32; bit++)
        table[bit / 8][1u << (bit % 8)] = ms_crc_by_table(1u << bit, zeros, size);
    for (int byte = 0; byte < 4; byte++)
        for (uint32_t value = 1; value < 256; value++)
            table[byte][value] = table[byte][value & (value - 1)] ^ table[byte][value & -value];
}
#endif

__attribute__((constructor)) static void ms_prepare(void) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? MS_POLYNOMIAL : 0);
        ms_tables[0][value] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (uint32_t value = 0; value < 256; value++)
            ms_tables[table][value] =
                (ms_tables[table - 1][value] >> 8) ^ ms_tables[0][ms_tables[table - 1][value] & 0xff];
#if defined(__x86_64__)
    __builtin_cpu_init();
    ms_has_hardware = __builtin_cpu_supports("sse4.2") != 0;
#elif defined(MS_HARDWARE)
    ms_has_hardware = (getauxval(AT_HWCAP) & (1 << 7)) != 0; /* HWCAP_CRC32 */
#endif
#ifdef MS_HARDWARE
    ms_make_shift(ms_shift_long, MS_LONG_BYTES);
    ms_make_shift(ms_shift_short, MS_SHORT_BYTES);
#endif
}

/* The checksum of data[start:end], carried on from `crc` (0 to begin). */
static inline uint32_t crc_of(const uint8_t *data, ptrdiff_t start, ptrdiff_t end, uint32_t crc) {
#ifdef MS_HARDWARE
    if (ms_has_hardware)
        return ~ms_crc_by_hardware(~crc, data + start, (size_t)(end - start));
#endif
    return ~ms_crc_by_table(~crc, data + start, (size_t)(end - start));
}

/* The same by tables, whatever the processor can do: tests hold the two against each other. */
static inline uint32_t crc_by_table_of(const uint8_t *data, ptrdiff_t start, ptrdiff_t end, uint32_t crc) {
    return ~ms_crc_by_table(~crc, data + start, (size_t)(end - start));
}

static inline int crc_in_hardware(void) { return ms_has_hardware; }

static inline int64_t load_int64(const uint8_t *data, ptrdiff_t position) {
    uint64_t value = ms_load_native64(data + position);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return (int64_t)value;
}

static inline int64_t load_uint32(const uint8_t *data, ptrdiff_t position) {
    uint32_t value;
    memcpy(&value, data + position, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return (int64_t)value;
}

static inline int64_t load_int32(const uint8_t *data, ptrdiff_t position) {
    return (int32_t)(uint32_t)load_uint32(data, position);
}

static inline int64_t load_int16(const uint8_t *data, ptrdiff_t position) {
    return (int16_t)(uint16_t)(data[position] << 8 | data[position + 1]);
}

static inline void store_int32(uint8_t *data, ptrdiff_t position, int64_t number) {
    uint32_t value = (uint32_t)number;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    memcpy(data + position, &value, 4);
}

static inline void store_int64(uint8_t *data, ptrdiff_t position, int64_t number) {
    uint64_t value = (uint64_t)number;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(data + position, &value, 8);
}

/* As Arrow has it: in the machine's own order of bytes. */
static inline void store_native_int32(uint8_t *data, ptrdiff_t position, int64_t number) {
    int32_t value = (int32_t)number;
    memcpy(data + position, &value, 4);
}

/* A zigzag varint of up to 10 bytes, as records have them: read at cursor[0], which moves behind it, or to end + 1 where
 * it doesn't end in time. Inlined whatever the compiler thinks, so that the cursor lives in a register; what takes more
 * than two bytes is rare and goes by value.
 */
typedef struct {
    int64_t position;
    uint64_t raw;
} ms_long_varint;

__attribute__((noinline)) static ms_long_varint ms_read_long_varint(const uint8_t *data, int64_t position, int64_t end) {
    ms_long_varint result = {end + 1, 0};
    uint64_t raw = 0;
    for (int shift = 0; shift < 70 && position < end; shift += 7) {
        uint64_t byte = data[position++];
        raw |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            result.position = position;
            result.raw = raw;
            break;
        }
    }
    return result;
}

static inline int64_t ms_unzigzag(uint64_t raw) { return (int64_t)(raw >> 1) ^ -(int64_t)(raw & 1); }

__attribute__((always_inline)) static inline int64_t read_varint(const uint8_t *data, long long *cursor, int64_t end) {
    int64_t position = cursor[0];
    if (__builtin_expect(position < end - 2, 1)) {
        uint64_t raw = data[position];
        if (raw < 0x80) {
            cursor[0] = position + 1;
            return ms_unzigzag(raw);
        }
        if (data[position + 1] < 0x80) {
            cursor[0] = position + 2;
            return ms_unzigzag((raw & 0x7f) | (uint64_t)data[position + 1] << 7);
        }
    }
    ms_long_varint result = ms_read_long_varint(data, position, end);
    cursor[0] = result.position;
    return ms_unzigzag(result.raw);
}

/* A conditional move would make the cursor wait for the data; a branch is foretold. This keeps the compiler to one. */
#define MS_NO_CMOV __asm__ volatile("")

/* A varint and that many bytes behind it, passed over; the size is returned, -1 being null. Below size_min, or beyond
 * `end`, the cursor moves to end + 1.
 */
__attribute__((always_inline)) static inline int64_t skip_sized(const uint8_t *data, long long *cursor, int64_t end,
                                                                int64_t size_min) {
    int64_t size = read_varint(data, cursor, end);
    if (size < 0) {
        if (__builtin_expect(size < size_min, 0)) {
            MS_NO_CMOV;
            cursor[0] = end + 1;
        }
    } else if (__builtin_expect(size > end - cursor[0], 0)) {
        MS_NO_CMOV;
        cursor[0] = end + 1;
    } else {
        cursor[0] += size;
    }
    return size;
}

/* The usual record at the cursor: it ends well before `end`, its varints take up to three bytes, its offset delta is
 * `index`, and it has no headers. Returns whether it is one, with the cursor behind it and its timestamp delta, key size,
 * key end, value size and value end in `fields`; if not, the cursor stays and the careful way has to be taken.
 *
 * The six varints together take less than the slack, and sizes are held against the record's end before they are used,
 * so no read needs a look at the data's end. The record's own length leads to the next one: that is a shorter chain of
 * loads than to go through the value, and the barrier keeps the compiler from taking the one for the other.
 */
#define MS_SLACK 64

/* A varint of up to three bytes before its zigzag is undone (twice the number, or twice the complement plus 1), or
 * UINT64_MAX. Three bytes from the cursor on may be read.
 */
__attribute__((always_inline)) static inline uint64_t ms_read_near(const uint8_t *data, long long *cursor) {
    int64_t position = cursor[0];
    uint64_t raw = data[position];
    if (raw < 0x80) {
        cursor[0] = position + 1;
        return raw;
    }
    if (data[position + 1] < 0x80) {
        cursor[0] = position + 2;
        return (raw & 0x7f) | (uint64_t)data[position + 1] << 7;
    }
    if (data[position + 2] < 0x80) {
        cursor[0] = position + 3;
        return (raw & 0x7f) | (data[position + 1] & 0x7fu) << 7 | (uint64_t)data[position + 2] << 14;
    }
    return UINT64_MAX;
}

/* Passes over a size and that many bytes, not beyond `record_end`; a size of -1 is null. */
__attribute__((always_inline)) static inline int ms_skip_near(const uint8_t *data, long long *cursor,
                                                              int64_t record_end, long long *size) {
    if (data[cursor[0]] == 1) {
        cursor[0] += 1;
        *size = -1;
        return 1;
    }
    uint64_t raw = ms_read_near(data, cursor);
    *size = (int64_t)(raw >> 1);
    if (__builtin_expect((raw & 1) || *size > record_end - cursor[0], 0))
        return 0;
    cursor[0] += *size;
    return 1;
}

__attribute__((always_inline)) static inline int read_plain_record(const uint8_t *data, long long *cursor, int64_t end,
                                                                   int64_t index, long long *fields) {
    long long inside[1] = {cursor[0]};
    if (__builtin_expect(inside[0] > end - MS_SLACK, 0))
        return 0;
    uint64_t raw = ms_read_near(data, inside);
    int64_t length = (int64_t)(raw >> 1);
    if (__builtin_expect((raw & 1) || length > end - MS_SLACK - inside[0], 0))
        return 0;
    int64_t record_end = inside[0] + length;
    inside[0] += 1; /* attributes: Kafka defines no bit of them */
    raw = ms_read_near(data, inside);
    if (__builtin_expect(raw == UINT64_MAX, 0))
        return 0;
    fields[0] = ms_unzigzag(raw);
    if (__builtin_expect(ms_read_near(data, inside) != (uint64_t)index << 1, 0))
        return 0;
    if (__builtin_expect(!ms_skip_near(data, inside, record_end, &fields[1]), 0))
        return 0;
    fields[2] = inside[0];
    if (__builtin_expect(!ms_skip_near(data, inside, record_end, &fields[3]), 0))
        return 0;
    fields[4] = inside[0];
    if (__builtin_expect(data[inside[0]] != 0 || inside[0] + 1 != record_end, 0))
        return 0;
    __asm__("" : "+r"(record_end));
    cursor[0] = record_end;
    return 1;
}

/* Where the first of the batches in data[start:end] lies whose checksum is wrong, or `end`. They are whole, one behind
 * the other (see record_batches.py for their layout). Small ones are summed three at a time.
 */
static inline ptrdiff_t find_bad_crc(const uint8_t *data, ptrdiff_t start, ptrdiff_t end) {
    while (start < end) {
#ifdef MS_HARDWARE
        const uint8_t *parts[3];
        size_t sizes[3];
        uint32_t crcs[3] = {~0u, ~0u, ~0u};
        ptrdiff_t positions[4] = {start};
        int count = 0;
        while (ms_has_hardware && count < 3 && positions[count] < end) {
            int64_t length = load_int32(data, positions[count] + 8);
            if (length >= 3 * MS_SHORT_BYTES)
                break;
            parts[count] = data + positions[count] + 21;
            sizes[count] = (size_t)length - 9;
            positions[count + 1] = positions[count] + 12 + length;
            count++;
        }
        if (count == 3) {
            ms_crc_of_three(crcs, parts, sizes);
            for (int index = 0; index < 3; index++)
                if (load_uint32(data, positions[index] + 17) != (uint32_t)~crcs[index])
                    return positions[index];
            start = positions[3];
            continue;
        }
#endif
        ptrdiff_t next = start + 12 + load_int32(data, start + 8);
        if (load_uint32(data, start + 17) != crc_of(data, start + 21, next, 0))
            return start;
        start = next;
    }
    return end;
}

/* Sums wrap around as Java's do; in C a signed overflow would be undefined. */
static inline int64_t add_int64(int64_t left, int64_t right) {
    return (int64_t)((uint64_t)left + (uint64_t)right);
}

/* SipHash (J.-P. Aumasson and D. J. Bernstein, 2012) with one round a word and three at the end, 128 bits out: two
 * different keys share a hash only by an accident of 2^-128, also where somebody would like them to, since the secret is
 * made anew by each process.
 */
#define MS_ROTATE(value, bits) (((value) << (bits)) | ((value) >> (64 - (bits))))
#define MS_SIP_ROUND(v0, v1, v2, v3)                                                                                   \
    do {                                                                                                               \
        v0 += v1; v1 = MS_ROTATE(v1, 13); v1 ^= v0; v0 = MS_ROTATE(v0, 32);                                            \
        v2 += v3; v3 = MS_ROTATE(v3, 16); v3 ^= v2;                                                                    \
        v0 += v3; v3 = MS_ROTATE(v3, 21); v3 ^= v0;                                                                    \
        v2 += v1; v1 = MS_ROTATE(v1, 17); v1 ^= v2; v2 = MS_ROTATE(v2, 32);                                            \
    } while (0)

static inline void hash_key(const uint8_t *data, ptrdiff_t position, ptrdiff_t size, int64_t secret0, int64_t secret1,
                            long long *hash) {
    uint64_t v0 = (uint64_t)secret0 ^ 0x736f6d6570736575u, v1 = (uint64_t)secret1 ^ 0x646f72616e646f6du ^ 0xee;
    uint64_t v2 = (uint64_t)secret0 ^ 0x6c7967656e657261u, v3 = (uint64_t)secret1 ^ 0x7465646279746573u;
    const uint8_t *at = data + position, *words_end = at + (size & ~(ptrdiff_t)7);
    for (; at < words_end; at += 8) {
        uint64_t word = ms_load_little64(at);
        v3 ^= word;
        MS_SIP_ROUND(v0, v1, v2, v3);
        v0 ^= word;
    }
    uint64_t last = (uint64_t)size << 56;
    for (int byte = 0; byte < (size & 7); byte++)
        last |= (uint64_t)at[byte] << (8 * byte);
    v3 ^= last;
    MS_SIP_ROUND(v0, v1, v2, v3);
    v0 ^= last;
    v2 ^= 0xee;
    for (int round = 0; round < 3; round++)
        MS_SIP_ROUND(v0, v1, v2, v3);
    hash[0] = (long long)(v0 ^ v1 ^ v2 ^ v3);
    v1 ^= 0xdd;
    for (int round = 0; round < 3; round++)
        MS_SIP_ROUND(v0, v1, v2, v3);
    hash[1] = (long long)(v0 ^ v1 ^ v2 ^ v3);
}

/* Lets the processor fetch the line that words[at] lies in, and the one behind it, while something else is done. */
static inline void prefetch_words(const long long *words, ptrdiff_t at) {
    __builtin_prefetch(words + at);
    __builtin_prefetch(words + at + 8);
}

/* The regions may overlap. */
static inline void copy_bytes(uint8_t *target, ptrdiff_t position, const uint8_t *source, ptrdiff_t start,
                              ptrdiff_t end) {
    memmove(target + position, source + start, (size_t)(end - start));
}

/* A zigzag varint at `position`; where it ends. */
static inline ptrdiff_t store_varint(uint8_t *data, ptrdiff_t position, int64_t number) {
    uint64_t raw = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    for (; raw > 0x7f; raw >>= 7)
        data[position++] = (uint8_t)(raw | 0x80);
    data[position++] = (uint8_t)raw;
    return position;
}

/* How many bytes `number` takes as a zigzag varint. */
static inline ptrdiff_t varint_size(int64_t number) {
    uint64_t raw = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    return 1 + (63 - __builtin_clzll(raw | 1)) / 7;
}

/* The 32-bit MurmurHash2 (A. Appleby) with Kafka's seed. */
static inline uint32_t murmur2_of(const uint8_t *data, ptrdiff_t size) {
    const uint32_t multiplier = 0x5bd1e995u;
    uint32_t value = 0x9747b28cu ^ (uint32_t)size, word;
    const uint8_t *words_end = data + (size & ~(ptrdiff_t)3);
    for (; data < words_end; data += 4) {
        word = ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24) * multiplier;
        value = (value * multiplier) ^ ((word ^ word >> 24) * multiplier);
    }
    if (size & 3) {
        for (int byte = 0; byte < (size & 3); byte++)
            value ^= (uint32_t)data[byte] << (8 * byte);
        value *= multiplier;
    }
    value = (value ^ value >> 13) * multiplier;
    return value ^ value >> 15;
}

/* Milliseconds since 1970 by the system's clock. */
static inline int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
