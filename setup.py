"""The list of kernels: pure-Python modules that Cython compiles when a C compiler is there.

Without one the same files run interpreted (slower, same results), and `millstream doctor` says so.
`MILLSTREAM_REQUIRE_KERNELS=1` makes a failed build an error.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# What stands beside the kernels for their interpreted form, and is never compiled.
INTERPRETED_ONLY = {"__init__.py", "interpreted.py", "opcodes.py", "shim.py"}

KERNELS = sorted(path for path in Path("src/millstream").glob("**/_kernels/*.py") if path.name not in INTERPRETED_ONLY)

extensions = cythonize(
    [
        Extension(
            ".".join(path.relative_to("src").with_suffix("").parts),
            [str(path)],
            include_dirs=[str(path.parent)],
            depends=[str(header) for header in sorted(path.parent.glob("*.h"))],
            extra_compile_args=["-O3", "-g0"],
        )
        for path in KERNELS
    ],
    include_path=["src"],
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
