from millstream.schemas._kernels.native cimport *
