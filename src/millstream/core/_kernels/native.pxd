cdef extern from "native.h" nogil:
    unsigned int crc_of(const unsigned char *data, Py_ssize_t start, Py_ssize_t end, unsigned int crc)
    unsigned int crc_by_table_of(const unsigned char *data, Py_ssize_t start, Py_ssize_t end, unsigned int crc)
    int crc_in_hardware()
    Py_ssize_t find_bad_crc(const unsigned char *data, Py_ssize_t start, Py_ssize_t end)
    long long load_int64(const unsigned char *data, Py_ssize_t position)
    long long load_uint32(const unsigned char *data, Py_ssize_t position)
    long long load_int32(const unsigned char *data, Py_ssize_t position)
    long long load_int16(const unsigned char *data, Py_ssize_t position)
    void store_int32(unsigned char *data, Py_ssize_t position, long long number)
    void store_int64(unsigned char *data, Py_ssize_t position, long long number)
    long long read_varint(const unsigned char *data, long long *cursor, long long end)
    long long skip_sized(const unsigned char *data, long long *cursor, long long end, long long size_min)
    bint read_plain_record(
        const unsigned char *data, long long *cursor, long long end, long long index, long long *fields
    )
    long long add_int64(long long left, long long right)
    void hash_key(
        const unsigned char *data, Py_ssize_t position, Py_ssize_t size, long long secret0, long long secret1,
        long long *hash
    )
    void prefetch_words(const long long *words, Py_ssize_t at)
    void copy_bytes(
        unsigned char *target, Py_ssize_t position, const unsigned char *source, Py_ssize_t start, Py_ssize_t end
    )
    Py_ssize_t store_varint(unsigned char *data, Py_ssize_t position, long long number)
    Py_ssize_t varint_size(long long number)
    unsigned int murmur2_of(const unsigned char *data, Py_ssize_t size)
    long long now_ms()
    void store_native_int32(unsigned char *data, Py_ssize_t position, long long number)
