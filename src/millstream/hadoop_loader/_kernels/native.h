/* What the loader's kernels share in C. */
#ifndef MILLSTREAM_LOADER_NATIVE_H
#define MILLSTREAM_LOADER_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* source[start:end] to target[position:]; they are different buffers. */
static inline void copy_bytes(uint8_t *target, ptrdiff_t position, const uint8_t *source, ptrdiff_t start,
                              ptrdiff_t end) {
    memcpy(target + position, source + start, (size_t)(end - start));
}

#endif
