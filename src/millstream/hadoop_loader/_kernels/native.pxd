cdef extern from "native.h" nogil:
    void copy_bytes(
        unsigned char *target, Py_ssize_t position, const unsigned char *source, Py_ssize_t start, Py_ssize_t end
    )
