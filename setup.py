"""The list of kernels: pure-Python modules that Cython compiles when a C compiler is there.

Without one the same files run interpreted (slower, same results), and `millstream doctor` says so.
`MILLSTREAM_REQUIRE_KERNELS=1` makes a failed build an error.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = sorted(
    path
    for path in Path("src/millstream").glob("**/_kernels/*.py")
    if path.name != "__init__.py"
)

extensions = cythonize(
    [
        Extension(
            ".".join(path.relative_to("src").with_suffix("").parts),
            [str(path)],
            extra_compile_args=["-O3", "-g0"],
        )
        for path in KERNELS
    ],
    build_dir="build/cython",
    compiler_directives={
        "language_level": "3",
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
    },
)
for extension in extensions:
    extension.optional = os.environ.get("MILLSTREAM_REQUIRE_KERNELS") != "1"

setup(ext_modules=extensions)
