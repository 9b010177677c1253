"""Builds the Cython extensions; everything else is declared in pyproject.toml."""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer, newer_group

if not Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit("Python headers are missing: on Debian or Ubuntu run  apt-get install python3-dev")

OWN = "setup.py"
SOURCES = sorted(Path("pacs/_codecs").glob("*.pyx"))
CORES = len(os.sched_getaffinity(0))


def included(source: Path) -> set[Path]:
    """The files beside `source`, C or a header, that it includes, and those that they include."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        file = waiting.pop()
        names = re.findall(r'^[ \t]*#[ \t]*include "([^"]+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
        new = {path for name in names if (path := file.parent / name).exists()} - found
        found |= new
        waiting += new
    return found


def extensions() -> list[Extension]:
    made = cythonize(
        [
            Extension(f"pacs._codecs.{path.stem}", [str(path)], extra_compile_args=["-O3", "-fno-strict-aliasing"])
            for path in SOURCES
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": True,
        },
        # Cython compares a .c with its .pyx and .pxd, not with the directives above.
        force=any(newer(OWN, made) for path in SOURCES if (made := path.with_suffix(".c")).exists()),
    )
    for extension in made:
        headers = included(Path(extension.sources[0]))
        extension.depends = [OWN, *sorted(map(str, headers))]
    return made


class BuildChanged(build_ext):
    """In place, for an editable installation, compiles only what is older than its sources.

    setuptools by itself compiles everything, in a new folder, and copies it beside the sources when all of it is done.
    """

    def run(self) -> None:
        self.beside = self.inplace  # which setuptools sets aside while it compiles
        super().run()

    def build_extension(self, ext: Extension) -> None:
        built = Path(self.get_ext_fullpath(ext.name))
        kept = Path(ext.sources[0]).with_name(built.name)
        if self.beside and not newer_group([*ext.sources, *ext.depends], str(kept)):
            built.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept, built)
            return
        super().build_extension(ext)
        if self.beside:
            # At once and whole: what was compiled by the time of a Ctrl-C or an error in another is not lost.
            new = kept.with_name(f"new-{kept.name}")
            shutil.copy2(built, new)
            new.replace(kept)


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildChanged},
        options={"build_ext": {"parallel": CORES}},  # one compiler a core, not one after the other
    )
