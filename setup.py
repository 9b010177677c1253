"""Builds the Cython extensions; everything else is declared in pyproject.toml."""

import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if not Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit("Python headers are missing: on Debian or Ubuntu run  apt-get install python3-dev")

extensions = [
    Extension(
        f"pacs._codecs.{source.stem}",
        [str(source)],
        depends=[str(header) for header in sorted(source.parent.glob("ht/*.h"))],
        extra_compile_args=["-O3", "-fno-strict-aliasing"],
    )
    for source in sorted(Path("pacs/_codecs").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": True,
        },
    ),
    options={"build_ext": {"parallel": len(os.sched_getaffinity(0))}},  # one compiler a core, not one after the other
)
